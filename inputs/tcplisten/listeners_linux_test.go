package tcplisten

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/soak"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/netns"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestNeverPassesOver lists every one of many sockets on one address, although others on it
// come and go while the kernel lists them in pieces.
func TestNeverPassesOver(t *testing.T) {
	if testing.Short() {
		t.Skip("gathers while sockets come and go, for some seconds")
	}
	if elsewhere(t, 0) {
		return
	}
	ip(t, "link set lo up")
	// Without the second pass, most gathers would miss sockets. The time of a gather with procfs
	// grows with the square of the number of sockets.
	for backend, n := range map[string]int{backendNetlink: 1500, backendProcfs: 400} {
		t.Run(backend, func(t *testing.T) {
			listenAgain := listenTask{Addr: "127.0.0.1", Port: 8080, ReusePort: true}
			for range n {
				fd, _, err := listenAgain.Open()
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
			}
			ctx, stop := context.WithCancel(t.Context())
			var churn sync.WaitGroup
			defer churn.Wait()
			defer stop()
			churn.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					if i%200 == 0 {
						time.Sleep(100 * time.Microsecond) // let the gathers have the kernel's locks, too
					}
					if fd, _, err := listenAgain.Open(); err == nil {
						unix.Close(fd)
					}
				}
			})
			options := Defaults()
			options.Backend = backend
			in := open(t, options)
			least, short := int64(n), 0
			for range soak.Times(6) {
				got := int64(0)
				for _, p := range gather(t, in).Points {
					if sockets, _ := p.Field("sockets"); p.Tag("owner") == "resolved" {
						got += sockets.AsInt()
					}
				}
				if got < int64(n) {
					least, short = min(least, got), short+1
				}
			}
			if short > 0 {
				t.Errorf("%d gathers are short, one of them by %d", short, int64(n)-least)
			}
		})
	}
}

// TestAnotherSocketIsAnotherListener distinguishes sockets with the cookie, the inode, or the
// address of an earlier one. Without netlink the cookie is the inode number, which is reused,
// and before Linux 5.10 every namespace has its own cookies.
func TestAnotherSocketIsAnotherListener(t *testing.T) {
	first := inet.Socket{Addr: netip.MustParseAddr("127.0.0.1"), Port: 80, Cookie: 1, Inode: 2}
	tests := []struct {
		name   string
		change func(*inet.Socket)
		same   bool
	}{
		{name: "nothing", change: func(*inet.Socket) {}, same: true},
		{name: "queues", change: func(s *inet.Socket) { s.Backlog, s.Limit = 3, 4 }, same: true},
		{name: "port", change: func(s *inet.Socket) { s.Port = 81 }},
		{name: "address", change: func(s *inet.Socket) { s.Addr = netip.MustParseAddr("127.0.0.2") }},
		{name: "inode", change: func(s *inet.Socket) { s.Inode = 3 }},
		{name: "cookie", change: func(s *inet.Socket) { s.Cookie = 3 }},
	}
	in := listed(t, time.Now())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			elsewhere := &table{ns: new(netns.Namespace), byCookie: make(map[uint64]*listener)}
			see := func(s inet.Socket) *listener {
				elsewhere.generation++
				in.observe(elsewhere, &s)
				in.remove(func(l *listener) bool { return l.table == elsewhere && l.missing() })
				if len(elsewhere.byCookie) != 1 {
					t.Errorf("%d listeners, want 1", len(elsewhere.byCookie))
				}
				return elsewhere.byCookie[s.Cookie]
			}
			before := see(first)
			second := first
			tt.change(&second)
			after := see(second)
			if after == nil || after.socket != second || (after == before) != tt.same {
				t.Errorf("%+v after %+v: the same %v, want %v", second, first, after == before, tt.same)
			}
		})
	}
}

// TestNamespaceThatCannotBeListed keeps its listeners until it can be listed again.
func TestNamespaceThatCannotBeListed(t *testing.T) {
	if testing.Short() {
		t.Skip("as TestNamespaceThatCannotBeListedForAWhileIsABaseline")
	}
	if elsewhere(t, unix.CLONE_NEWPID) {
		return
	}
	ip(t, "link set lo up")
	ip(t, "netns add other")
	mounted, err := os.Open("/run/netns/other")
	if err != nil {
		t.Fatal(err)
	}
	defer mounted.Close()
	start(t, task{Listen: []listenTask{{Addr: "127.0.0.1", Port: 4000}}})
	startIn(t, mounted, task{Listen: []listenTask{{Addr: "127.0.0.1", Port: 4001}}})
	options := Defaults()
	options.Namespaces, options.Established = true, true
	in := open(t, options).(*input)
	gather(t, in)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	var other *table
	for _, table := range in.listeners.tables {
		if table.name == "other" {
			other = table
		}
	}
	if _, err := other.list(canceled, in.observe); err == nil {
		t.Error("listed though its time was over")
	}
	in.remove((*listener).missing)
	if n := len(in.listeners.all); n != 2 {
		t.Errorf("%d listeners, want 2", n)
	}
	b := gather(t, in)
	if len(at(b, 4000)) != 1 || len(at(b, 4001)) != 1 || b.Partial != "" {
		t.Errorf("%d points, partial %q", len(b.Points), b.Partial)
	}
}

