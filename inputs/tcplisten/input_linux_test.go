package tcplisten

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/schematest"
	"sockwatch/agent/plugin/plugintest/soak"
	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/changes"
	"sockwatch/inputs/internal/expect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// open returns an input that is closed when the test ends.
func open(t testing.TB, options Options) plugin.Input {
	in, _ := openLogging(t, options, plugin.Env{Name: pointListener, Hostname: "testhost"})
	return in
}

// openLogging returns an input that is closed when the test ends, and its log.
func openLogging(t testing.TB, options Options, env plugin.Env) (plugin.Input, *logBuffer) {
	t.Helper()
	if err := options.Validate(); err != nil {
		t.Fatal(err)
	}
	if testing.Short() && options.OwnerSource == ownerSourceAuto {
		options.OwnerSource = ownerSourceProcfs // loading BPF programs takes 50 ms of CPU
	}
	var log logBuffer
	env.Log = slog.New(slog.NewTextHandler(&log, nil))
	in, err := newInput(options, env)
	if err != nil {
		t.Fatal(err)
	}
	in.(*input).writeWait = 20 * time.Second // a busy machine delays no event
	t.Cleanup(func() { closeInput(t, in) })
	return in, &log
}

// A logBuffer collects a log. It has a lock because the history logs from its own goroutine.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logBuffer) Len() int { return len(l.String()) }

func (l *logBuffer) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Reset()
}

// closeInput closes an open input.
func closeInput(t testing.TB, in plugin.Input) {
	t.Helper()
	if err := in.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
}

// moment returns a time on all clocks.
func moment(now time.Time) changes.Moment {
	since := now.Sub(time.Unix(1_000_000_000, 0))
	return changes.Moment{Time: now, Mono: since, Uptime: since}
}

