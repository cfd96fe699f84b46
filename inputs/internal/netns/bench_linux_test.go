package netns

import (
	"fmt"
	"net/netip"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/testchild"

	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/inet"
)

// makeNamespaces makes that many namespaces: half of them have a name, half a process,
// and each has a listener.
func makeNamespaces(b *testing.B, count int) {
	b.Helper()
	var paths []string
	for i := range count {
		if i%2 == 0 {
			name := fmt.Sprintf("bench%d", i)
			if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
			b.Cleanup(func() { exec.Command("ip", "netns", "delete", name).Run() })
			paths = append(paths, "/run/netns/"+name)
			continue
		}
		cmd := exec.Command("sleep", "infinity")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
		paths = append(paths, fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	}
	c, err := testchild.StartAndHear(&task{Listen: everywhere, In: paths}, nil, nil, &struct{}{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.End)
}

// BenchmarkNamespaces does what a gather does with 200 namespaces. Measured on
// Linux 6.18 with 2 cores, wall time and allocations of one gather:
//
//	before this package, netlink     71 ms    11 MB
//	kept (netlink)                   17 ms   0.5 MB: of it 13 ms are the kernel's dumps
//	entered every time (netlink)    120 ms    21 MB: beyond the limit of open files
//	before this package, procfs   1,680 ms: 200 of the namespaces have a process
//	procfs                        1,050 ms: 100 of them have
func BenchmarkNamespaces(b *testing.B) {
	if syscall.Geteuid() != 0 {
		b.Skip("needs root")
	}
	const count = 200
	makeNamespaces(b, count)
	for _, mode := range []struct {
		name    string
		options Options
		free    int
	}{
		{name: "kept", options: options(Auto), free: count},
		{name: "entered", options: options(Auto)},
		{name: "procfs", options: options(Procfs)},
	} {
		b.Run(mode.name, func(b *testing.B) {
			s, err := Open(host.Find("/proc"), mode.options)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			s.shared.free = mode.free
			gather := func() (sockets int) {
				partial, err := s.Find(b.Context(), time.Now())
				if err != nil || partial != "" {
					b.Fatalf("partial %q, %v", partial, err)
				}
				for _, n := range s.All() {
					n.Dump(b.Context(), Listen, 0, func() {}, func(*inet.Socket) { sockets++ })
					n.Local(b.Context())
				}
				return sockets
			}
			gather()
			b.ReportAllocs()
			for b.Loop() {
				if n := gather(); mode.name != "procfs" && n < count || len(s.All()) != count+1 {
					b.Fatalf("%d sockets of %d namespaces", n, len(s.All()))
				}
			}
		})
	}
}

// BenchmarkExposure is one listener on an address of a host with 100,000: 0.2 us.
func BenchmarkExposure(b *testing.B) {
	l := builder{rules: [2][]rule{defaultRules(), defaultRules()}}
	if err := l.prepare(); err != nil {
		b.Fatal(err)
	}
	for i := range 100_000 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 15), byte(i >> 7), byte(i << 1)})
		if err := l.add(route{table: unix.RT_TABLE_LOCAL, prefix: netip.PrefixFrom(addr, 32)}); err != nil {
			b.Fatal(err)
		}
	}
	local := l.local()
	s := inet.Socket{Addr: netip.MustParseAddr("10.1.1.2")}
	b.ReportAllocs()
	for b.Loop() {
		if local.Exposure(&s) != inet.Private {
			b.Fatal("not private")
		}
	}
}
