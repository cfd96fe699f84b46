package tcplisten

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/bpf"
	"sockwatch/inputs/internal/expect"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/netns"
	"sockwatch/inputs/internal/procfs"
	"sockwatch/inputs/internal/synthetic"
	"sockwatch/inputs/internal/testchild"
)

// The synthetic host of the benchmarks.
var hostSize = synthetic.Flags()

// startHost starts a synthetic host that ends with the benchmark.
func startHost(b *testing.B, z synthetic.Size) {
	b.Helper()
	h, err := synthetic.Start(z)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(h.Stop)
}

// measure runs one way of gathering, and reports its CPU time per gather in addition to Go's
// own metrics. A run may consist of several gathers.
func measure(b *testing.B, children bool, gathers int, once func()) {
	b.Helper()
	b.ReportAllocs()
	before := synthetic.CPU(children)
	n := 0
	for b.Loop() {
		once()
		n += gathers
	}
	b.ReportMetric(float64(synthetic.CPU(children)-before)/float64(n)/1e6, "cpu-ms/gather")
}

// BenchmarkHost measures all ways of gathering on one synthetic host.
func BenchmarkHost(b *testing.B) {
	startHost(b, *hostSize)
	b.Run("dump", benchmarkDump)
	b.Run("steady", benchmarkSteady)
	b.Run("walk", benchmarkWalk)
	b.Run("holders", benchmarkHolders)
	for _, source := range []string{ownerSourceProcfs, ownerSourceBPF} {
		b.Run("averaged/"+source, func(b *testing.B) { benchmarkAveraged(b, source) })
		b.Run("search/"+source, func(b *testing.B) { benchmarkSearch(b, source) })
		b.Run("first/"+source, func(b *testing.B) { benchmarkFirst(b, source) })
	}
	b.Run("ss", func(b *testing.B) {
		measure(b, true, 1, func() {
			if err := exec.Command("ss", "-ltnp").Run(); err != nil {
				b.Skip("ss: ", err)
			}
		})
	})
}