// gather gathers once, and checks the batch.
func gather(t testing.TB, in plugin.Input) metric.Batch {
	t.Helper()
	b, err := in.Gather(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	schematest.Batch(t, &b)
	return b
}

// gatherAs gathers in a child process, which is the test program again.
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

// gatherCut gathers without time for the search for owners.
func gatherCut(t *testing.T, in *input, now time.Time) metric.Batch {
	t.Helper()
	search, cancel := context.WithCancel(t.Context())
	cancel()
	b, err := in.gatherWithin(t.Context(), search, moment(now))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// finish performs the rest of a gather after the listing.
func finish(t *testing.T, in *input, now time.Time) metric.Batch {
	t.Helper()
	if err := in.findOwners(t.Context(), t.Context(), now, new(notes)); err != nil {
		t.Fatal(err)
	}
	b := in.finish(t.Context(), moment(now))
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	return b
}

// listed returns an input that has listed the sockets but not searched for owners.
func listed(t *testing.T, now time.Time) *input {
	t.Helper()
	in := open(t, Defaults()).(*input)
	if err := in.openReaders(); err != nil {
		t.Fatal(err)
	}
	if err := in.list(t.Context(), now, new(notes)); err != nil {
		t.Fatal(err)
	}
	return in
}

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

// field returns the value of a field that a point must have.
func field(t *testing.T, p metric.Point, key string) int {
	t.Helper()
	v, ok := p.Field(key)
	n, isNumber := v.Number()
	if !ok || !isNumber {
		t.Fatalf("%s has no number %s", p.Series(), key)
	}
	return int(n)
}

func fieldOf(b metric.Batch, port int, key string) (metric.Value, bool) {
	for _, p := range at(b, port) {
		return p.Field(key)
	}
	return metric.Value{}, false
}

func show(p metric.Point, key string) string {
	v, _ := p.Field(key)
	return v.String()
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const nobody = 65534

// TestProcessExitsDuringTheSearch keeps a socket whose process exits during the search.
func TestProcessExitsDuringTheSearch(t *testing.T) {
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

// TestListenerIsReopenedDuringTheSearch: if a listener is closed and reopened between the dump
// and the search, the next gather is correct.
func TestListenerIsReopenedDuringTheSearch(t *testing.T) {
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

// TestGoneWhileOthersAreSearched: a known listener that closes during the search for the
// owner of a new one is not reported.
func TestGoneWhileOthersAreSearched(t *testing.T) {
	child, known := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	in := open(t, Defaults()).(*input)
	gather(t, in)
	_, added := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	now := time.Now()
	if err := in.list(t.Context(), now, new(notes)); err != nil {
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

// TestWithoutCapabilities reports every socket with its user, warns once about the missing
// capabilities, and still resolves the owners that it may read.
func TestWithoutCapabilities(t *testing.T) {
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
	if n := strings.Count(f.Log, "level=WARN"); n != 1 || !strings.Contains(f.Log, "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH") {
		t.Errorf("%d warnings are logged:\n%s", n, f.Log)
	}
	if n := strings.Count(f.Log, "BPF is not in use"); n != 1 || !strings.Contains(f.Log, "CAP_BPF and CAP_PERFMON") {
		t.Errorf("BPF is named %d times, want once:\n%s", n, f.Log)
	}
	if len(f.Limits) != 1 || !strings.HasPrefix(f.Limits[0], "some owners are unknown: the capabilities CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH are both needed") {
		t.Errorf("limits %q", f.Limits)
	}
}

// TestWarningsAreLoggedOncePerRun: a reload does not repeat warnings.
func TestWarningsAreLoggedOncePerRun(t *testing.T) {
	old := open(t, Defaults()).(*input)
	gather(t, old)
	for kind := range limitationKinds {
		old.warned.logged[kind] = true
	}
	next, log := openLogging(t, Defaults(), plugin.Env{Name: pointListener})
	next.(*input).InheritFrom(old)
	if diff := cmp.Diff(old.warned, next.(*input).warned, cmp.AllowUnexported(warnings{})); diff != "" {
		t.Errorf("warned of (-want +got):\n%s", diff)
	}
	gather(t, next)
	if log.Len() > 0 {
		t.Errorf("logged: %s", log)
	}
}

// TestHiddenProcessesAreUnreadable: the result is the same if procfs hides unreadable
// processes, or if the capabilities are only those of a user namespace.
func TestHiddenProcessesAreUnreadable(t *testing.T) {
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
		limit       string
	}{
		{name: "user namespace", attr: within, limit: "sockwatch runs in a user namespace, where capabilities, even those of its root, do not apply"},
		{name: "hidepid", mount: "hidepid=2", attr: as(nobody), limit: "are both needed"},
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
			if n := strings.Count(f.Log, "level=WARN"); n != 1 || !strings.Contains(f.Log, "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH") {
				t.Errorf("%d warnings are logged:\n%s", n, f.Log)
			}
			if len(f.Limits) != 1 || !strings.Contains(f.Limits[0], test.limit) {
				t.Errorf("limits %q, want %q", f.Limits, test.limit)
			}
		})
	}
}

// makeCgroup creates a cgroup and its parents until the test ends, and returns the attributes
// that start a child in it.
func makeCgroup(t *testing.T, path string) *syscall.SysProcAttr {
	t.Helper()
	tree, err := cgroup.OpenTree("/proc/self/mountinfo")
	if err != nil {
		t.Skip(err)
	}
	dir := tree.Mount()
	for name := range strings.SplitSeq(path, "/") {
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			t.Skip(err)
		}
		made := dir
		t.Cleanup(func() { soon(t, made+" is empty", func() bool { return os.Remove(made) == nil }) })
	}
	procs, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { procs.Close() })
	return &syscall.SysProcAttr{Setpgid: true, UseCgroupFD: true, CgroupFD: int(procs.Fd())}
}

// The unit and the container come from the owner's cgroup, or from the socket's own if the
// owner may not be read.
func TestUnitsAndContainers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts several processes in cgroups")
	}
	const id = "abababababababababababababababababababababababababababababababab"
	tests := []struct{ name, path, want string }{
		{name: "a service", path: "system.slice/sockwatch-test.service", want: `unit="sockwatch-test.service"`},
		{name: "what a user calls sshd", path: "user.slice/user-1000.slice/user@1000.service/app.slice/sshd.service",
			want: `unit="user@1000.service",user="root",user_unit="sshd.service"`},
		{name: "podman of a service", path: "system.slice/sockwatch-test.service/libpod-payload-" + id,
			want: `unit="sockwatch-test.service"`},
		{name: "docker", path: "system.slice/docker-" + id + ".scope", want: `user="root"`},
		{name: "systemd in docker", path: "system.slice/docker-" + id + ".scope/system.slice/nginx.service", want: `unit="nginx.service"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, ports := startWith(t, task{Name: []byte("in-cgroup"), Listen: []listenTask{{Addr: "127.0.0.1"}}}, makeCgroup(t, tt.path))
			options := Defaults()
			known, _ := openLogging(t, options, plugin.Env{Name: pointListener})
			p := one(t, gather(t, known), ports[0])
			unreadable := gatherAs(t, task{Gather: &options}, as(nobody))
			for _, series := range append(unreadable.Points, p.Series()) {
				if !strings.Contains(series, fmt.Sprintf(`port="%d"`, ports[0])) {
					continue
				}
				_, rest, _ := strings.Cut(series, fmt.Sprintf(`port="%d",`, ports[0]))
				rest = strings.TrimPrefix(rest, `process="in-cgroup",`)
				if !strings.HasPrefix(rest, tt.want) {
					t.Errorf("%s, want %s", series, tt.want)
				}
				if container := strings.Contains(series, `container="abababababab"`); container != strings.Contains(tt.path, id) {
					t.Errorf("container %v: %s", container, series)
				}
			}
		})
	}
}

// A manager, whatever its pid, is no longer the owner when the service that it activates
// runs.
func TestActivatedServiceIsNamed(t *testing.T) {
	const user = "user.slice/user-1000.slice/user@1000.service/"
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	begin := func(name, path string) {
		c, err := spawn(&task{Name: []byte(name), Worker: true}, []*os.File{file}, makeCgroup(t, path), new([]int))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.End)
	}
	begin("systemd", user+"init.scope")
	in := open(t, Defaults())
	alone := one(t, gather(t, in), port)
	if alone.Tag("process") != "tcplisten.test" && alone.Tag("process") != "systemd" {
		t.Errorf("before the service is there: %s", alone.Series())
	}
	begin("service", user+"app.slice/web.service")
	file.Close()
	again := one(t, gather(t, open(t, Defaults())), port)
	if again.Tag("process") != "service" || again.Tag("user_unit") != "web.service" || field(t, again, "processes") != 2 {
		t.Errorf("%s %v", again.Series(), again.Fields)
	}
}

// TestOneProcessRefuses resolves the other owners if one process cannot be read.
func TestOneProcessRefuses(t *testing.T) {
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

// TestNoProcfs: if proc is not a procfs, the error says so.
func TestNoProcfs(t *testing.T) {
	options := Defaults()
	options.Proc = t.TempDir()
	_, err := open(t, options).Gather(t.Context())
	want := fmt.Sprintf("proc %q: %s is not a procfs: open stat: no such file or directory", options.Proc, options.Proc)
	if err == nil || err.Error() != want {
		t.Errorf("%v, expected %s", err, want)
	}
}

// TestWithoutNetlink gives the same result without netlink, and logs that once.
func TestWithoutNetlink(t *testing.T) {
	if testing.Short() {
		t.Skip("starts several processes")
	}
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
	const refused = "netlink is refused, reading /proc/net/tcp instead: no backlog limits, devices or cgroups ("
	if len(without.Limits) != 1 || !strings.HasPrefix(without.Limits[0], refused) || len(with.Limits) > 0 {
		t.Errorf("limits %q, with netlink %q", without.Limits, with.Limits)
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

// TestSearchIsCutByTheDeadline reports that the deadline stopped the search, marks new
// listeners as pending, and resolves them when there is time.
func TestSearchIsCutByTheDeadline(t *testing.T) {
	_, ports := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	in := open(t, Defaults()).(*input)
	b := gatherCut(t, in, time.Now())
	if !strings.HasPrefix(b.Partial, "owners: stopped by the deadline after 0 of ") {
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

// TestSearchEndsBeforeTheGather leaves time for the rest of the gather.
func TestSearchEndsBeforeTheGather(t *testing.T) {
	now := time.Now()
	for _, test := range []struct{ timeout, search time.Duration }{
		{10 * time.Second, 8750 * time.Millisecond}, {100 * time.Millisecond, 80 * time.Millisecond}, {time.Minute, 58 * time.Second},
	} {
		ctx, cancel := context.WithDeadline(t.Context(), now.Add(test.timeout))
		search, cancelSearch := searchContext(ctx, now)
		if deadline, ok := search.Deadline(); !ok || deadline.Sub(now) != test.search {
			t.Errorf("of %v the search has %v", test.timeout, deadline.Sub(now))
		}
		cancelSearch()
		cancel()
	}
	if search, _ := searchContext(t.Context(), now); search != t.Context() {
		t.Error("a deadline out of nothing")
	}
}

// TestHostProc finds the host's namespace by its /proc, mounted elsewhere.
func TestHostProc(t *testing.T) {
	if elsewhere(t) {
		return
	}
	dir := t.TempDir()
	if err := unix.Mount("/proc", dir, "", unix.MS_BIND, ""); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	start(t, task{Name: []byte("inside"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 4000}}})
	options := Defaults()
	options.Proc = dir
	in := open(t, options).(*input)
	b := gather(t, in)
	if len(at(b, 4000)) != 0 {
		t.Error("a listener of this test's own namespace is taken for one of the host")
	}
	options.Namespaces = true
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	own = strings.Trim(own, "net:[]")
	b = gather(t, open(t, options))
	found := slices.ContainsFunc(at(b, 4000), func(p metric.Point) bool {
		return p.Tag("netns") == own && p.Tag("process") == "inside"
	})
	if !found {
		t.Errorf("no listener of namespace %s", own)
	}
}

// TestHostProcOfOwnNamespace recognizes that the program is in the host's network namespace,
// without permission to read that of pid 1.
func TestHostProcOfOwnNamespace(t *testing.T) {
	if elsewhere(t, unix.CLONE_NEWPID) {
		return
	}
	ip(t, "link set lo up")
	dir := t.TempDir()
	for _, up := range []string{dir, filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
		os.Chmod(up, 0o755)
	}
	if err := unix.Mount("proc", dir, "proc", 0, ""); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	start(t, task{Listen: []listenTask{{Addr: "127.0.0.1", Port: 4000}}})
	options := Defaults()
	options.Proc, options.Namespaces = dir, true
	f := gatherAs(t, task{Gather: &options}, as(nobody))
	want := []string{`tcp_listen{address="127.0.0.1",exposure="loopback",family="ipv4",owner="unreadable",port="4000",user="root"} sockets=1`}
	if diff := cmp.Diff(want, f.Points); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := strings.Count(f.Log, "level=WARN"); n != 1 || !strings.Contains(f.Log, "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH") {
		t.Errorf("%d warnings are logged:\n%s", n, f.Log)
	}
}

// TestSteadyAllocations builds nothing again for listeners that have not changed.
func TestSteadyAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("gathers many times")
	}
	if elsewhere(t, unix.CLONE_NEWPID) { // other programs would open and close sockets
		return
	}
	ip(t, "link set lo up")
	start(t, task{Listen: []listenTask{{Addr: "127.0.0.7", Port: 20000, Count: 500}}})
	options := Defaults()
	options.OwnerVerify, options.OwnerRefresh = 1<<62, 1<<62
	in := open(t, options)
	for range 4 {
		gather(t, in)
	}
	n := testing.AllocsPerRun(20, func() {
		if _, err := in.Gather(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if n > 250 { // about 60, regardless of the number of listeners
		t.Errorf("%v allocations for 500 listeners that stay", n)
	}
}

// churn listens on one address after another, and is always named after the address while it
// listens.
func churn() {
	for i := 0; ; i++ {
		addr := fmt.Sprintf("127.0.%d.%d", i>>8&255, i&255)
		if err := os.WriteFile("/proc/self/comm", []byte(addr), 0); err != nil {
			fmt.Println("error:", err)
			return
		}
		if fd, _, err := (&listenTask{Addr: addr}).Open(); err == nil {
			time.Sleep(time.Duration(i%8) * 300 * time.Microsecond) // as long as a search takes
			unix.Close(fd)
		}
	}
}

// TestNeverAWrongOwner reports only the right owner, and logs nothing, while thousands of
// sockets per second come and go and their owner changes its name.
func TestNeverAWrongOwner(t *testing.T) {
	if testing.Short() {
		t.Skip("gathers many times")
	}
	if elsewhere(t, unix.CLONE_NEWPID) {
		return
	}
	ip(t, "link set lo up")
	for range 4 {
		start(t, task{Churn: true})
	}
	in, log := openLogging(t, Defaults(), plugin.Env{Name: pointListener})
	// A socket outlives its last descriptor for a moment, in which no process holds it. In a
	// pid namespace that cannot be proven.
	in.(*input).warned.logged[hiddenOwners] = true
	status := make(map[string]int)
	for range soak.Times(150) {
		for _, p := range gather(t, in).Points {
			status[p.Tag("owner")]++
			if process := p.Tag("process"); process != "" && process != p.Tag("address") {
				t.Errorf("%s", p.Series())
			}
		}
	}
	t.Log(status)
	if status["resolved"] == 0 || status["exited"] == 0 {
		t.Errorf("too little happened: %v", status)
	}
	if log.Len() > 0 {
		t.Errorf("logged: %s", log)
	}
}

// TestRenamedProcess notices within owner_verify that a process has renamed itself.
func TestRenamedProcess(t *testing.T) {
	child, ports := start(t, task{Name: []byte("before"), NewName: []byte("after"), Listen: []listenTask{{Addr: "127.0.0.1"}}})
	in := open(t, Defaults()).(*input)
	now := time.Now()
	again := func() string {
		t.Helper()
		b, err := in.gather(t.Context(), moment(now))
		if err != nil {
			t.Fatal(err)
		}
		p := one(t, b, ports[0])
		return p.Tag("process")
	}
	if name := again(); name != "before" {
		t.Fatalf("it is called %q", name)
	}
	child.Process.Signal(syscall.SIGUSR1)
	soon(t, "it has renamed itself", func() bool {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", child.Process.Pid))
		return string(text) == "after\n"
	})
	for range 6 {
		now = now.Add(10 * time.Second)
		again()
	}
	if name := again(); name != "after" {
		t.Errorf("after owner_verify it is still called %q", name)
	}
}

// TestFirstSeen: the field is absent for listeners of the first gather. It is unchanged by a
// restart of the service, and by a restart of the agent if that has a state directory.
func TestFirstSeen(t *testing.T) {
	job := task{Name: []byte("service"), Listen: []listenTask{{Addr: "127.0.0.1"}}}
	_, stood := start(t, job)
	env := plugin.Env{Name: "tcp_listen-x", StateDir: fastDir(t)}
	now := time.Unix(2_000_000_000, 0)
	in, log := openLogging(t, Defaults(), env)
	if got := firstSeen(t, in, stood[0], now); got != "absent" {
		t.Errorf("what stood before was first seen %s", got)
	}
	child, opened := start(t, job)
	now = now.Add(10 * time.Second)
	if got := firstSeen(t, in, opened[0], now); got != "2000000010" {
		t.Errorf("what opened was first seen %s", got)
	}
	if got := firstSeen(t, in, stood[0], now); got != "absent" {
		t.Errorf("what stood before was then first seen %s", got)
	}

	end(child)
	now = now.Add(10 * time.Second)
	if _, err := in.(*input).gather(context.Background(), moment(now)); err != nil {
		t.Fatal(err)
	}
	job.Listen[0].Port = opened[0]
	again, _ := start(t, job)
	now = now.Add(10 * time.Second)
	if got := firstSeen(t, in, opened[0], now); got != "2000000010" {
		t.Errorf("the restarted service was first seen %s", got)
	}
	closeInput(t, in)

	in, _ = openLogging(t, Defaults(), env)
	now = now.Add(time.Hour)
	if got := firstSeen(t, in, opened[0], now); got != "2000000010" {
		t.Errorf("after a restart of the agent it was first seen %s", got)
	}
	if got := firstSeen(t, in, stood[0], now); got != "absent" {
		t.Errorf("after a restart of the agent, what stood before: %s", got)
	}

	end(again)
	for range 2 {
		now = now.Add(time.Minute)
		if _, err := in.(*input).gather(context.Background(), moment(now)); err != nil {
			t.Fatal(err)
		}
	}
	start(t, job)
	now = now.Add(10 * time.Second)
	if got := firstSeen(t, in, opened[0], now); got != strconv.FormatInt(now.Unix(), 10) {
		t.Errorf("after it was away for long it was first seen %s", got)
	}
	if log.Len() > 0 && os.Geteuid() == 0 {
		t.Errorf("logged: %s", log)
	}
}

// firstSeen gathers and returns the field of the listener on a port, or "absent".
func firstSeen(t *testing.T, in plugin.Input, port int, now time.Time) string {
	t.Helper()
	b, err := in.(*input).gather(t.Context(), moment(now))
	if err != nil {
		t.Fatal(err)
	}
	p := one(t, b, port)
	if v, ok := p.Field("first_seen_time_seconds"); ok {
		return v.String()
	}
	return "absent"
}

// TestFirstSeenIsInherited: the field is unchanged by a reload that changes the input, without
// a state directory, even if the new input does not find the owners in time.
func TestFirstSeenIsInherited(t *testing.T) {
	if testing.Short() {
		t.Skip("as TestFirstSeenIsInheritedTwice, with more reloads")
	}
	job := task{Name: []byte("service"), Listen: []listenTask{{Addr: "127.0.0.1"}}}
	_, stood := start(t, job)
	var in plugin.Input = open(t, Defaults())
	now := time.Unix(2_000_000_000, 0)
	gatherLater := func() {
		t.Helper()
		now = now.Add(10 * time.Second)
		if _, err := in.(*input).gather(t.Context(), moment(now)); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(port int, want string) {
		t.Helper()
		if got := firstSeen(t, in, port, now); got != want {
			t.Errorf("first seen %s, expected %s", got, want)
		}
	}
	succeed := func(change func(*Options)) {
		t.Helper()
		o := in.(*input).options
		change(&o)
		closeInput(t, in)
		next := open(t, o)
		next.(plugin.Inheritor).InheritFrom(in)
		in = next
		now = now.Add(10 * time.Second)
	}
	gatherLater()
	service, opened := start(t, job)
	gatherLater()
	const first = "2000000020"
	expect(opened[0], first)
	end(service)
	job.Listen[0].Port = opened[0]
	start(t, job) // another socket with the same identity
	gatherLater()

	succeed(func(o *Options) { o.Cmdline = true })
	expect(opened[0], first)
	expect(stood[0], "absent")
	job.Listen[0].Port = 0
	_, fresh := start(t, job)
	succeed(func(o *Options) { o.MaxListeners++ })
	expect(fresh[0], strconv.FormatInt(now.Unix(), 10))

	// If the search is cut short, the owners are unknown, and so is the identity.
	succeed(func(o *Options) { o.OwnerVerify *= 2 })
	for range 3 {
		now = now.Add(10 * time.Second)
		b := gatherCut(t, in.(*input), now)
		if p := one(t, b, stood[0]); b.Partial == "" || p.Tag("owner") != "pending" {
			t.Errorf("partial %q, %s", b.Partial, p.Series())
		} else if since, ok := p.Field("first_seen_time_seconds"); ok {
			t.Errorf("while its owner is searched it was first seen %v", since)
		}
	}
	expect(stood[0], "absent")
	expect(opened[0], first)

	// It never saw these, so it is unknown whether they were open before.
	_, elsewhere := start(t, task{Listen: []listenTask{{Addr: "127.0.0.2"}}})
	succeed(func(o *Options) { o.Backend = backendProcfs })
	expect(elsewhere[0], "absent")
	expect(opened[0], first)
}

// ownName returns a name of a process that no other run of the tests on this host uses.
func ownName(name string) string { return fmt.Sprint(name, os.Getpid()) }

func TestViolationsEndWhenTheLastRuleIsRemoved(t *testing.T) {
	if testing.Short() {
		t.Skip("opens the input five times, each with BPF programs")
	}
	rules := Defaults()
	telnetd := ownName("telnetd")
	rules.Forbid = []expect.Forbid{{Name: "telnet", Criteria: expect.Criteria{Process: plugin.Strings{telnetd}}}}
	start(t, task{Name: []byte(telnetd), Listen: []listenTask{{Addr: "127.0.0.1"}}})
	in := open(t, rules)
	for i, tt := range []struct {
		name    string
		options Options
		want    string
	}{
		{name: "a rule", options: rules, want: "violated telnet"},
		{name: "the same rule", options: rules, want: ""},
		{name: "no rules", options: Defaults(), want: "cleared telnet"},
		{name: "still no rules", options: Defaults(), want: ""},
		{name: "the rule again", options: rules, want: "violated telnet"},
	} {
		if i > 0 {
			closeInput(t, in)
			next := open(t, tt.options)
			next.(plugin.Inheritor).InheritFrom(in)
			in = next
		}
		got := ""
		for _, e := range gather(t, in).Events {
			if e.Name == pointListener+"_rule_event" {
				got += e.Tag("event") + " " + e.Tag("name")
			}
		}
		if got != tt.want {
			t.Errorf("%s: events %q, expected %q", tt.name, got, tt.want)
		}
	}
}

func TestRuleThatDidNotDecideIsOnlyInWhy(t *testing.T) {
	rules := Defaults()
	rules.Unlisted = expect.UnlistedUnexpected
	rules.Allow = []expect.Allow{{Name: "web", Criteria: expect.Criteria{
		Address: plugin.Strings{"127.0.0.1"}, Process: plugin.Strings{"web"},
	}}}
	in := open(t, rules)
	gather(t, in)
	fake := ownName("fake")
	start(t, task{Name: []byte(fake), Listen: []listenTask{{Addr: "127.0.0.1"}}})
	var got []string
	for _, e := range gather(t, in).Events {
		if e.Tag("process") == fake {
			rule, _ := e.Field("rule")
			why, _ := e.Field("why")
			got = append(got, fmt.Sprintf("%s expected=%s rule=%q why=%q", e.Tag("event"), e.Tag("expected"), rule.AsString(), why.AsString()))
		}
	}
	want := []string{
		`opened expected=no rule="" why="process ` + fake + ` is not web of rule web"`,
		`violated expected= rule="" why="process ` + fake + ` is not web of rule web"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestRuleEventsAfterAStartHaveAWindow(t *testing.T) {
	rules := Defaults()
	telnetd := ownName("telnetd")
	rules.Forbid = []expect.Forbid{{Name: "telnet", Criteria: expect.Criteria{Process: plugin.Strings{telnetd}}}}
	env := plugin.Env{Name: pointListener, StateDir: fastDir(t)}
	now := moment(time.Unix(2_000_000_000, 0))
	in, _ := openLogging(t, rules, env)
	if _, err := in.(*input).gather(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	closeInput(t, in)
	start(t, task{Name: []byte(telnetd), Listen: []listenTask{{Addr: "127.0.0.1"}}})
	now.Time, now.Uptime = now.Time.Add(time.Hour), now.Uptime+time.Hour // the host was suspended
	in, _ = openLogging(t, rules, env)
	var got []string
	soon(t, "the event is written", func() bool { // on a busy disk it is in the next batch
		b, err := in.(*input).gather(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Events {
			if e.Name == pointListener+"_rule_event" {
				window, _ := e.Field("window_seconds")
				down, _ := e.Field("while_down")
				got = append(got, fmt.Sprintf("%s window_seconds=%v while_down=%v", e.Tag("event"), window, down))
			}
		}
		return len(got) > 0
	})
	if diff := cmp.Diff([]string{"violated window_seconds=3600 while_down=true"}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// TestFirstSeenIsInheritedTwice: the field is unchanged by several reloads without a gather in
// between.
func TestFirstSeenIsInheritedTwice(t *testing.T) {
	_, stood := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	now := time.Unix(2_000_000_000, 0)
	in := open(t, Defaults()).(*input)
	if got := firstSeen(t, in, stood[0], now); got != "absent" {
		t.Errorf("first seen %s", got)
	}
	for range 3 {
		next := open(t, Defaults()).(*input)
		closeInput(t, in)
		next.InheritFrom(in)
		in = next
	}
	p := one(t, gatherCut(t, in, now.Add(time.Minute)), stood[0])
	if since, ok := p.Field("first_seen_time_seconds"); ok {
		t.Errorf("it is new, first seen %v", since)
	}
}

// namesOf implements userNames with a function.
type namesOf func(uid uint32) string

func (n namesOf) Name(uid uint32) string                                  { return n(uid) }
func (n namesOf) Person(uint32) string                                    { return "" }
func (n namesOf) Update(context.Context, map[uint32]bool, time.Time) bool { return true }
func (n namesOf) Pending(uid uint32) bool                                 { return n(uid) == strconv.Itoa(int(uid)) }
func (n namesOf) Err() error                                              { return nil }
func (n namesOf) Close()                                                  {}

// TestFirstSeenWithoutUserNames: the field is unchanged even if the service that resolves user
// names is not running when the agent starts.
func TestFirstSeenWithoutUserNames(t *testing.T) {
	if testing.Short() {
		t.Skip("opens the input twice, each with BPF programs")
	}
	dir, up := t.TempDir(), true
	restart := func(in *input) *input {
		if in != nil {
			closeInput(t, in)
		}
		in = open(t, Defaults()).(*input)
		in.env.StateDir = dir
		if err := in.openReaders(); err != nil {
			t.Fatal(err)
		}
		in.open.users = namesOf(func(uid uint32) string {
			if !up {
				return strconv.Itoa(int(uid))
			}
			return "somebody"
		})
		return in
	}
	now := time.Unix(2_000_000_000, 0)
	in := restart(nil)
	if _, err := in.gather(t.Context(), moment(now)); err != nil {
		t.Fatal(err)
	}
	_, opened := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	for i := range 8 {
		now = now.Add(time.Minute)
		if got := firstSeen(t, in, opened[0], now); got != "2000000060" {
			t.Errorf("after %d minutes it was first seen %s", i, got)
		}
		if i == 0 {
			up = false
			in = restart(in)
		}
		up = i > 3
	}
}

// TestListenersComeBeforeTheProgramsOfBPF lists the listeners although there is no time to load
// programs, which takes seconds on a busy host. The next gather loads them.
func TestListenersComeBeforeTheProgramsOfBPF(t *testing.T) {
	if probe, err := openChanges("/proc"); err != nil {
		t.Skip(err)
	} else if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	_, ports := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	options := Defaults()
	options.OwnerSource = ownerSourceBPF
	in := open(t, options).(*input)
	now := time.Now()
	if p := one(t, gatherCut(t, in, now), ports[0]); p.Tag("owner") != "pending" || in.open.holders != nil {
		t.Errorf("%s, programs %v, want a pending owner, none", p.Series(), in.open.holders)
	}
	if p := one(t, gather(t, in), ports[0]); p.Tag("owner") != "resolved" || in.open.holders == nil {
		t.Errorf("then %s, programs %v, want a resolved owner, some", p.Series(), in.open.holders)
	}
}
