package livepage

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

func TestWhatAnEventSays(t *testing.T) {
	for _, test := range []struct {
		event   metric.Point
		trusted bool
		want    []string // title, owner, before, link
	}{
		{event: change(0, "opened", web, "pid", "812"),
			want: []string{"0.0.0.0:443", "nginx[812], www-data, nginx.service", "nothing listened here before", "/?q=port%3A443+address%3A0.0.0.0"}},
		{event: change(0, "returned", []string{"address", "::1", "port", "53", "netns", "blue", "expected", "no"}),
			want: []string{"[::1]:53", "no known process", "had been closed; not expected", "/?q=port%3A53+address%3A%3A%3A1+netns%3Ablue"}},
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
		{event: change(0, "failed", []string{"name", "db"}, "why", strings.Repeat("a sentence; ", 100)), trusted: true,
			want: []string{"rule db", "", strings.Repeat("a sentence; ", 16) + "a senten…", ""}},
		{event: change(0, "violated", slices.Concat(web, []string{"expected", "forbidden"}), "rule", "telnet"),
			want: []string{"0.0.0.0:443", "nginx, www-data, nginx.service", "forbidden by rule telnet", "/?q=port%3A443+address%3A0.0.0.0"}},
	} {
		e := (&timeline{events: []*event{newEvent(&test.event)}}).entries(&query{}, test.trusted)[0]
		if diff := cmp.Diff(test.want, []string{e.Title(), e.Owner(), e.Before(), e.Link()}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.event.Series(), diff)
		}
	}
}

// TestNamesFromRightToLeftDoNotMoveWhatIsBesideThem: without isolates, a browser shows the address
// and the pid in another place.
func TestNamesFromRightToLeftDoNotMoveWhatIsBesideThem(t *testing.T) {
	const name, isolated = "אבגד", "\u2068אבגד\u2069"
	p := change(0, "owner_changed", []string{"address", "::", "port", "121", "process", name, "user", name}, "pid", "7", "previous_process", name, "previous_pid", "77")
	e := (&timeline{events: []*event{newEvent(&p)}}).entries(&query{}, true)[0]
	want := []string{isolated + "[7], " + isolated, "was " + isolated + "[77]"}
	if diff := cmp.Diff(want, []string{e.Owner(), e.Before()}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	alerts := newSnapshot(boardOf(violated("verdict", "no", "address", "::", "port", "9", "process", name), rule("expect", name, 0)).latest, nil).alerts()
	wantAlerts := []alert{
		{Kind: "missing", Text: "rule " + isolated + ": expected listener not found", Link: "/events?q=%D7%90%D7%91%D7%92%D7%93"},
		{Kind: "unexpected", Text: "[::]:9 " + isolated, Link: "/?q=port%3A9+address%3A%3A%3A"},
	}
	if diff := cmp.Diff(wantAlerts, alerts); diff != "" {
		t.Errorf("alerts (-want +got):\n%s", diff)
	}
	if page := body(t, get(pageOf(boardOf(listener(80, name))), "/")); !strings.Contains(page, "<bdi>"+name+"</bdi>") {
		t.Error("the table does not isolate the name of the process from its pid")
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
