package changes

import (
	"testing"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/inet"
)

// An exactHost is a host whose kernel tells when sockets open and close.
type exactHost struct {
	t       *testing.T
	tracker *Tracker
	now     Moment
	sockets []Socket
	closed  map[uint64]time.Time
	cookies uint64
}

func newExactHost(t *testing.T) *exactHost {
	h := &exactHost{t: t, tracker: New(simOptions()), closed: make(map[uint64]time.Time)}
	h.now = Moment{Time: time.Unix(1_800_000_000, 0), Mono: time.Hour, Uptime: time.Hour, Boot: "b"}
	h.scan()
	return h
}

// socket returns a new socket that was opened some time ago.
func (h *exactHost) socket(port uint16, ago time.Duration, pid int) Socket {
	h.cookies++
	return Socket{
		Endpoint: Endpoint{Address: "0.0.0.0", Port: port}, ID: SocketID{1, h.cookies, h.cookies}, UID: 33, Status: Known,
		Holders: []Holder{{PID: pid, Start: uint64(pid), Key: Key{Process: "nginx", UID: 33}}},
		Opened:  h.now.Time.Add(-ago), ListenPID: pid,
	}
}

func (h *exactHost) pass(d time.Duration) {
	h.now.Time, h.now.Mono, h.now.Uptime = h.now.Time.Add(d), h.now.Mono+d, h.now.Uptime+d
}

func (h *exactHost) scan(shortLived ...ShortLived) []metric.Point {
	events := h.tracker.Observe(&Snapshot{
		Moment: h.now, Namespaces: []Namespace{{View: "netlink"}}, Sockets: h.sockets, ShortLived: shortLived, Closed: h.closed,
	}).Events
	h.closed = make(map[uint64]time.Time)
	return events
}

// wants checks the only event: its kind, how long ago it was, and fields.
func (h *exactHost) wants(events []metric.Point, kind string, at time.Time, fields ...string) {
	h.t.Helper()
	if len(events) != 1 || events[0].Tag("event") != kind {
		h.t.Fatalf("events %v, want %s", events, kind)
	}
	hasTime(h.t, &events[0], at)
	hasFields(h.t, &events[0], fields...)
}

func TestExactTimes(t *testing.T) {
	h := newExactHost(t)
	h.pass(10 * time.Second)
	s := h.socket(80, 7*time.Second, 5)
	h.sockets = []Socket{s}
	h.wants(h.scan(), opened, s.Opened, "window_seconds", "0", "listen_pid", "5")

	h.pass(10 * time.Second)
	h.sockets = nil
	gone := h.now.Time.Add(-3 * time.Second)
	h.closed[s.ID.Cookie] = gone
	h.scan()
	h.pass(time.Minute)
	h.wants(h.scan(), closed, gone, "window_seconds", "0", "listen_pid", "5", "age_seconds", "14")
}

// The kernel may tell that a socket has closed only after a scan without it.
func TestExactTimeIsReportedLate(t *testing.T) {
	h := newExactHost(t)
	h.pass(10 * time.Second)
	s := h.socket(80, 7*time.Second, 5)
	h.sockets = []Socket{s}
	h.scan()
	h.pass(10 * time.Second)
	h.sockets = nil
	gone := h.now.Time.Add(-3 * time.Second)
	h.scan()
	h.pass(10 * time.Second)
	h.closed[s.ID.Cookie] = gone
	h.scan()
	h.pass(time.Minute)
	h.wants(h.scan(), closed, gone, "window_seconds", "0")
}

func TestExactDownTime(t *testing.T) {
	h := newExactHost(t)
	h.pass(10 * time.Second)
	old := h.socket(80, time.Second, 5)
	h.sockets = []Socket{old}
	h.scan()
	h.pass(10 * time.Second)
	next := h.socket(80, 3*time.Second, 6)
	h.closed[old.ID.Cookie] = next.Opened.Add(-250 * time.Millisecond)
	h.sockets = []Socket{next}
	h.wants(h.scan(), restarted, next.Opened, "window_seconds", "0", "down_seconds", "0.25", "listen_pid", "6", "previous_pid", "5")
}

