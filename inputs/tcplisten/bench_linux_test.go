package tcplisten

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The synthetic host of the benchmarks.
var (
	hostProcesses   = flag.Int("host.processes", 200, "processes of the synthetic host")
	hostFiles       = flag.Int("host.files", 400, "open files of each of them")
	hostListeners   = flag.Int("host.listeners", 5, "listening sockets of each of them")
	hostConnections = flag.Int("host.connections", 40, "connections of each of them, both ends its own")
)

// A size is how large a synthetic host is.
type size struct{ processes, files, listeners, connections int }

func standard() size {
	return size{*hostProcesses, *hostFiles, *hostListeners, *hostConnections}
}

// host spawns a synthetic host, which the benchmark ends.
func host(b testing.TB, z size) {
	b.Helper()
	job := task{Name: []byte("synthetic"), Files: z.files, Conns: z.connections}
	addresses := []string{"127.0.0.1", "0.0.0.0", "::1", "::", "127.0.0.2"}
	for i := range z.listeners {
		job.Listen = append(job.Listen, listenTask{Addr: addresses[i%len(addresses)], Backlog: 64})
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	slots := make(chan bool, 8)
	for range z.processes {
		wait.Go(func() {
			slots <- true
			defer func() { <-slots }()
			cmd, err := spawn(&job, nil, &syscall.SysProcAttr{Setpgid: true}, new([]int))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				b.Error(err)
				return
			}
			b.Cleanup(func() { end(cmd) })
		})
	}
	wait.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// cpu returns the user and system time that this process, or its children that
// were waited for, have used.
func cpu(who int) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		panic(err) // not with these arguments
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs one way of gathering b.N times, and reports its CPU beside what Go
// reports.
func measure(b *testing.B, who int, once func()) {
	b.Helper()
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(who)
	n := 0
	for b.Loop() {
		once()
		n++
	}
	b.ReportMetric(float64(cpu(who)-before)/float64(n)/1e6, "cpu-ms/op")
}

// BenchmarkHost measures all ways on one synthetic host.
func BenchmarkHost(b *testing.B) {
	host(b, standard())
	b.Run("dump", benchmarkDump)
	b.Run("steady", benchmarkSteady)
	b.Run("averaged", benchmarkAveraged)
	b.Run("walk", benchmarkWalk)
	b.Run("first", benchmarkFirst)
	b.Run("ss", func(b *testing.B) {
		measure(b, unix.RUSAGE_CHILDREN, func() {
			if err := exec.Command("ss", "-ltnp").Run(); err != nil {
				b.Skip("ss: ", err)
			}
		})
	})
}

// benchmarkDump measures the kernel's part alone: both families of listeners,
// received and thrown away.
func benchmarkDump(b *testing.B) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 32<<10)
	measure(b, unix.RUSAGE_SELF, func() {
		for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
			request := make([]byte, 72)
			request[0], request[4], request[6], request[7] = 72, unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_REQUEST, unix.NLM_F_DUMP>>8
			request[16], request[17], request[21] = family, unix.IPPROTO_TCP, 1<<(10-8)
			if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
				b.Fatal(err)
			}
			for done := false; !done; {
				n, _, err := unix.Recvfrom(fd, buf, 0)
				if err != nil {
					b.Fatal(err)
				}
				done = n < 20 || buf[4] == unix.NLMSG_DONE
				if buf[4] == unix.NLMSG_ERROR {
					b.Fatal("the kernel refuses the dump")
				}
			}
		}
	})
}

// steadyOptions are those of a gather without the work that is spread over many.
func steadyOptions() Options {
	o := Defaults()
	o.OwnerVerify, o.OwnerRefresh = 1<<62, 1<<62
	return o
}

// benchmarkSteady measures the gather of a host on which nothing changes.
func benchmarkSteady(b *testing.B) {
	in := open(b, steadyOptions())
	for range 3 {
		gather(b, in)
	}
	measure(b, unix.RUSAGE_SELF, func() {
		if _, err := in.Gather(context.Background()); err != nil {
			b.Fatal(err)
		}
	})
}

// benchmarkAveraged measures the same with verification and refresh as they are by
// default, at one gather in ten seconds.
func benchmarkAveraged(b *testing.B) {
	in := open(b, Defaults()).(*input)
	now := time.Now()
	again := func() {
		now = now.Add(10 * time.Second)
		if _, err := in.gather(context.Background(), now); err != nil {
			b.Fatal(err)
		}
	}
	for range 120 { // until the searches for what nobody holds are as rare as they get
		again()
	}
	measure(b, unix.RUSAGE_SELF, func() {
		for range 30 { // a refresh is due once in as many
			again()
		}
	})
}

// benchmarkWalk measures the kernel's part of the search for owners: every open
// file of every process, read and thrown away.
func benchmarkWalk(b *testing.B) {
	proc, err := os.Open("/proc")
	if err != nil {
		b.Fatal(err)
	}
	defer proc.Close()
	b.ReportAllocs()
	buf, link := make([]byte, 32<<10), make([]byte, 256)
	measure(b, unix.RUSAGE_SELF, func() {
		pids, err := os.ReadDir("/proc")
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range pids {
			if _, err := strconv.Atoi(p.Name()); err != nil {
				continue
			}
			dir, err := unix.Openat(int(proc.Fd()), p.Name()+"/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			for {
				n, err := unix.ReadDirent(dir, buf)
				if n <= 0 || err != nil {
					break
				}
				for at := 0; at < n; {
					size := int(buf[at+16]) | int(buf[at+17])<<8
					end := at + 19
					for buf[end] != 0 {
						end++
					}
					unix.Readlinkat(dir, string(buf[at+19:end]), link)
					at += size
				}
			}
			unix.Close(dir)
		}
	})
}

// benchmarkFirst measures the first gather, which knows nothing.
func benchmarkFirst(b *testing.B) {
	options := steadyOptions()
	measure(b, unix.RUSAGE_SELF, func() {
		in := open(b, options)
		if _, err := in.Gather(context.Background()); err != nil {
			b.Fatal(err)
		}
	})
}
