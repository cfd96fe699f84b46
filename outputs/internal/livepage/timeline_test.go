package livepage

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

// web are the tags of a listener of the tests' events.
var web = []string{"address", "0.0.0.0", "port", "443", "process", "nginx", "user", "www-data", "unit", "nginx.service", "exposure", "public"}

// moved returns an event of a listener whose exposure a change of the host's addresses has
// changed.
func moved(seconds float64, port int, from, to string) metric.Point {
	return change(seconds, "exposure_changed", []string{"address", "0.0.0.0", "port", fmt.Sprint(port), "process", "p" + fmt.Sprint(port), "exposure", to},
		"cause", "host_address", "previous_exposure", from)
}

func TestExposureChangesOfOneCauseAreOneEntry(t *testing.T) {
	board := boardOf()
	board.events = []metric.Point{
		moved(0, 1, "private", "public"), moved(30, 1, "public", "private"), moved(31.1, 2, "public", "private"),
		moved(60, 1, "public", "private"), moved(60.000000001, 2, "public", "private"), moved(60.000000002, 3, "loopback", "private"), moved(60.000000003, 4, "public", "private"),
		change(61, "opened", web),
		change(61.5, "exposure_changed", web, "cause", "rebound", "previous_exposure", "public"), change(61.5, "exposure_changed", web, "cause", "rebound", "previous_exposure", "public"),
	}
	p := pageOf(board)
	for _, test := range []struct {
		search string
		want   []string
	}{
		{"", []string{"exposure_changed 0.0.0.0:443", "exposure_changed 0.0.0.0:443", "opened 0.0.0.0:443", "exposure_changed 3 listeners", "exposure_changed 0.0.0.0:3", "exposure_changed 0.0.0.0:2", "exposure_changed 0.0.0.0:1", "exposure_changed 0.0.0.0:1"}},
		{"port:2", []string{"exposure_changed 0.0.0.0:2", "exposure_changed 0.0.0.0:2"}},
		{"event:opened", []string{"opened 0.0.0.0:443"}},
		{"cause:host_address previous_exposure:public", []string{"exposure_changed 3 listeners", "exposure_changed 0.0.0.0:2", "exposure_changed 0.0.0.0:1"}},
	} {
		var got []string
		for _, e := range p.view(search(test.search), false).Entries {
			got = append(got, e.Event()+" "+e.Title())
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.search, diff)
		}
	}
	group := p.view(search(""), false).Entries[3]
	want := []fact{{Name: "0.0.0.0:4", Value: "p4"}, {Name: "0.0.0.0:2", Value: "p2"}, {Name: "0.0.0.0:1", Value: "p1"}}
	if diff := cmp.Diff(want, group.Facts()); diff != "" {
		t.Errorf("the listeners of the group (-want +got):\n%s", diff)
	}
	if got, want := group.Before(), "private, was public: the addresses of the host have changed"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestEventsAreInTheOrderOfTheirTimes: that of a closed listener is published later.
func TestEventsAreInTheOrderOfTheirTimes(t *testing.T) {
	board := boardOf()
	board.events = []metric.Point{change(1, "opened", web), change(5, "restarted", web), change(2, "closed", web)}
	var got []string
	for _, e := range pageOf(board).view(search(""), false).Entries {
		got = append(got, e.Event())
	}
	if diff := cmp.Diff([]string{"restarted", "closed", "opened"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTimelineIsMadeOncePerEvent(t *testing.T) {
	board := boardOf()
	board.events = []metric.Point{change(1, "opened", web), change(2, "closed", web), change(3, "opened", web)}
	all := board.events
	board.events = all[:2]
	p := pageOf(board)
	first := p.timeline()
	if p.timeline() != first {
		t.Error("the same events are another timeline")
	}
	board.events = slices.Clone(all[:2])
	if p.timeline() != first {
		t.Error("a copy of the same events is another timeline")
	}
	board.events = all
	if next := p.timeline(); len(next.events) != 3 || next.events[1] != first.events[0] {
		t.Errorf("the next timeline has %d events, its second is that of the first timeline: %v", len(next.events), next.events[1] == first.events[0])
	}
}