// TestNamespaces finds the listeners of other network namespaces, both those of processes and
// those of mounts, with their exposure there.
func TestNamespaces(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes in several namespaces")
	}
	if elsewhere(t) {
		return
	}
	const name = "sockwatch-test"
	ip(t, "link set lo up")
	ip(t, "netns add "+name)
	ip(t, "-n "+name+" link set lo up")
	ip(t, "-n "+name+" address add 198.51.100.7/32 dev lo")
	mounted, err := os.Open("/run/netns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer mounted.Close()
	listen := []listenTask{{Addr: "0.0.0.0", Port: 4000}, {Addr: "127.0.0.1", Port: 4001}}
	start(t, task{Name: []byte("here"), Listen: listen})
	startIn(t, mounted, task{Name: []byte("mounted"), Listen: listen})
	unnamed, _ := startWith(t, task{Name: []byte("unnamed"), Listen: listen}, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Setpgid: true})
	inode, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", unnamed.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	inode = strings.Trim(inode, "net:[]")

	threads := namespaces(t)
	for _, backend := range []string{backendNetlink, backendProcfs} {
		t.Run(backend, func(t *testing.T) {
			options := Defaults()
			options.Namespaces, options.Backend = true, backend
			in := open(t, options).(*input)
			var got []string
			for range 3 {
				got = nil
				for _, p := range gather(t, in).Points {
					// Other programs on this machine may have namespaces, too.
					ours := slices.Contains([]string{"", inode, name}, p.Tag("netns"))
					if port := p.Tag("port"); ours && (port == "4000" || port == "4001") {
						got = append(got, fmt.Sprintf("%s %s:%s %s %s", p.Tag("netns"), p.Tag("address"), port, p.Tag("exposure"), p.Tag("process")))
					}
				}
			}
			want := []string{
				" 0.0.0.0:4000 loopback here", " 127.0.0.1:4001 loopback here",
				inode + " 0.0.0.0:4000  unnamed", inode + " 127.0.0.1:4001 loopback unnamed",
				name + " 0.0.0.0:4000 public mounted", name + " 127.0.0.1:4001 loopback mounted",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if backend == backendNetlink {
				if after := namespaces(t); len(after) != 1 || after[0] != threads[0] {
					t.Errorf("threads are left in namespaces %v, the program's is %v", after, threads)
				}
			}
		})
	}

	ip(t, "netns add "+name+"-empty")
	options := Defaults()
	options.Namespaces, options.Backend = true, backendProcfs
	without, log := openLogging(t, options, plugin.Env{Name: pointListener})
	for range 2 {
		if b := gather(t, without); b.Partial != "" {
			t.Errorf("partial %q, of what stays so", b.Partial)
		}
	}
	if n := strings.Count(log.String(), "cannot list a network namespace"); n != 1 {
		t.Errorf("that a namespace cannot be listed is logged %d times: %s", n, log)
	}

	options.Backend = backendAuto
	opened, log := openLogging(t, options, plugin.Env{Name: pointListener})
	in := opened.(*input)
	gather(t, in)
	end(unnamed) // before it is listed, but known from the previous gather
	var partial notes
	log.Reset() // errors from other namespaces of this machine
	if err := in.listAll(t.Context(), in.observe, &partial); err != nil || log.Len() > 0 || len(partial) > 0 {
		t.Errorf("a namespace ends meanwhile: %v, partial %q, logged: %s", err, partial, log)
	}
	for _, p := range gather(t, in).Points {
		if p.Tag("netns") == inode {
			t.Errorf("a namespace that is gone has %s", p.Series())
		}
	}
	gather(t, in)
	for _, table := range in.listeners.tables {
		if table.ns.Name() == inode {
			t.Error("a namespace that is gone is remembered")
		}
	}
	if points := gather(t, open(t, Defaults())).Points; slices.ContainsFunc(points, func(p metric.Point) bool { return p.Tag("netns") != "" }) {
		t.Error("other namespaces are shown though that is off")
	}
}

// TestChurnLeavesNothingBehind forgets listeners that come and go.
func TestChurnLeavesNothingBehind(t *testing.T) {
	if testing.Short() {
		t.Skip("opens 5,000 listeners")
	}
	in := open(t, Defaults()).(*input)
	gather(t, in)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var opened atomic.Int64
	var churn sync.WaitGroup
	churn.Go(func() {
		for ctx.Err() == nil {
			if l, err := net.Listen("tcp4", "127.0.0.1:0"); err == nil {
				opened.Add(1)
				l.Close()
			}
		}
	})
	gatherUntil := func(n int64) (heap uint64) {
		for opened.Load() < n {
			gather(t, in)
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := gatherUntil(1000)
	after := gatherUntil(5000)
	stop()
	churn.Wait()
	for range 3 {
		gather(t, in)
	}
	if after > before+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	n := 0
	for _, table := range in.listeners.tables {
		n += len(table.byCookie)
	}
	if n != len(in.listeners.all) || len(in.groups.byKey) != len(in.groups.sorted) {
		t.Errorf("%d listeners, %d in tables, %d groups, %d by key", len(in.listeners.all), n,
			len(in.groups.sorted), len(in.groups.byKey))
	}
}
