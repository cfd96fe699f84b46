package compare

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cakturk/go-netstat/netstat"
	"github.com/prometheus/procfs"
	gopsutil "github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"

	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/synthetic"
	"sockwatch/inputs/tcplisten"
)

var hostSize = synthetic.Flags()

func TestMain(m *testing.M) {
	synthetic.Main()
	if name := os.Getenv(envListener); name != "" {
		if err := listenAs(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() != "" {
		synthetic.Alone()
	}
	os.Exit(m.Run())
}

// A way finds the listeners with their owners, and tells how many listeners have
// one.
type way struct {
	name     string
	children bool // it is another program
	once     func() (int, error)
}

// BenchmarkWays measures every way on one synthetic host, and demands that each
// finds the owner of every listener.
func BenchmarkWays(b *testing.B) {
	h, err := synthetic.Start(*hostSize)
	if err != nil {
		b.Fatal(err)
	}
	defer h.Stop()
	steady, err := open()
	if err != nil {
		b.Fatal(err)
	}
	defer steady.(io.Closer).Close()
	var table strings.Builder
	fmt.Fprintf(&table, "\n| way | CPU | wall | allocated | times the CPU of a steady gather |\n|---|---|---|---|---|\n")
	base := time.Duration(0)
	for _, w := range []way{
		{"sockwatch, steady gather", false, func() (int, error) { return owned(steady) }},
		{"sockwatch, first gather", false, func() (int, error) {
			in, err := open()
			if err != nil {
				return 0, err
			}
			defer in.(io.Closer).Close()
			return owned(in)
		}},
		{"`ss -ltnp`", true, ss},
		{"prometheus/procfs, joined by inode", false, byProcfs},
		{"gopsutil `net.Connections(\"tcp\")` and names", false, byGopsutil},
		{"go-netstat, as the original exporter uses it", false, byNetstat},
	} {
		b.Run(w.name, func(b *testing.B) {
			if n, err := w.once(); err != nil {
				b.Skip(err)
			} else if want := hostSize.Processes * hostSize.Listeners; n != want {
				b.Errorf("%d listeners have an owner, expected %d", n, want)
			}
			b.ReportAllocs()
			runs, before, began := 0, synthetic.CPU(w.children), time.Now()
			var memory, after runtime.MemStats
			runtime.ReadMemStats(&memory)
			for b.Loop() {
				if _, err := w.once(); err != nil {
					b.Fatal(err)
				}
				runs++
			}
			cpu, wall := (synthetic.CPU(w.children)-before)/time.Duration(runs), time.Since(began)/time.Duration(runs)
			b.ReportMetric(float64(cpu)/1e6, "cpu-ms/op")
			if base == 0 {
				base = cpu
			}
			runtime.ReadMemStats(&after)
			allocated := fmt.Sprintf("%.1f MB", float64(after.TotalAlloc-memory.TotalAlloc)/float64(runs)/1e6)
			if w.children {
				allocated = "-"
			}
			fmt.Fprintf(&table, "| %s | %s | %s | %s | %s |\n", w.name, ms(cpu), ms(wall), allocated, times(cpu, base))
		})
	}
	fmt.Println(table.String())
}

func ms(d time.Duration) string {
	switch v := float64(d) / 1e6; {
	case v < 10:
		return fmt.Sprintf("%.2f ms", v)
	default:
		return fmt.Sprintf("%.0f ms", v)
	}
}

func times(d, base time.Duration) string {
	v := float64(d) / float64(base)
	if v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// open returns the input without the work that is spread over many gathers.
func open() (plugin.Input, error) {
	options := tcplisten.Defaults()
	options.OwnerVerify, options.OwnerRefresh = 1<<62, 1<<62
	return tcplisten.Plugin.NewInput(&options, plugin.Env{Name: "tcp_listen", Log: slog.New(slog.DiscardHandler)})
}

func owned(in plugin.Input) (n int, err error) {
	batch, err := in.Gather(context.Background())
	for i := range batch.Points {
		if p := &batch.Points[i]; p.Tag("owner") == "resolved" {
			sockets, _ := p.Field("sockets")
			n += int(sockets.AsInt())
		}
	}
	return n, err
}

func ss() (int, error) {
	out, err := exec.Command("ss", "-Hltnp").Output()
	return bytes.Count(out, []byte("users:((")), err
}

// byNetstat is what the original exporter does, for IPv6 too.
func byNetstat() (n int, err error) {
	listening := func(e *netstat.SockTabEntry) bool { return e.State == netstat.Listen }
	for _, table := range []func(netstat.AcceptFn) ([]netstat.SockTabEntry, error){netstat.TCPSocks, netstat.TCP6Socks} {
		entries, err := table(listening)
		if err != nil {
			return 0, err
		}
		for _, e := range entries {
			if e.Process != nil && e.Process.Name != "" {
				n++
			}
		}
	}
	return n, nil
}

// byGopsutil lists all connections with their pids, and reads the names of those
// that listen.
func byGopsutil() (n int, err error) {
	all, err := gopsutil.Connections("tcp")
	if err != nil {
		return 0, err
	}
	names := make(map[int32]string)
	for _, c := range all {
		if c.Status != "LISTEN" || c.Pid == 0 {
			continue
		}
		if names[c.Pid] == "" {
			p, err := process.NewProcess(c.Pid)
			if err != nil {
				continue
			}
			if names[c.Pid], err = p.Name(); err != nil {
				continue
			}
		}
		n++
	}
	return n, nil
}

// byProcfs joins the sockets that listen with the open files of all processes.
func byProcfs() (n int, err error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, err
	}
	owners := make(map[uint64]string)
	//lint:ignore SA1019 this is what is measured
	for _, table := range []func() (procfs.NetTCP, error){fs.NetTCP, fs.NetTCP6} { //nolint:staticcheck // deprecated, and what others still use
		lines, err := table()
		if err != nil {
			return 0, err
		}
		for _, l := range lines {
			if l.St == 0x0a {
				owners[l.Inode] = ""
			}
		}
	}
	processes, err := fs.AllProcs()
	if err != nil {
		return 0, err
	}
	for _, p := range processes {
		targets, err := p.FileDescriptorTargets()
		if err != nil {
			continue // it has ended
		}
		name := ""
		for _, target := range targets {
			number, ok := strings.CutPrefix(target, "socket:[")
			if !ok {
				continue
			}
			inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
			if _, listens := owners[inode]; err != nil || !listens {
				continue
			}
			if name == "" {
				if name, err = p.Comm(); err != nil {
					break
				}
			}
			owners[inode] = name
		}
	}
	for _, name := range owners {
		if name != "" {
			n++
		}
	}
	return n, nil
}
