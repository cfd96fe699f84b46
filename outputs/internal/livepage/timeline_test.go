package livepage

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

// web are the tags of a listener of the tests' events.
var web = []string{"address", "0.0.0.0", "port", "443", "process", "nginx", "user", "www-data", "unit", "nginx.service", "exposure", "public"}

func TestWhatAnEventSays(t *testing.T) {
	for _, test := range []struct {
		event   metric.Point
		trusted bool
		want    []string // title, owner, before, link
	}{
		{event: change(0, "opened", web, "pid", "812"),
			want: []string{"0.0.0.0:443", "nginx[812], www-data, nginx.service", "nothing listened here before", "/?q=port%3A443+address%3A0.0.0.0"}},
		{event: change(0, "returned", []string{"address", "::1", "port", "53", "netns", "blue", "expected", "no"}),
			want: []string{"[::1]:53", "unknown process", "had been closed; not expected", "/?q=port%3A53+address%3A%3A%3A1+netns%3Ablue"}},
		{event: change(0, "closed", web, "age_seconds", "7200"),
			want: []string{"0.0.0.0:443", "nginx, www-data, nginx.service", "had been open for 2h0m", "/?q=port%3A443+address%3A0.0.0.0"}},
		{event: change(0, "restarted", web, "pid", "9", "previous_pid", "8", "down_seconds", "1.5", "exe_changed", "true", "exe", "/b", "previous_exe", "/a", "while_down", "true"),
			want: []string{"0.0.0.0:443", "nginx[9], www-data, nginx.service", "was pid 8; down for at most 1.5s; runs another program; while sockwatch was not running", "/?q=port%3A443+address%3A0.0.0.0"}},
		{event: change(0, "restarted", web, "exe_changed", "true", "exe", "/b", "previous_exe", "/a"), trusted: true,
			want: []string{"0.0.0.0:443", "nginx, www-data, nginx.service", "runs /b, was /a", "/?q=port%3A443+address%3A0.0.0.0"}},
		{event: change(0, "owner_changed", web, "previous_process", "apache2", "previous_pid", "5", "previous_user", "root", "previous_unit", "apache2.service"),
			want: []string{"0.0.0.0:443", "nginx, www-data, nginx.service", "was apache2[5], root, apache2.service", "/?q=port%3A443+address%3A0.0.0.0"}},
		{event: change(0, "exposure_changed", web, "previous_exposure", "private", "cause", "host_address"),
			want: []string{"0.0.0.0:443", "nginx, www-data, nginx.service", "public, was private: the addresses of the host have changed", "/?q=port%3A443+address%3A0.0.0.0"}},
		{event: change(0, "exposure_changed", web, "previous_exposure", "loopback", "previous_address", "127.0.0.1", "cause", "rebound"),
			want: []string{"0.0.0.0:443", "nginx, www-data, nginx.service", "was loopback at 127.0.0.1:443", "/?q=port%3A443+address%3A0.0.0.0"}},
		{event: change(0, "opened", []string{"user", "www-data"}, "count", "57"),
			want: []string{"57 more of user www-data", "", "", ""}},
		{event: change(0, "failed", []string{"name", "web", "rule", "expect"}, "why", "0 of 1", "lasted_seconds", "300000"), trusted: true,
			want: []string{"rule web", "", "lasted 3 days; 0 of 1", ""}},
		{event: change(0, "violated", slices.Concat(web, []string{"expected", "forbidden"}), "rule", "telnet"),
			want: []string{"0.0.0.0:443", "nginx, www-data, nginx.service", "forbidden by rule telnet", "/?q=port%3A443+address%3A0.0.0.0"}},
	} {
		e := (&timeline{events: []*event{newEvent(&test.event)}}).entries(&query{}, test.trusted)[0]
		if diff := cmp.Diff(test.want, []string{e.Title(), e.Owner(), e.Before(), e.Link()}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.event.Series(), diff)
		}
	}
}

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

// TestALargeGroupSaysHowManyItDoesNotName, and keeps its identity when it grows.
func TestALargeGroupSaysHowManyItDoesNotName(t *testing.T) {
	board := boardOf()
	for i := range 150 {
		board.events = append(board.events, moved(float64(i)/1e6, i, "private", "public"))
	}
	group := pageOf(board).view(search(""), false).Entries
	facts := group[0].Facts()
	if diff := cmp.Diff(fact{Name: "and", Value: "50 more"}, facts[len(facts)-1]); len(group) != 1 || len(facts) != maxFacts+1 || diff != "" {
		t.Errorf("%d entries with %d facts, the last one (-want +got):\n%s", len(group), len(facts), diff)
	}
	id := group[0].ID()
	board.events = append(board.events, moved(0.0002, 151, "private", "public"))
	if next := pageOf(board).view(search(""), false).Entries; len(next) != 1 || next[0].ID() != id {
		t.Errorf("the larger group is %d entries, the first is %s, want %s", len(next), next[0].ID(), id)
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

// TestEveryEventIsOnThePageOfChanges: the page of listeners has the latest, and says how
// many more there are.
func TestEveryEventIsOnThePageOfChanges(t *testing.T) {
	const n = 450
	board := boardOf(listener(1, "a"))
	for i := range n {
		board.events = append(board.events, change(float64(i), "opened", []string{"address", "0.0.0.0", "port", fmt.Sprint(1 + i%2), "process", "x"}, "sequence", fmt.Sprint(i)))
	}
	p := pageOf(board)
	main := parse(t, body(t, get(p, "/?q=port:1")))
	if got, want := textOf(byID(t, main, "earlier")), "205 earlier"; got != want {
		t.Errorf("the page of listeners says %q, want %q", got, want)
	}
	for search, want := range map[string]int{"": n, "port:1": n / 2, "event:closed": 0} {
		seen := map[string]bool{}
		for link := "/events?q=" + search; link != ""; {
			elements := parse(t, body(t, get(p, link)))
			link = ""
			for _, e := range elements {
				if id := attribute(e, "id"); e.Data == "li" && strings.HasPrefix(id, "e-") {
					seen[id] = true
				}
				if attribute(e, "rel") == "next" {
					link = attribute(e, "href")
				}
			}
		}
		if len(seen) != want {
			t.Errorf("%q: %d changes, want %d", search, len(seen), want)
		}
	}
}