// benchmarkDump measures only the kernel's part: the listeners of both families are received
// and discarded.
func benchmarkDump(b *testing.B) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 32<<10)
	measure(b, false, 1, func() {
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

// steadyOptions returns options without the work that is spread over many gathers.
func steadyOptions() Options {
	o := Defaults()
	o.OwnerVerify, o.OwnerRefresh = 1<<62, 1<<62
	return o
}

// benchmarkSteady measures a gather on a host where nothing changes.
func benchmarkSteady(b *testing.B) {
	in := open(b, steadyOptions())
	for range 3 {
		gather(b, in)
	}
	measure(b, false, 1, func() {
		if _, err := in.Gather(context.Background()); err != nil {
			b.Fatal(err)
		}
	})
}

// benchmarkAveraged measures the same with the default verification and refresh, at one gather
// every ten seconds.
func benchmarkAveraged(b *testing.B, source string) {
	options := Defaults()
	options.OwnerSource = source
	in := openOrSkip(b, options)
	now := time.Now()
	again := func() {
		now = now.Add(10 * time.Second)
		if _, err := in.gather(context.Background(), moment(now)); err != nil {
			b.Fatal(err)
		}
	}
	for range 120 { // until searches for sockets without a holder are as rare as they get
		again()
	}
	measure(b, false, 30, func() {
		for range 30 { // one refresh is due in this many gathers
			again()
		}
	})
}

// benchmarkWalk measures the kernel's part of the search for owners: every open file of every
// process is read and discarded.
func benchmarkWalk(b *testing.B) {
	proc, err := os.Open("/proc")
	if err != nil {
		b.Fatal(err)
	}
	defer proc.Close()
	buf, link := make([]byte, 32<<10), make([]byte, 256)
	measure(b, false, 1, func() {
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

// openOrSkip opens an input, or skips the benchmark if the kernel refuses it.
func openOrSkip(b *testing.B, options Options) *input {
	b.Helper()
	in := open(b, options).(*input)
	if _, err := in.Gather(context.Background()); err != nil && options.OwnerSource == ownerSourceBPF {
		b.Skip(err)
	} else if err != nil {
		b.Fatal(err)
	}
	return in
}

// benchmarkHolders measures only the kernel's part of the search by BPF: the holders of all
// listeners are received and discarded.
func benchmarkHolders(b *testing.B) {
	pids, err := pidNamespace(true)
	if err != nil {
		b.Fatal(err)
	}
	holders, err := bpf.OpenHolders(pids)
	if err != nil {
		b.Skip(err)
	}
	defer holders.Close()
	measure(b, false, 1, func() {
		if err := holders.Sockets(context.Background(), func(procfs.File, procfs.State) {}); err != nil {
			b.Fatal(err)
		}
	})
}

// benchmarkSearch measures a gather that searches for further holders of all listeners.
func benchmarkSearch(b *testing.B, source string) {
	options := steadyOptions()
	options.OwnerSource, options.OwnerRefresh = source, 1
	in := openOrSkip(b, options)
	measure(b, false, 1, func() {
		if _, err := in.Gather(context.Background()); err != nil {
			b.Fatal(err)
		}
	})
}

// benchmarkFirst measures the first gather, which starts without any state.
func benchmarkFirst(b *testing.B, source string) {
	options := steadyOptions()
	options.OwnerSource = source
	openOrSkip(b, options)
	measure(b, false, 1, func() {
		in := open(b, options)
		if _, err := in.Gather(context.Background()); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkGrowth measures steady gathers on hosts that differ in one quantity at a time, on
// which the cost may or may not depend. The slope is the CPU time for each additional unit.
func BenchmarkGrowth(b *testing.B) {
	small := synthetic.Size{Processes: 20, Files: 20, Listeners: 5, Connections: 5}
	for _, dimension := range []struct {
		name string
		size func(int) synthetic.Size
		unit func(synthetic.Size) int
	}{
		{"listeners", func(n int) synthetic.Size { z := small; z.Listeners = 5 * n; return z },
			func(z synthetic.Size) int { return z.Processes * z.Listeners }},
		{"connections", func(n int) synthetic.Size { z := small; z.Connections = 25 * n; return z },
			func(z synthetic.Size) int { return z.Processes * z.Connections }},
		{"files", func(n int) synthetic.Size { z := small; z.Files = 100 * n; return z },
			func(z synthetic.Size) int { return z.Processes * z.Files }},
	} {
		var at []int
		var took []time.Duration
		for _, n := range []int{1, 2, 4, 8} {
			z := dimension.size(n)
			b.Run(fmt.Sprintf("%s/%d", dimension.name, dimension.unit(z)), func(b *testing.B) {
				startHost(b, z)
				in := open(b, steadyOptions())
				for range 3 {
					gather(b, in)
				}
				before, runs := synthetic.CPU(false), 0
				measure(b, false, 1, func() {
					runs++
					if _, err := in.Gather(context.Background()); err != nil {
						b.Fatal(err)
					}
				})
				at = append(at, dimension.unit(z))
				took = append(took, (synthetic.CPU(false)-before)/time.Duration(runs))
				if len(at) > 1 {
					b.ReportMetric(1e6*slope(at, took), "cpu-us-slope")
				}
			})
		}
	}
}

// BenchmarkMemory runs the whole program with all outputs on the synthetic host, and reports
// its private memory after a number of gathers and scrapes.
func BenchmarkMemory(b *testing.B) {
	startHost(b, *hostSize)
	dir := b.TempDir()
	program := filepath.Join(dir, "sockwatch")
	if out, err := exec.Command("go", "build", "-o", program, "sockwatch/cmd/sockwatch").CombinedOutput(); err != nil {
		b.Fatalf("go build: %v: %s", err, out)
	}
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer sink.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	config := filepath.Join(dir, "sockwatch.toml")
	text := fmt.Sprintf(`
[agent]
  interval = "1s"
  state_directory = %q
[[inputs.tcp_listen]]
  custom_port_exporter = true
[[outputs.prometheus]]
  listen = %q
[[outputs.influxdb]]
  urls = [%q]
  database = "x"
  flush_interval = "1s"
[[outputs.stdout]]
[[outputs.file]]
  path = %q
`, dir, address, sink.URL, filepath.Join(dir, "points.jsonl"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(program, "--config", config)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for b.Loop() {
		for range 20 {
			time.Sleep(time.Second)
			answer, err := http.Get("http://" + address + "/metrics")
			if err != nil {
				b.Fatalf("%v: %s", err, &log)
			}
			io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(kb)/1024, "RssAnon-MiB")
		}
	}
}

// slope returns by how many seconds a measurement grows with each unit: the slope of the
// least-squares line.
func slope(at []int, took []time.Duration) float64 {
	var x, y, xx, xy float64
	for i := range at {
		x += float64(at[i])
		y += took[i].Seconds()
		xx += float64(at[i]) * float64(at[i])
		xy += float64(at[i]) * took[i].Seconds()
	}
	n := float64(len(at))
	return (n*xy - x*y) / (n*xx - x*x)
}

// manyListeners is the number of listeners in the benchmarks of changes.
const manyListeners = 5000

// restartingHost returns a function that closes the n sockets of a process and opens them
// again.
func restartingHost(b *testing.B, n int) (restart func()) {
	b.Helper()
	actor, err := testchild.Start(&task{Actor: true}, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(actor.End)
	job := task{Name: []byte("service")}
	for i := range n {
		job.Listen = append(job.Listen, listenTask{Addr: fmt.Sprintf("127.0.0.%d", 1+i/1000), Port: 20000 + i%1000})
	}
	restart = func() {
		var s scene
		if err := actor.Tell(&job); err != nil {
			b.Fatal(err)
		}
		if err := actor.Hear(&s); err != nil || s.Error != "" {
			b.Fatal(s.Error, err)
		}
	}
	restart()
	return restart
}

// measureGather reports the CPU time of gathers, each after prepare, and of the part that comes
// after the listing and the search for owners: description, changes, rules, history and points.
func measureGather(b *testing.B, prepare func() *input) {
	b.Helper()
	b.ReportAllocs()
	var whole, rest time.Duration
	now, n := time.Now(), 0
	for b.Loop() {
		b.StopTimer()
		in := prepare()
		now = now.Add(10 * time.Second)
		b.StartTimer()
		begin := synthetic.CPU(false)
		err := in.openReaders()
		if err == nil {
			err = in.list(b.Context(), now, new(notes))
		}
		if err == nil {
			err = in.findOwners(b.Context(), b.Context(), now, new(notes))
		}
		if err != nil {
			b.Fatal(err)
		}
		found := synthetic.CPU(false)
		batch := in.finish(b.Context(), moment(now))
		end := synthetic.CPU(false)
		whole, rest, n = whole+end-begin, rest+end-found, n+1
		if batch.EventsStored != nil {
			batch.EventsStored()
		}
	}
	b.ReportMetric(float64(whole)/float64(n)/1e6, "cpu-ms/gather")
	b.ReportMetric(float64(rest)/float64(n)/1e6, "cpu-ms/rest")
}

// BenchmarkChanges measures gathers on a host with 5,000 listeners: when nothing has changed,
// when the tags of all are built again, when one or all were restarted, and the first gather of
// an input, which describes all of them and has no history.
func BenchmarkChanges(b *testing.B) {
	restart := restartingHost(b, manyListeners)
	rules := func(o *Options) {
		for i := range 100 {
			o.Allow = append(o.Allow, expect.Allow{
				Name:     fmt.Sprintf("rule-%d", i),
				Criteria: expect.Criteria{Port: expect.Ports{{First: uint16(20000 + 10*i), Last: uint16(20009 + 10*i)}}, Process: plugin.Strings{"serv*"}},
			})
		}
	}
	for _, with := range []struct {
		name string
		set  func(*Options)
	}{{"no rules", func(*Options) {}}, {"100 rules", rules}} {
		b.Run(with.name, func(b *testing.B) {
			options := steadyOptions()
			with.set(&options)
			begin := func(b *testing.B) *input {
				in, _ := openLogging(b, options, plugin.Env{Name: pointListener, StateDir: b.TempDir()})
				for range 3 {
					gather(b, in)
				}
				return in.(*input)
			}
			b.Run("unchanged", func(b *testing.B) {
				in := begin(b)
				measureGather(b, func() *input { return in })
			})
			b.Run("tags made again", func(b *testing.B) {
				in := begin(b)
				measureGather(b, func() *input { in.listeners.usersVersion++; return in })
			})
			b.Run("one restarted", func(b *testing.B) {
				in := begin(b)
				l, err := net.Listen("tcp4", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				defer func() { l.Close() }()
				measureGather(b, func() *input {
					l.Close()
					if l, err = net.Listen("tcp4", l.Addr().String()); err != nil {
						b.Fatal(err)
					}
					return in
				})
			})
			b.Run("first", func(b *testing.B) {
				measureGather(b, func() *input {
					in, _ := openLogging(b, options, plugin.Env{Name: pointListener, StateDir: b.TempDir()})
					return in.(*input)
				})
			})
			b.Run("all restarted", func(b *testing.B) {
				in := begin(b)
				measureGather(b, func() *input { restart(); return in })
			})
		})
	}
}

// BenchmarkStart measures the first gathers on a host with 5,000 listeners. The second one
// reads the ancestry of their processes.
func BenchmarkStart(b *testing.B) {
	restartingHost(b, manyListeners)
	var used [3]time.Duration
	n := 0
	for b.Loop() {
		in, _ := openLogging(b, steadyOptions(), plugin.Env{Name: pointListener, StateDir: b.TempDir()})
		for i := range used {
			before := synthetic.CPU(false)
			if _, err := in.Gather(b.Context()); err != nil {
				b.Fatal(err)
			}
			used[i] += synthetic.CPU(false) - before
		}
		n++
	}
	for i, name := range []string{"first", "second", "third"} {
		b.ReportMetric(float64(used[i])/float64(n)/1e6, "cpu-ms/"+name)
	}
}

// BenchmarkScan compares a scan between gathers with the bare listing by the kernel, on a host
// with 5,000 listeners in 51 network namespaces, where about a thousand more open and close
// every second.
func BenchmarkScan(b *testing.B) {
	const others = 50
	for i := range others {
		name := fmt.Sprintf("other%d", i)
		ip(b, "netns add "+name)
		ip(b, "-n "+name+" link set lo up")
		mounted, err := os.Open("/run/netns/" + name)
		if err != nil {
			b.Fatal(err)
		}
		startIn(b, mounted, task{Listen: []listenTask{{Addr: "127.0.0.1", Port: 20000, Count: manyListeners / (others + 1)}}})
		mounted.Close()
	}
	start(b, task{Listen: []listenTask{{Addr: "127.0.0.1", Port: 20000, Count: manyListeners / (others + 1)}}})
	start(b, task{Churn: true})
	options := steadyOptions()
	options.Namespaces = true
	in := open(b, options).(*input)
	for range 3 {
		gather(b, in)
	}
	b.Run("lists", func(b *testing.B) {
		measure(b, false, 1, func() {
			for _, t := range in.listeners.tables {
				if _, err := t.ns.Dump(b.Context(), netns.Listen, 0, func() {}, func(*inet.Socket) {}); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("scan", func(b *testing.B) {
		measure(b, false, 1, func() { in.scan(b.Context(), readClocks()) })
	})
	b.Run("gather", func(b *testing.B) {
		measure(b, false, 1, func() { gather(b, in) })
	})
	b.Run("gather beside scans", func(b *testing.B) {
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for ctx.Err() == nil {
				in.scan(ctx, readClocks())
				time.Sleep(time.Millisecond)
			}
		}()
		for b.Loop() {
			gather(b, in)
		}
		cancel()
		<-ended
	})
}
