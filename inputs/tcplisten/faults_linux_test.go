package tcplisten

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/inet"
)

// at returns the points tcp_listen of one port.
func at(b metric.Batch, port int) (points []metric.Point) {
	for _, p := range b.Points {
		if p.Name == pointListener && p.Tag("port") == strconv.Itoa(port) {
			points = append(points, p)
		}
	}
	return points
}

// one returns the only point of a port.
func one(t *testing.T, b metric.Batch, port int) metric.Point {
	t.Helper()
	points := at(b, port)
	if len(points) != 1 {
		t.Fatalf("%d points of port %d", len(points), port)
	}
	return points[0]
}

// finish does the rest of a gather whose listing has been done.
func finish(t *testing.T, in *input, now time.Time) metric.Batch {
	t.Helper()
	if _, err := in.findOwners(t.Context(), t.Context(), now); err != nil {
		t.Fatal(err)
	}
	in.describe(t.Context(), now)
	in.arrange()
	b := metric.Batch{Time: now, Points: in.points(t.Context(), now, false)}
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	return b
}

// listed returns an input that has listed the sockets and not looked for owners.
func listed(t *testing.T, now time.Time) *input {
	t.Helper()
	in := open(t, Defaults()).(*input)
	if err := in.open(); err != nil {
		t.Fatal(err)
	}
	if err := in.list(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	return in
}

// TestP1 keeps a socket whose process exits in mid-scan.
func TestP1ExitInMidScan(t *testing.T) {
	child, ports := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	now := time.Now()
	in := listed(t, now)
	end(child)
	p := one(t, finish(t, in, now), ports[0])
	if p.Tag("owner") != "exited" || p.Tag("process") != "" || field(t, p, "processes") != 0 || field(t, p, "sockets") != 1 {
		t.Errorf("%s %v", p.Series(), p.Fields)
	}
	if again := at(gather(t, in), ports[0]); len(again) != 0 {
		t.Errorf("at the next gather it is still there: %v", again)
	}
}

// TestP9 is right at the next gather when a listener is closed and opened again
// between the dump and the search.
func TestP9ReopenedInMidScan(t *testing.T) {
	first, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := first.Addr().(*net.TCPAddr).Port
	now := time.Now()
	in := listed(t, now)
	first.Close()
	second, err := net.Listen("tcp4", first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if p := one(t, finish(t, in, now), port); p.Tag("owner") != "exited" {
		t.Errorf("in the same gather: %s", p.Series())
	}
	p := one(t, gather(t, in), port)
	if p.Tag("owner") != "resolved" || field(t, p, "pid") != os.Getpid() {
		t.Errorf("at the next gather: %s %v", p.Series(), p.Fields)
	}
}

// TestGoneWhileOthersAreSearched does not show a known listener that closes while
// the owner of a new one is searched.
func TestGoneWhileOthersAreSearched(t *testing.T) {
	child, known := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	in := open(t, Defaults()).(*input)
	gather(t, in)
	_, added := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	now := time.Now()
	if err := in.list(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	end(child)
	b := finish(t, in, now)
	if points := at(b, known[0]); len(points) != 0 {
		t.Errorf("the one that closed: %v", points)
	}
	if p := one(t, b, added[0]); p.Tag("owner") != "resolved" {
		t.Errorf("the new one: %s", p.Series())
	}
}

// gatherAs gathers in a child, which the test program becomes.
func gatherAs(t *testing.T, job task, attr *syscall.SysProcAttr) found {
	t.Helper()
	var f found
	cmd, err := spawn(&job, nil, attr, &f)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if f.Error != "" {
		t.Fatal(f.Error)
	}
	return f
}

const nobody = 65534

// TestP3 shows every socket with its user, and says once what is missing, where
// the program has no capability; what it may read it resolves all the same.
func TestP3NoCapability(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	_, roots := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	ports := startAs(t, nobody, task{Name: []byte("readable"), Listen: []listenTask{{Addr: "127.0.0.1"}}})
	options := Defaults()
	f := gatherAs(t, task{Gather: &options}, as(nobody))
	for _, want := range []string{
		fmt.Sprintf(`tcp_listen{address="127.0.0.1",exposure="loopback",family="ipv4",owner="unreadable",port="%d",user="root"} sockets=1`, roots[0]),
		fmt.Sprintf(`tcp_listen{address="127.0.0.1",exposure="loopback",family="ipv4",owner="resolved",port="%d",process="readable",user="nobody"} sockets=1`, ports[0]),
	} {
		if !slices.Contains(f.Points, want) {
			t.Errorf("%s is not among\n%s", want, strings.Join(f.Points, "\n"))
		}
	}
	if n := strings.Count(f.Log, "\n"); n != 1 || !strings.Contains(f.Log, "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH") {
		t.Errorf("%d lines are logged:\n%s", n, f.Log)
	}
}

// TestP3SaidOnce does not say again after a reload what it has said.
func TestP3SaidOnce(t *testing.T) {
	old, log := openLogging(t, Defaults(), plugin.Env{Name: pointListener})
	gather(t, old)
	old.(*input).told.capabilities = true
	before := log.Len()
	next := open(t, Defaults()).(*input)
	next.InheritFrom(old)
	if !next.told.capabilities || next.told.sightings || log.Len() != before {
		t.Errorf("%+v is told, logged: %s", next.told, log)
	}
}

// TestP3Hidden is the same where procfs hides what may not be read, and where all
// capabilities are those of a user namespace alone.
func TestP3Hidden(t *testing.T) {
	if elsewhere(t) {
		return
	}
	ip(t, "link set lo up")
	_, ports := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	options := Defaults()
	within := as(0)
	within.Cloneflags = unix.CLONE_NEWUSER
	within.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}
	within.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}
	for _, test := range []struct {
		name, mount string
		attr        *syscall.SysProcAttr
	}{
		{"user namespace", "", within},
		{"hidepid", "hidepid=2", as(nobody)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.mount != "" {
				if err := unix.Mount("proc", "/proc", "proc", 0, test.mount); err != nil {
					t.Skip(err)
				}
				defer unix.Unmount("/proc", unix.MNT_DETACH)
			}
			f := gatherAs(t, task{Gather: &options}, test.attr)
			if text := strings.Join(f.Points, "\n"); !strings.Contains(text, fmt.Sprintf(`owner="unreadable",port="%d"`, ports[0])) {
				t.Error(text)
			}
			if n := strings.Count(f.Log, "\n"); n != 1 || !strings.Contains(f.Log, "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH") {
				t.Errorf("%d lines are logged:\n%s", n, f.Log)
			}
		})
	}
}

