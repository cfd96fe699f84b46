package changes

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shortLivedOfOnePort returns a scan of a host without listeners on which ten quick scans have seen n
// sockets on one port.
func shortLivedOfOnePort(m Moment, n int) *Snapshot {
	scan := &Snapshot{Moment: m.step(), Namespaces: []Namespace{{View: "netlink"}}}
	for i := range n {
		s := benchSocket(i, 0)
		s.Endpoint, s.Holders, s.Status = Endpoint{Address: "0.0.0.0", Port: 1000}, nil, Unknown
		scan.ShortLived = append(scan.ShortLived, ShortLived{Time: m.Time.Add(time.Duration(i*10/n) * time.Second), Socket: s})
	}
	return scan
}

// If a program opens and closes sockets on one port as fast as it can, the cost of a scan must
// not grow with the square of their number.
func TestShortLivedOfOnePortAreMatchedTogether(t *testing.T) {
	const n = 2000
	_, m := benchTracker()
	scan := shortLivedOfOnePort(m, n)
	allocations := testing.AllocsPerRun(1, func() {
		tracker := New(simOptions())
		tracker.Observe(&Snapshot{Moment: m, Namespaces: scan.Namespaces})
		events := tracker.Observe(scan).Events
		if len(events) != 1 || events[0].Tag("event") != opened || !events[0].Time.Equal(m.Time) {
			t.Errorf("%d events, want that the port has opened: %v", len(events), events)
		}
	})
	if allocations > 20*n {
		t.Errorf("%v allocations for %d sockets", allocations, n)
	}
}

// TestBriefEndpointsAreBounded lets very many endpoints open and close within settle: each is
// reported once, in a count at least, and only so many wait for settle.
func TestBriefEndpointsAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("opens 30,000 endpoints")
	}
	const scans = 3
	h := newExactHost(t)
	reported := map[string]int{}
	scan := func(brief ...ShortLived) {
		h.pass(time.Second)
		for _, e := range h.scan(brief...) {
			n := 1
			if f, ok := e.Field("count"); ok {
				n = int(f.AsInt())
			}
			reported[e.Tag("event")] += n
		}
	}
	most := 0
	for i := range scans {
		var brief []ShortLived
		for port := range maxBrief {
			s := h.socket(uint16(1000+port), 0, 5)
			s.Address = fmt.Sprint("127.0.0.", i+1)
			h.closed[s.ID.Cookie] = s.Opened.Add(time.Millisecond)
			brief = append(brief, ShortLived{Time: s.Opened, Socket: s})
		}
		scan(brief...)
		most = max(most, len(h.tracker.endpoints))
	}
	scan()
	if most > 2*maxBrief || len(h.tracker.endpoints) > maxBrief {
		t.Errorf("%d endpoints, then %d, want at most %d, %d", most, len(h.tracker.endpoints), 2*maxBrief, maxBrief)
	}
	if diff := cmp.Diff(map[string]int{opened: scans * maxBrief, closed: (scans - 1) * maxBrief}, reported); diff != "" {
		t.Errorf("events before settle has passed (-want +got):\n%s", diff)
	}
	h.pass(time.Minute)
	scan()
	if reported[closed] != scans*maxBrief || len(h.tracker.endpoints) > 0 {
		t.Errorf("%d closed, %d endpoints left, want %d, none", reported[closed], len(h.tracker.endpoints), scans*maxBrief)
	}
}

// TestManyListedEndpointsWaitForSettle closes no endpoint early that a scan has found.
func TestManyListedEndpointsWaitForSettle(t *testing.T) {
	if testing.Short() {
		t.Skip("scans 11,000 endpoints three times")
	}
	h := newExactHost(t)
	for i := range maxBrief + 1000 {
		s := h.socket(uint16(1000+i), 0, 5)
		h.sockets = append(h.sockets, s)
	}
	h.pass(time.Second)
	h.scan()
	h.sockets = nil
	for range 2 {
		h.pass(time.Second)
		if events := h.scan(); len(events) > 0 {
			t.Fatalf("%d events before settle has passed, want none", len(events))
		}
	}
}