// The socket was missing for a whole scan.
func TestExactDownTimeOverSeveralScans(t *testing.T) {
	h := newExactHost(t)
	h.pass(10 * time.Second)
	old := h.socket(80, time.Second, 5)
	h.sockets = []Socket{old}
	h.scan()
	h.pass(10 * time.Second)
	h.closed[old.ID.Cookie] = h.now.Time.Add(-4 * time.Second)
	h.sockets = nil
	h.scan()
	h.pass(10 * time.Second)
	next := h.socket(80, 9*time.Second, 6)
	h.sockets = []Socket{next}
	h.wants(h.scan(), restarted, next.Opened, "window_seconds", "0", "down_seconds", "5")
}

// TestBriefListenerIsExact reports a listener that no scan has seen, with both of its times.
func TestBriefListenerIsExact(t *testing.T) {
	h := newExactHost(t)
	h.pass(10 * time.Second)
	s := h.socket(80, 7*time.Second, 5)
	h.closed[s.ID.Cookie] = s.Opened.Add(5 * time.Millisecond)
	h.wants(h.scan(ShortLived{Time: s.Opened, Socket: s}), opened, s.Opened, "window_seconds", "0", "pid", "5", "listen_pid", "5")
	h.pass(time.Minute)
	h.wants(h.scan(), closed, s.Opened.Add(5*time.Millisecond), "window_seconds", "0", "pid", "5", "listen_pid", "5")
}

// TestATimeBeforeTheLastScanIsNotExact uses the time of the scan for a socket that an earlier
// scan should have seen.
func TestATimeBeforeTheLastScanIsNotExact(t *testing.T) {
	h := newExactHost(t)
	h.pass(10 * time.Second)
	s := h.socket(80, 15*time.Second, 5)
	h.sockets = []Socket{s}
	h.wants(h.scan(), opened, h.now.Time, "window_seconds", "10")
}

// TestTheFirstOfSeveralSocketsOpensAnEndpoint takes the time and the process of the first one
// that listened.
func TestTheFirstOfSeveralSocketsOpensAnEndpoint(t *testing.T) {
	h := newExactHost(t)
	h.pass(10 * time.Second)
	first, second := h.socket(80, 7*time.Second, 5), h.socket(80, 6*time.Second, 6)
	h.sockets = []Socket{second, first}
	h.wants(h.scan(), opened, first.Opened, "window_seconds", "0", "pid", "5", "listen_pid", "5")
}

// The record of an owner keeps who called listen over a restart of sockwatch, which does not
// know it any more.
func TestWhoCalledListenOutlivesARestart(t *testing.T) {
	h := newExactHost(t)
	h.pass(10 * time.Second)
	s := h.socket(80, 7*time.Second, 5)
	h.sockets = []Socket{s}
	set := h.tracker.Observe(&Snapshot{Moment: h.now, Namespaces: []Namespace{{View: "netlink"}}, Sockets: h.sockets}).Set
	h.tracker = New(simOptions())
	if damaged := h.tracker.Restore(set); damaged > 0 {
		t.Fatalf("%d damaged records", damaged)
	}
	h.pass(10 * time.Second)
	h.sockets[0].Opened, h.sockets[0].ListenPID = time.Time{}, 0
	h.scan()
	h.pass(10 * time.Second)
	h.sockets = nil
	h.scan()
	h.pass(time.Minute)
	events := h.scan()
	if len(events) != 1 {
		t.Fatalf("events %v, want closed", events)
	}
	hasFields(t, &events[0], "listen_pid", "5", "window_seconds", "10")
}

// After the clock was set back, known sockets seem to have opened later than the last scan.
func TestSetClockDoesNotMakeKnownSocketsNew(t *testing.T) {
	h := newExactHost(t)
	h.pass(10 * time.Second)
	h.sockets = []Socket{h.socket(80, 7*time.Second, 5)}
	h.scan()
	h.now.Time = h.now.Time.Add(-24 * time.Hour)
	h.pass(10 * time.Second)
	h.scan()
	h.pass(10 * time.Second)
	h.sockets[0].Holders = []Holder{{PID: 6, Start: 6, Key: Key{Process: "other", UID: 33}}} // it was handed over
	h.wants(h.scan(), ownerChanged, h.now.Time, "window_seconds", "10", "previous_pid", "5")
}

