package tcplisten

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/soak"
	"sockwatch/inputs/internal/bpf"
	"sockwatch/inputs/internal/owner"
	"sockwatch/inputs/internal/testchild"
)

// An eventInput is an input that gathers when the kernel reports a change, as the agent
// would.
type eventInput struct {
	t       *testing.T
	in      *input
	log     *logBuffer
	changed chan struct{}
	stop    func() // ends its Watch
	gathers int
	events  []metric.Point
}

// eventsNow returns options without intervals, so that only listen events start gathers and
// closed listeners are reported soon.
func eventsNow() Options {
	o := Defaults()
	o.Settle = plugin.Duration(50 * time.Millisecond)
	o.SettleBoot, o.Remember = o.Settle, o.Settle
	return o
}

// startWithEvents starts an input, in a network and pid namespace of its own, that receives what the
// kernel reports. It returns nil in the process that only waits for the one in the namespaces.
func startWithEvents(t *testing.T, options Options) *eventInput {
	t.Helper()
	if elsewhere(t, unix.CLONE_NEWPID) {
		return nil
	}
	ip(t, "link set lo up")
	in, log := openLogging(t, options, plugin.Env{Name: pointListener})
	a := &eventInput{t: t, in: in.(*input), log: log, changed: make(chan struct{}, 1)}
	gather(t, in)
	if events, err := openChanges("/proc"); err != nil {
		t.Skip(err)
	} else if err := events.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		a.in.Watch(ctx, func() {
			select {
			case a.changed <- struct{}{}:
			default:
			}
		})
	})
	a.stop = func() { stop(); watching.Wait() }
	t.Cleanup(a.stop)
	soon(t, "listen events are on", a.in.listenEvents.on.Load)
	return a
}

// gather gathers and keeps the events.
func (a *eventInput) gather() metric.Batch {
	a.t.Helper()
	a.gathers++
	b := gather(a.t, a.in)
	a.events = append(a.events, b.Events...)
	return b
}

// until gathers at each change, and now and then without one, until done reports true.
func (a *eventInput) until(what string, done func(metric.Batch) bool) {
	a.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		select {
		case <-a.changed:
		case <-time.After(100 * time.Millisecond):
		}
		if done(a.gather()) {
			return
		}
	}
	a.t.Fatalf("waited in vain: %s; the last of %d events: %v", what, len(a.events), a.events[max(0, len(a.events)-10):])
}

// reported waits until the kernel has reported since the last gather that so many sockets began to listen,
// and ceased to.
func (a *eventInput) reported(opened, closed int) {
	a.t.Helper()
	soon(a.t, "listen events are on", func() bool {
		a.in.listenEvents.mu.Lock()
		defer a.in.listenEvents.mu.Unlock()
		return len(a.in.listenEvents.opened) >= opened && len(a.in.listenEvents.closed) >= closed
	})
}

// of returns the events of a port.
func (a *eventInput) of(port int) (events []metric.Point) {
	for _, e := range a.events {
		ours := e.Tag("netns") == "" || e.Tag("netns") == "other" // those of other tests have no name
		if e.Tag("port") == strconv.Itoa(port) && ours {
			events = append(events, e)
		}
	}
	return events
}

func (a *eventInput) has(port int, kind string) bool {
	for _, e := range a.of(port) {
		if e.Tag("event") == kind {
			return true
		}
	}
	return false
}

// exactly checks the only event of a kind on a port: its time lies between two others, and it
// has fields.
func (a *eventInput) exactly(port int, kind string, after, before time.Time, fields map[string]string) {
	a.t.Helper()
	found := 0
	for _, e := range a.of(port) {
		if e.Tag("event") != kind {
			continue
		}
		found++
		// The wall clock is read apart from the clock of the kernel's times. A gather that looks
		// at a file while it is closed keeps it open for a moment.
		if e.Time.Before(after.Add(-time.Millisecond)) || e.Time.After(before.Add(100*time.Millisecond)) {
			a.t.Errorf("port %d %s at %v, want a time between %v and %v", port, kind, e.Time, after, before)
		}
		for key, want := range fields {
			if got := fieldText(e, key); got != want {
				a.t.Errorf("port %d %s: %s=%q, want %q", port, kind, key, got, want)
			}
		}
	}
	if found != 1 {
		a.t.Errorf("port %d: %d events %s, want 1: %v", port, found, kind, a.of(port))
	}
}