// TestP3Cgroup knows the unit of a socket by its cgroup where its owner may not be
// read.
func TestP3Cgroup(t *testing.T) {
	tree, err := cgroup.OpenTree("/proc/self/mountinfo")
	if err != nil {
		t.Skip(err)
	}
	dir := filepath.Join(tree.Mount(), "sockwatch-test-p3.service")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { soon(t, "the cgroup is empty", func() bool { return os.Remove(dir) == nil }) })
	procs, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer procs.Close()
	in := &syscall.SysProcAttr{Setpgid: true, UseCgroupFD: true, CgroupFD: int(procs.Fd())}
	_, ports := startWith(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}}, in)
	options := Defaults()
	f := gatherAs(t, task{Gather: &options}, as(nobody))
	want := fmt.Sprintf(`owner="unreadable",port="%d",unit="sockwatch-test-p3.service",user="root"} sockets=1`, ports[0])
	if !strings.Contains(strings.Join(f.Points, "\n"), want) {
		t.Errorf("%s is not among\n%s", want, strings.Join(f.Points, "\n"))
	}
	// And with the owner known, by that one's cgroup.
	p := one(t, gather(t, open(t, options)), ports[0])
	if p.Tag("owner") != "resolved" || p.Tag("unit") != "sockwatch-test-p3.service" {
		t.Error(p.Series())
	}
}