// A listing shows that no socket has opened or closed since, but neither who holds them nor the
// host's addresses.
func TestListingsMakeOnlySocketsMoreExact(t *testing.T) {
	t.Run("boot id", func(t *testing.T) { listingsMakeOnlySocketsMoreExact(t, "boot 1") })
	t.Run("no boot id", func(t *testing.T) { listingsMakeOnlySocketsMoreExact(t, "") }) // procfs with subset=pid
}

func listingsMakeOnlySocketsMoreExact(t *testing.T, boot string) {
	h := newExactHost(t)
	h.now.Boot = boot
	h.tracker = New(simOptions()) // the kernel reports nothing
	socket := func(port uint16, process string, class inet.Class) Socket {
		s := h.socket(port, 0, len(process))
		s.Opened, s.Holders[0].Key.Process, s.Exposure = time.Time{}, process, class
		return s
	}
	listed := func() {
		h.pass(50 * time.Second)
		h.tracker.Listed(h.now)
		h.pass(time.Second)
	}
	s := socket(80, "nginx", inet.Private)
	h.sockets = []Socket{s}
	h.scan()
	listed()
	h.sockets = []Socket{s, socket(81, "new", inet.Private)}
	h.wants(h.scan(), opened, h.now.Time, "window_seconds", "1")
	listed()
	h.sockets[0].Holders = socket(80, "another", inet.Private).Holders
	h.wants(h.scan(), ownerChanged, h.now.Time, "window_seconds", "51")
	listed()
	h.sockets[0].Exposure = inet.Public
	h.wants(h.scan(), exposureChanged, h.now.Time, "window_seconds", "51")
	if got := h.tracker.Since(h.now); got != 0 {
		t.Errorf("%v since the last scan, want 0", got)
	}
	listed()
	if got := h.tracker.Since(h.now); got != 51*time.Second {
		t.Errorf("%v since the last scan, want 51s", got)
	}
}

// TestTheLastOfAGroupClosesTheEndpoint takes the end of a socket that joined while the first one
// closed, although its owner was never found.
func TestTheLastOfAGroupClosesTheEndpoint(t *testing.T) {
	h := newExactHost(t)
	h.pass(10 * time.Second)
	first := h.socket(80, 7*time.Second, 5)
	h.sockets = []Socket{first}
	h.wants(h.scan(), opened, first.Opened, "window_seconds", "0")

	h.pass(time.Second)
	second := h.socket(80, 500*time.Millisecond, 6)
	second.Status, second.Holders = Pending, nil
	h.sockets = []Socket{second}
	h.closed[first.ID.Cookie] = h.now.Time.Add(-200 * time.Millisecond)
	if events := h.scan(); len(events) > 0 {
		t.Fatalf("events %v during the search, want none", events)
	}

	h.pass(time.Second)
	h.sockets = nil
	gone := h.now.Time.Add(-100 * time.Millisecond)
	h.closed[second.ID.Cookie] = gone
	h.scan()
	h.pass(time.Minute)
	h.wants(h.scan(), closed, gone, "window_seconds", "0", "age_seconds", "8")
}

// TestTheLastOfSeveralBriefSocketsClosesTheEndpoint does so if all of them opened and closed
// between two scans.
func TestTheLastOfSeveralBriefSocketsClosesTheEndpoint(t *testing.T) {
	h := newExactHost(t)
	h.pass(10 * time.Second)
	first, second := h.socket(80, 7*time.Second, 5), h.socket(80, 6*time.Second, 6)
	second.Holders[0].Key.Process = "haproxy"
	gone := second.Opened.Add(20 * time.Millisecond)
	h.closed[first.ID.Cookie], h.closed[second.ID.Cookie] = second.Opened.Add(10*time.Millisecond), gone
	events := h.scan(ShortLived{Time: first.Opened, Socket: first}, ShortLived{Time: second.Opened, Socket: second})
	h.wants(events, opened, first.Opened, "window_seconds", "0")
	h.pass(time.Minute)
	h.wants(h.scan(), closed, gone, "window_seconds", "0")
}