// TestListenerIsReportedAtOnce shows a listener at once, with its owner and exact times.
func TestListenerIsReportedAtOnce(t *testing.T) {
	a := startWithEvents(t, eventsNow())
	if a == nil {
		return
	}
	before := time.Now()
	cmd, _ := start(t, task{Name: []byte("web"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 4000}}})
	opened := time.Now()
	select {
	case <-a.changed:
	case <-time.After(30 * time.Second):
		t.Fatal("no gather was asked for")
	}
	if p := one(t, a.gather(), 4000); p.Tag("process") != "web" || p.Tag("owner") != "resolved" {
		t.Error(p.Series())
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	a.exactly(4000, "opened", before, opened, map[string]string{"window_seconds": "0", "listen_pid": pid, "pid": pid, "exe": exeOf(t, cmd.Process.Pid)})
	before = time.Now()
	end(cmd)
	closed := time.Now()
	a.until("the listener is closed", func(metric.Batch) bool { return a.has(4000, "closed") })
	a.exactly(4000, "closed", before, closed, map[string]string{"window_seconds": "0", "listen_pid": pid, "pid": pid})
}

// TestBriefListenerIsReported reports a listener that lives for 5 ms, with everything about
// its process, also in another network namespace.
func TestBriefListenerIsReported(t *testing.T) {
	options := eventsNow()
	options.Namespaces = true
	a := startWithEvents(t, options)
	if a == nil {
		return
	}
	ip(t, "netns add other")
	mounted, err := os.Open("/run/netns/other")
	if err != nil {
		t.Fatal(err)
	}
	defer mounted.Close()
	a.gather() // it finds the namespace
	for i, netns := range []*os.File{nil, mounted} {
		before := time.Now()
		child := startInNamespace(t, netns, task{Name: []byte("brief"), Brief: 5 * time.Millisecond, Listen: []listenTask{{Addr: "0.0.0.0", Port: 4000 + i}}})
		if err := child.Hear(new([]int)); err != nil {
			t.Fatal(err)
		}
		after := time.Now()
		a.until("the listener has closed", func(metric.Batch) bool { return a.has(4000+i, "closed") })
		pid := strconv.Itoa(child.Process.Pid)
		fields := map[string]string{
			"window_seconds": "0", "listen_pid": pid, "pid": pid, "exe": exeOf(t, child.Process.Pid), "parent_pid": strconv.Itoa(os.Getpid()),
		}
		a.exactly(4000+i, "opened", before, after, fields)
		a.exactly(4000+i, "closed", before.Add(5*time.Millisecond), after, fields)
		if e := a.of(4000 + i)[0]; e.Tag("process") != "brief" || (e.Tag("netns") == "other") != (netns != nil) {
			t.Errorf("tags %v", e.Tags)
		}
	}
}