// TestP4 resolves what it may although another process refuses.
func TestP4OneProcessRefused(t *testing.T) {
	if _, err := os.Readlink("/proc/1/fd/0"); !os.IsPermission(err) {
		t.Skipf("no process refuses: %v", err)
	}
	_, ports := start(t, task{Name: []byte("readable"), Listen: []listenTask{{Addr: "127.0.0.1"}}})
	in, log := openLogging(t, Defaults(), plugin.Env{Name: pointListener})
	p := one(t, gather(t, in), ports[0])
	if p.Tag("owner") != "resolved" || p.Tag("process") != "readable" {
		t.Error(p.Series())
	}
	if os.Geteuid() == 0 && log.Len() > 0 {
		t.Errorf("root is told %s", log)
	}
}

// TestP6 names what is wrong where there is not a procfs.
func TestP6NoProc(t *testing.T) {
	options := Defaults()
	options.Proc = t.TempDir()
	_, err := open(t, options).Gather(t.Context())
	want := fmt.Sprintf("proc %q: %s is not a procfs: open stat: no such file or directory", options.Proc, options.Proc)
	if err == nil || err.Error() != want {
		t.Errorf("%v, expected %s", err, want)
	}
}

// TestP7 gives the same result without netlink, and says so once.
func TestP7NoNetlink(t *testing.T) {
	own, done := isolated(t)
	if done {
		return
	}
	if own {
		ip(t, "link set lo up")
		ip(t, "address add 10.9.8.7/32 dev lo")
	}
	_, ports := start(t, task{Workers: 1, Listen: []listenTask{{Addr: "127.0.0.1"}, {Addr: "0.0.0.0"}, {Addr: "::1"}, {Addr: "::"}}})
	ours := func(f found) (points []string) {
		for _, p := range f.Points {
			if slices.ContainsFunc(ports, func(port int) bool { return strings.Contains(p, fmt.Sprintf(`port="%d"`, port)) }) {
				points = append(points, p)
			}
		}
		return points
	}
	options := Defaults()
	with := gatherAs(t, task{Gather: &options}, nil)
	without := gatherAs(t, task{Gather: &options, NoNetlink: true}, nil)
	if diff := cmp.Diff(ours(with), ours(without)); diff != "" || len(ours(with)) != 4 {
		t.Errorf("%d points (-netlink +procfs):\n%s", len(ours(with)), diff)
	}
	if n := strings.Count(without.Log, "netlink is refused"); n != 1 {
		t.Errorf("said %d times:\n%s", n, without.Log)
	}
	options.Backend = backendNetlink
	var f found
	if cmd, err := spawn(&task{Gather: &options, NoNetlink: true}, nil, nil, &f); err != nil {
		t.Error(err)
	} else {
		cmd.Wait()
	}
	if want := "open a sock_diag socket: socket: operation not permitted"; f.Error != want {
		t.Errorf("backend = netlink: %q, expected %q", f.Error, want)
	}
}

// TestP7Errors falls back for what the kernel says where sock_diag is missing, and
// not for what may pass.
func TestP7Errors(t *testing.T) {
	for errno, want := range map[syscall.Errno]bool{
		syscall.ENOENT: true, syscall.EPERM: true, syscall.EPROTONOSUPPORT: true, syscall.EAFNOSUPPORT: true,
		syscall.ENOBUFS: false, syscall.ENOMEM: false, syscall.EMFILE: false, syscall.ETIMEDOUT: false,
	} {
		if got := refused(fmt.Errorf("dump sockets: %w", errno)); got != want {
			t.Errorf("%v: %v", errno, got)
		}
	}
}

// TestInodeReused takes a socket that has the inode of another one, where that is
// all that tells sockets apart, for another one.
func TestInodeReused(t *testing.T) {
	in := listed(t, time.Now())
	sp := newSpace()
	first := inet.Socket{Addr: netip.MustParseAddr("127.0.0.1"), Port: 80, Cookie: 1, Inode: 1}
	second := first
	second.Port = 81
	in.sight(sp, &first)
	sp.stamp++
	in.sight(sp, &second)
	in.drop(func(l *listener) bool { return l.space == sp && l.unseen() })
	var got []uint16
	for _, l := range in.listeners {
		if l.space == sp {
			got = append(got, l.socket.Port)
		}
	}
	if !slices.Equal(got, []uint16{81}) || sp.listeners[1].socket.Port != 81 {
		t.Errorf("listeners of ports %v", got)
	}
}

