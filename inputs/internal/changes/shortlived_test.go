package changes

import (
	"testing"
	"time"
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