// TestListenerOfABriefNamespaceIsReported reports a listener whose namespace begins and ends
// between two gathers: one that was never seen by its number, one that was known by its name.
func TestListenerOfABriefNamespaceIsReported(t *testing.T) {
	if testing.Short() {
		t.Skip("as TestBriefListenerIsReported, in namespaces that end")
	}
	options := eventsNow()
	options.Namespaces = true
	a := startWithEvents(t, options)
	if a == nil {
		return
	}
	ip(t, "netns add named")
	named, err := os.Open("/run/netns/named")
	if err != nil {
		t.Fatal(err)
	}
	a.gather() // it finds the namespace
	// Each child closes its listener, answers, and ends: with it ends its namespace.
	brief := task{Name: []byte("brief"), Brief: 5 * time.Millisecond, Listen: []listenTask{{Addr: "0.0.0.0", Port: 4000}}}
	unseen, err := testchild.Start(&brief, nil, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
	if err != nil {
		t.Fatal(err)
	}
	brief.Listen[0].Port = 4001
	known := startInNamespace(t, named, brief)
	number := make(map[int]string)
	for port, child := range map[int]*testchild.Child{4000: unseen, 4001: known} {
		if err := child.Hear(new([]int)); err != nil {
			t.Fatal(err)
		}
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", child.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		number[port] = strings.TrimSuffix(strings.TrimPrefix(link, "net:["), "]")
	}
	a.reported(2, 2)
	soon(t, "the processes are read", func() bool {
		a.in.listenEvents.mu.Lock()
		defer a.in.listenEvents.mu.Unlock()
		return !slices.ContainsFunc(a.in.listenEvents.opened, func(o *listenEvent) bool { return o.inspection() == nil })
	})
	unseen.End()
	known.End()
	named.Close()
	ip(t, "netns delete named")
	a.until("the listeners have closed", func(metric.Batch) bool {
		closed := 0
		for _, e := range a.events {
			if e.Tag("event") == "closed" {
				closed++
			}
		}
		return closed == 2
	})
	for _, want := range []struct {
		port  string
		netns string
		pid   int
	}{
		{port: "4000", netns: number[4000], pid: unseen.Process.Pid},
		{port: "4001", netns: "named", pid: known.Process.Pid},
	} {
		var kinds []string
		for _, e := range a.events {
			if e.Tag("port") != want.port {
				continue
			}
			kinds = append(kinds, e.Tag("event"))
			got := []string{e.Tag("netns"), e.Tag("process"), fieldText(e, "listen_pid"), fieldText(e, "parent_pid"), fieldText(e, "window_seconds")}
			if diff := cmp.Diff([]string{want.netns, "brief", strconv.Itoa(want.pid), strconv.Itoa(os.Getpid()), "0"}, got); diff != "" {
				t.Errorf("port %s, %s (-want +got):\n%s", want.port, e.Tag("event"), diff)
			}
		}
		if diff := cmp.Diff([]string{"opened", "closed"}, kinds); diff != "" {
			t.Errorf("port %s (-want +got):\n%s", want.port, diff)
		}
	}
}

// TestFailedListenIsNotReported tells nothing of a socket that wanted an address which another
// one had, although the kernel calls it a listener for a moment.
func TestFailedListenIsNotReported(t *testing.T) {
	if testing.Short() {
		t.Skip("as TestListenerIsReportedAtOnce, with a failed listen")
	}
	a := startWithEvents(t, eventsNow())
	if a == nil {
		return
	}
	var fds [2]int
	for i := range fds {
		fds[i] = bound(t, 4000)
	}
	if err := unix.Listen(fds[0], 1); err != nil {
		t.Fatal(err)
	}
	a.until("the first one has opened", func(metric.Batch) bool { return a.has(4000, "opened") })
	if err := unix.Listen(fds[1], 1); err != unix.EADDRINUSE {
		t.Fatal(err)
	}
	_, ports := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	a.until("the next one has opened", func(metric.Batch) bool { return a.has(ports[0], "opened") })
	for range 3 { // what was kept is looked at again
		a.gather()
	}
	if events := a.of(4000); len(events) != 1 {
		t.Errorf("events %v, want one", events)
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// bound returns a socket that does not listen yet. port 0: it is not bound, either.
func bound(t *testing.T, port int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if port == 0 {
		return fd
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestPortThatListenChoosesIsReported knows the port of a brief listener that was not bound.
func TestPortThatListenChoosesIsReported(t *testing.T) {
	if testing.Short() {
		t.Skip("as TestBriefListenerIsReported, without bind")
	}
	a := startWithEvents(t, eventsNow())
	if a == nil {
		return
	}
	fd := bound(t, 0)
	before := time.Now()
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	after := time.Now()
	port := name.(*unix.SockaddrInet4).Port
	a.until("it has closed", func(metric.Batch) bool { return a.has(port, "closed") })
	a.exactly(port, "opened", before, after, map[string]string{"window_seconds": "0", "pid": strconv.Itoa(os.Getpid())})
	a.exactly(port, "closed", before, after, map[string]string{"window_seconds": "0"})
}

// TestScannedListenerHasItsExactTime gives a listener that a scan has seen, and that has closed
// before the gather, its exact time and its owner.
func TestScannedListenerHasItsExactTime(t *testing.T) {
	if testing.Short() {
		t.Skip("as TestListenerIsReportedAtOnce, after a scan")
	}
	a := startWithEvents(t, eventsNow())
	if a == nil {
		return
	}
	before := time.Now()
	file := socket(t, "127.0.0.1", 4000)
	opened := time.Now()
	if !a.in.scan(t.Context(), readClocks()) {
		t.Error("the scan does not see it")
	}
	file.Close()
	closed := time.Now()
	a.reported(1, 1)
	a.until("it has closed", func(metric.Batch) bool { return a.has(4000, "closed") })
	a.exactly(4000, "opened", before, opened, map[string]string{"window_seconds": "0", "pid": strconv.Itoa(os.Getpid())})
	a.exactly(4000, "closed", opened, closed, map[string]string{"window_seconds": "0"})
}

// TestShutdownAndListenAgain does not keep the end of a socket that listens again.
func TestShutdownAndListenAgain(t *testing.T) {
	a := startWithEvents(t, eventsNow())
	if a == nil {
		return
	}
	fd := bound(t, 4000)
	for range 50 {
		if err := errors.Join(unix.Listen(fd, 1), unix.Shutdown(fd, unix.SHUT_RDWR)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	a.until("it is open", func(b metric.Batch) bool { return len(at(b, 4000)) == 1 })
	a.gather()
	a.in.listenEvents.mu.Lock()
	kept := len(a.in.listenEvents.closed)
	a.in.listenEvents.mu.Unlock()
	if kept > 0 {
		t.Errorf("%d ends are kept", kept)
	}
	before := time.Now()
	unix.Close(fd)
	after := time.Now()
	a.until("it has closed", func(metric.Batch) bool { return a.has(4000, "closed") })
	a.exactly(4000, "closed", before, after, map[string]string{"window_seconds": "0"})
}

// TestListenEventBeforeTheListing keeps a listen event whose socket the kernel is about to
// list, and asks for the gather that finds it.
func TestListenEventBeforeTheListing(t *testing.T) {
	if testing.Short() {
		t.Skip("as TestListenerIsReportedAtOnce, before the listing")
	}
	a := startWithEvents(t, eventsNow())
	if a == nil {
		return
	}
	fd := bound(t, 4000)
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	<-a.changed
	a.reported(1, 0)
	opened, _ := a.in.listenEvents.take()
	a.in.applyListenEvents(opened, readClocks()) // as if it was not listed yet
	select {
	case <-a.changed:
	case <-time.After(30 * time.Second):
		t.Fatal("no gather was asked for")
	}
	one(t, a.gather(), 4000)
	if events := a.of(4000); len(events) != 1 || fieldText(events[0], "window_seconds") != "0" {
		t.Errorf("events %v", events)
	}
	unix.Close(fd)
}

// TestProgramThatClosedItsSocketIsReported does not take the program that a process becomes
// after a brief listener for the listener's.
func TestProgramThatClosedItsSocketIsReported(t *testing.T) {
	after := &owner.Inspection{Process: owner.Process{PID: 7, Start: 1, Comm: "sleep", Exe: "/bin/sleep"}, Lineage: owner.Lineage{ParentPID: 6}}
	o := &listenEvent{Change: bpf.Change{PID: 7, Comm: []byte("web")}, process: after, inspected: make(chan struct{})}
	close(o.inspected)
	l := &listener{listenEvent: o}
	l.closed()
	if p := l.owner.Named(); p.Comm != "web" || p.Exe != "" || p.PID != 7 {
		t.Errorf("process %+v, want web without a program", p)
	}
}

// TestUnseenProcessesListen reports a socket of a process outside of the pid namespace of
// sockwatch if it is in a network namespace that is listed.
func TestUnseenProcessesListen(t *testing.T) {
	for _, test := range []struct {
		change bpf.Change
		only   uint64
		want   bool
	}{
		{change: bpf.Change{Listens: true, Netns: 1}, only: 1, want: true},
		{change: bpf.Change{Listens: true, Netns: 2, PID: 7}, only: 1, want: false},
		{change: bpf.Change{Listens: true, Netns: 2, PID: 7}, only: 0, want: true},
		{change: bpf.Change{Listens: true, Netns: 2}, only: 0, want: false},
		{change: bpf.Change{Listens: false, Netns: 2}, only: 0, want: true},
	} {
		if got := mayBeListed(&test.change, test.only); got != test.want {
			t.Errorf("%+v, only %d: %v, want %v", test.change, test.only, got, test.want)
		}
	}
}

// TestListenEventsOutliveAReload reports what the kernel reported to the replaced input after its last
// gather.
func TestListenEventsOutliveAReload(t *testing.T) {
	if testing.Short() {
		t.Skip("opens the input twice, each with BPF programs")
	}
	a := startWithEvents(t, eventsNow())
	if a == nil {
		return
	}
	before := time.Now()
	socket(t, "127.0.0.1", 4000).Close()
	after := time.Now()
	a.reported(1, 1)
	a.stop()
	if err := a.in.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := newInput(eventsNow(), a.in.env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { next.(*input).Close() })
	next.(*input).InheritFrom(a.in)
	a.in = next.(*input)
	a.until("it has closed", func(metric.Batch) bool { return a.has(4000, "closed") })
	a.exactly(4000, "opened", before, after, map[string]string{"window_seconds": "0", "pid": strconv.Itoa(os.Getpid())})
	a.exactly(4000, "closed", before, after, map[string]string{"window_seconds": "0"})
}

// TestListenEventsOutliveAFailedGather reports what the kernel reported before a gather that has
// failed.
func TestListenEventsOutliveAFailedGather(t *testing.T) {
	a := startWithEvents(t, eventsNow())
	if a == nil {
		return
	}
	before := time.Now()
	socket(t, "127.0.0.1", 4000).Close()
	after := time.Now()
	a.reported(1, 1)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.in.Gather(canceled); err == nil {
		t.Fatal("the gather has not failed")
	}
	a.until("it has closed", func(metric.Batch) bool { return a.has(4000, "closed") })
	a.exactly(4000, "opened", before, after, map[string]string{"window_seconds": "0", "pid": strconv.Itoa(os.Getpid())})
	a.exactly(4000, "closed", before, after, map[string]string{"window_seconds": "0"})
}

// TestReturnedListenEventsAreBounded keeps those that happened first.
func TestReturnedListenEventsAreBounded(t *testing.T) {
	var a listenEvents
	first := make([]*listenEvent, maxListenEvents)
	for i := range first {
		first[i] = &listenEvent{}
	}
	a.add(&bpf.Change{Listens: true, Cookie: 1})
	a.putBack(first)
	if opened, dropped := a.take(); !slices.Equal(opened, first) || !dropped {
		t.Errorf("%d events, dropped %v, want the first %d, and that others were dropped", len(opened), dropped, len(first))
	}
}

// TestExactDownTimeOfARestart measures how long nobody listened, by the kernel's clock.
func TestExactDownTimeOfARestart(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	options := eventsNow()
	options.Settle = plugin.Duration(20 * time.Second)
	options.Remember = options.Settle
	a := startWithEvents(t, options)
	if a == nil {
		return
	}
	listen := task{Name: []byte("web"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 4000}}}
	cmd, _ := start(t, listen)
	a.until("it has opened", func(metric.Batch) bool { return a.has(4000, "opened") })
	before := time.Now()
	end(cmd)
	time.Sleep(300 * time.Millisecond)
	next, _ := start(t, listen)
	most := time.Since(before)
	a.until("it has restarted", func(metric.Batch) bool { return a.has(4000, "restarted") })
	e := a.of(4000)[1]
	down, err := strconv.ParseFloat(fieldText(e, "down_seconds"), 64)
	if err != nil || down < 0.3 || down > most.Seconds()+0.001 {
		t.Errorf("down for %v s, %v, want between 0.3 and %v", down, err, most.Seconds())
	}
	if got, want := fieldText(e, "listen_pid"), strconv.Itoa(next.Process.Pid); got != want {
		t.Errorf("listen_pid %s, want %s", got, want)
	}
}

// TestStormOfListeners lets programs open and close sockets as fast as they can. The gathers
// stay rare, the state afterwards is right, and what was lost is logged.
func TestStormOfListeners(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	a := startWithEvents(t, eventsNow())
	if a == nil {
		return
	}
	var storm sync.WaitGroup
	for i := range 2 {
		storm.Go(func() {
			for j := range 6 {
				child := startInNamespace(t, nil, task{Name: []byte("storm"), Brief: 1, Listen: []listenTask{{Addr: "127.0.0.1", Port: 5000 + 1000*i, Count: 1000}}})
				if err := child.Hear(new([]int)); err != nil {
					t.Error(j, err)
				}
				child.End()
			}
		})
	}
	began := time.Now()
	over := make(chan struct{})
	go func() { storm.Wait(); close(over) }()
	for running := true; running; {
		select {
		case <-a.changed:
			a.gather()
		case <-over:
			running = false
		}
	}
	if most := int(time.Since(began)/listenEventPause) + 2; a.gathers > most {
		t.Errorf("%d gathers in %v, want at most %d", a.gathers, time.Since(began), most)
	}
	_, ports := start(t, task{Name: []byte("after"), Listen: []listenTask{{Addr: "127.0.0.1"}}})
	a.until("the state is right", func(b metric.Batch) bool {
		if len(at(b, ports[0])) != 1 {
			return false
		}
		listeners := 0
		for _, p := range b.Points {
			if p.Name == pointListener && p.Tag("process") == "storm" {
				listeners++
			}
		}
		return listeners == 0
	})
}

var listenEventSeeds = soak.Times(2)

// TestRandomListenEvents runs programs that listen, fork, pass on their socket, become another
// program, close and die at random times, and compares the events with what the test itself
// did: no listener is missed, none is reported twice, and owner and times are right.
func TestRandomListenEvents(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	a := startWithEvents(t, eventsNow())
	if a == nil {
		return
	}
	port := 10_000
	for seed := range listenEventSeeds {
		var lives []*life
		var living sync.WaitGroup
		for i := range 12 {
			l := &life{port: port, random: rand.New(rand.NewPCG(uint64(seed), uint64(i)))}
			port++
			lives = append(lives, l)
			living.Go(func() { l.live(t) })
		}
		over := make(chan struct{})
		go func() { living.Wait(); close(over) }()
		for running := true; running; {
			select {
			case <-a.changed:
				a.gather()
			case <-over:
				running = false
			}
		}
		a.until("all have closed", func(metric.Batch) bool {
			for _, l := range lives {
				if !a.has(l.port, "closed") {
					return false
				}
			}
			return true
		})
		for _, l := range lives {
			before := t.Failed()
			a.exactly(l.port, "opened", l.opening, l.opened, map[string]string{"window_seconds": "0", "listen_pid": strconv.Itoa(l.pid)})
			if l.joined {
				// The first socket may close while the search for the owner of the second is
				// under way. Then the end of both is found by a scan.
				a.exactly(l.port, "closed", l.closing, l.closed.Add(10*time.Second), nil)
			} else {
				a.exactly(l.port, "closed", l.closing, l.closed, map[string]string{"window_seconds": "0"})
			}
			if first := a.of(l.port)[0]; first.Tag("process") != l.name && first.Tag("process") != l.next {
				t.Errorf("port %d was opened by %v, want %q or %q", l.port, first, l.name, l.next)
			}
			if t.Failed() && !before {
				t.Errorf("seed %d, the life of port %d: %s", seed, l.port, l.story)
			}
		}
		if t.Failed() {
			return
		}
		a.events = nil
	}
}

// A life is that of one listener, which has its own port, and when the test began and ended to
// open and to close it.
type life struct {
	port            int
	random          *rand.Rand
	name, next      string // of the program, and of the one that gets the socket
	pid             int    // that calls listen
	opening, opened time.Time
	closing, closed time.Time
	joined          bool // by another socket
	story           string
}

func (l *life) sleep() { time.Sleep(time.Duration(l.random.IntN(200)) * time.Millisecond) }

func (l *life) live(t *testing.T) {
	l.sleep()
	l.name = fmt.Sprintf("p%d", l.port)
	listen := []listenTask{{Addr: "127.0.0.1", Port: l.port}}
	begin := func(what string, job task) (finish func()) {
		l.story = what
		job.Name, job.Listen = []byte(l.name), listen
		l.opening = time.Now()
		child := startInNamespace(t, nil, job)
		if err := child.Hear(new([]int)); err != nil {
			t.Error(err)
		}
		l.opened, l.pid = time.Now(), child.Process.Pid
		return child.End
	}
	switch l.random.IntN(6) {
	case 0:
		finish := begin("closes after a while", task{})
		l.sleep()
		l.closing = time.Now()
		finish()
	case 1:
		finish := begin("closes at once", task{Brief: time.Duration(1+l.random.IntN(10)) * time.Millisecond})
		l.closing = l.opening
		defer finish()
	case 2:
		finish := begin("forks workers, and dies with them", task{Workers: 2})
		l.sleep()
		l.closing = time.Now()
		finish()
	case 3:
		l.story = "listens on a socket that another process has opened"
		fd := bound(t, l.port)
		file := os.NewFile(uintptr(fd), "socket")
		l.opening = time.Now()
		child, err := spawn(&task{Name: []byte(l.name), Worker: true, Begin: true}, []*os.File{file}, nil, new([]int))
		if err != nil {
			t.Error(err)
			return
		}
		l.opened, l.pid = time.Now(), child.Process.Pid
		file.Close()
		l.sleep()
		l.closing = time.Now()
		child.End()
	case 4:
		listen[0].ReusePort, l.joined = true, true
		finish := begin("is joined by another socket of its program, and leaves it", task{})
		l.sleep()
		second := startInNamespace(t, nil, task{Name: []byte(l.name), Listen: listen})
		if err := second.Hear(new([]int)); err != nil {
			t.Error(err)
		}
		l.sleep()
		finish()
		l.sleep()
		l.closing = time.Now()
		second.End()
	default:
		l.story = "passes its socket on, twice"
		l.name, l.next, l.pid = "exe", "sleep", os.Getpid()
		l.opening = time.Now()
		file := socket(t, "127.0.0.1", l.port)
		l.opened = time.Now()
		first := execute(t, "sleep", file)
		l.sleep()
		second := execute(t, "sleep", takeFrom(t, first.Process.Pid))
		l.sleep()
		end(first)
		l.sleep()
		l.closing = time.Now()
		end(second)
	}
	for row := fmt.Sprintf(":%04X 00000000:0000 0A ", l.port); ; time.Sleep(time.Millisecond) { // workers end a little later
		table, err := os.ReadFile("/proc/thread-self/net/tcp")
		if err != nil || !strings.Contains(string(table), row) {
			break
		}
	}
	l.closed = time.Now()
}