// gatherCut gathers without any time for the search for owners.
func gatherCut(t *testing.T, in *input, now time.Time) metric.Batch {
	t.Helper()
	search, cancel := context.WithCancel(t.Context())
	cancel()
	b, err := in.gatherWhile(t.Context(), search, now)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestP13 says that the search was cut by the deadline, names new listeners
// pending, and resolves them when there is time. TestH10 is the same.
func TestP13H10Deadline(t *testing.T) {
	_, ports := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	in := open(t, Defaults()).(*input)
	b := gatherCut(t, in, time.Now())
	if !strings.HasPrefix(b.Partial, "owners: cut by the deadline after 0 of ") {
		t.Errorf("partial %q", b.Partial)
	}
	if p := one(t, b, ports[0]); p.Tag("owner") != "pending" {
		t.Error(p.Series())
	}
	b = gather(t, in)
	p := one(t, b, ports[0])
	if p.Tag("owner") != "resolved" || b.Partial != "" {
		t.Errorf("%s, partial %q", p.Series(), b.Partial)
	}
	if _, ok := p.Field("first_seen_time_seconds"); ok {
		t.Error("that it was pending makes it new")
	}
}

// TestInTime ends the search so early that the rest of the gather can be done.
func TestInTime(t *testing.T) {
	now := time.Now()
	for _, test := range []struct{ timeout, search time.Duration }{
		{10 * time.Second, 8750 * time.Millisecond}, {100 * time.Millisecond, 80 * time.Millisecond}, {time.Minute, 58 * time.Second},
	} {
		ctx, cancel := context.WithDeadline(t.Context(), now.Add(test.timeout))
		search, cancelSearch := inTime(ctx, now)
		if deadline, ok := search.Deadline(); !ok || deadline.Sub(now) != test.search {
			t.Errorf("of %v the search has %v", test.timeout, deadline.Sub(now))
		}
		cancelSearch()
		cancel()
	}
	if search, _ := inTime(t.Context(), now); search != t.Context() {
		t.Error("a deadline out of nothing")
	}
}

// TestP15 tells apart what listens at one port.
func TestP15OnePort(t *testing.T) {
	if elsewhere(t) {
		return
	}
	ip(t, "link set lo up")
	ip(t, "link add hw0 type veth peer name hw1")
	ip(t, "link set hw0 up")
	ip(t, "address add fe80::7/64 dev hw0 nodad")
	listen := []listenTask{
		{Addr: "127.0.0.1"}, {Addr: "0.0.0.0"}, {Addr: "::", V6Only: true}, {Addr: "::1"}, {Addr: "fe80::7%hw0"},
		{Addr: "0.0.0.0", Device: "lo"}, {Addr: "::ffff:127.0.0.2"},
	}
	for i := range listen {
		listen[i].Port, listen[i].ReusePort = 4000, true
	}
	start(t, task{Listen: listen})
	var got []string
	for _, p := range at(gather(t, open(t, Defaults())), 4000) {
		got = append(got, p.Tag("address")+" "+p.Tag("family")+" "+p.Tag("exposure"))
	}
	slices.Sort(got)
	want := []string{
		"0.0.0.0 ipv4 loopback", "0.0.0.0%lo ipv4 loopback", "127.0.0.1 ipv4 loopback", ":: ipv6 link_local", "::1 ipv6 loopback",
		"::ffff:127.0.0.2 ipv4 loopback", "fe80::7%hw0 ipv6 link_local",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestH12 does not follow a link that is planted where the state is written.
func TestH12PlantedLink(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "tcp_listen.first_seen.json")
	for _, path := range []string{state, state + ".new"} {
		if err := os.Symlink(victim, path); err != nil {
			t.Fatal(err)
		}
	}
	in, log := openLogging(t, Defaults(), plugin.Env{Name: pointListener, StateDir: dir})
	gather(t, in)
	start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	gather(t, in)
	closeInput(t, in) // the state is written by now
	if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
		t.Errorf("the link was followed: %q, %v", text, err)
	}
	info, err := os.Lstat(state)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 {
		t.Errorf("the state is %v, %v", info.Mode(), err)
	}
	if !strings.Contains(log.String(), "too many levels of symbolic links") {
		t.Errorf("the link is not mentioned: %s", log)
	}
}
