package livepage

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// five is a board with five listeners of every kind.
func five() *fakeBoard {
	verdict := func(p metric.Point, v string) metric.Point { return with(p, "expected", metric.String(v)) }
	return boardOf(
		verdict(with(listener(443, "nginx"), "backlog", metric.Int(100)), "yes"),
		verdict(listener(80, "nginx"), "yes"),
		verdict(listener(22, "sshd", "exposure", "private", "user", "admin"), "yes"),
		verdict(with(listener(6379, "redis", "exposure", "loopback"), "backlog_limit", metric.Int(4096)), "no"),
		verdict(with(listener(23, "", "exposure", "", "unit", ""), "first_seen_time_seconds", metric.Float(1795000000)), "forbidden"),
	)
}

func TestSortByEachColumn(t *testing.T) {
	p := pageOf(five())
	for _, test := range []struct {
		sort string
		want []string
	}{
		{"", []string{"22", "23", "80", "443", "6379"}},
		{"nonsense", []string{"22", "23", "80", "443", "6379"}},
		{"address", []string{"22", "23", "80", "443", "6379"}},
		{"-address", []string{"6379", "443", "80", "23", "22"}},
		{"exposure", []string{"80", "443", "22", "6379", "23"}},
		{"-exposure", []string{"23", "6379", "22", "80", "443"}},
		{"process", []string{"80", "443", "6379", "22", "23"}},
		{"user", []string{"22", "23", "80", "443", "6379"}},
		{"where", []string{"80", "443", "6379", "22", "23"}},
		{"queue", []string{"443", "22", "23", "80", "6379"}},
		{"established", []string{"22", "23", "80", "443", "6379"}},
		{"since", []string{"22", "80", "443", "6379", "23"}},
		{"expected", []string{"23", "6379", "22", "80", "443"}},
	} {
		v := p.view(search("", "sort", test.sort), false)
		var ports []string
		for _, r := range v.Rows {
			ports = append(ports, r.point.Tag("port"))
		}
		if diff := cmp.Diff(test.want, ports); diff != "" {
			t.Errorf("sort %q (-want +got):\n%s", test.sort, diff)
		}
	}
}

// TestEqualRowsStayInTheOrderOfPorts, however many there are.
func TestEqualRowsStayInTheOrderOfPorts(t *testing.T) {
	var points []metric.Point
	for i := range 200 {
		points = append(points, listener(200-i, fmt.Sprintf("p%d", i%2)))
	}
	for sort, first := range map[string]string{"process": "p0", "-process": "p1"} {
		rows := pageOf(boardOf(points...)).view(search("", "sort", sort), false).Rows
		var ports []int
		for _, r := range rows {
			n, err := strconv.Atoi(r.point.Tag("port"))
			if err != nil {
				t.Fatal(err)
			}
			ports = append(ports, n)
		}
		if rows[0].Get("process") != first || !slices.IsSorted(ports[:100]) || !slices.IsSorted(ports[100:]) {
			t.Errorf("%s: %s first, ports %v", sort, rows[0].Get("process"), ports)
		}
	}
}

// TestFullAcceptQueueIsShownAsFull, also the shortest: a meter is at its worst if its value is above
// high and its optimum below low.
func TestFullAcceptQueueIsShownAsFull(t *testing.T) {
	queues := map[string]string{}
	for limit, waiting := range map[int64]int64{0: 1, 1: 1, 5: 2, 128: 129} {
		p := with(with(listener(80, "nginx"), "backlog_limit", metric.Int(limit)), "backlog", metric.Int(waiting))
		for _, e := range parse(t, body(t, get(pageOf(boardOf(p)), "/"))) {
			if e.Data == "meter" {
				queues[fmt.Sprint(limit)] = textOf(e.Parent) + " low " + attribute(e, "low") + " high " + attribute(e, "high") + " max " + attribute(e, "max")
			}
		}
	}
	want := map[string]string{
		"0": "1/0 low 0.5 high 0.9 max 1", "1": "1/1 low 0.5 high 0.9 max 1", "5": "2/5 low 2.5 high 4.5 max 5", "128": "129/128 low 64 high 115.2 max 128",
	}
	if diff := cmp.Diff(want, queues); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestColumnsSortByTheirLinks(t *testing.T) {
	type head struct{ Name, Order, Link string }
	for _, test := range []struct {
		sort string
		want []head
	}{
		{sort: "", want: []head{{"address", "ascending", "/?q=a+b&sort=-address"}, {"exposure", "", "/?q=a+b&sort=exposure"}}},
		{sort: "exposure", want: []head{{"address", "", "/?q=a+b&sort=address"}, {"exposure", "ascending", "/?q=a+b&sort=-exposure"}}},
		{sort: "-exposure", want: []head{{"address", "", "/?q=a+b&sort=address"}, {"exposure", "descending", "/?q=a+b&sort=exposure"}}},
	} {
		var got []head
		for _, c := range pageOf(five()).view(search("a b", "sort", test.sort), false).Columns()[:2] {
			got = append(got, head{c.Name, c.Order, c.Link})
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("sort %q (-want +got):\n%s", test.sort, diff)
		}
	}
}

// TestFacetsCountWhatTheyWouldShow: the terms of a facet's own key do not count.
func TestFacetsCountWhatTheyWouldShow(t *testing.T) {
	type value struct {
		Value  string
		Count  int
		Active bool
		Link   string
	}
	p := pageOf(five())
	for _, test := range []struct {
		search, key string
		want        []value
		wantLeft    int
	}{
		{search: "", key: "exposure", wantLeft: 5, want: []value{
			{"public", 2, false, "/?q=exposure%3Apublic"}, {"private", 1, false, "/?q=exposure%3Aprivate"}, {"link_local", 0, false, "/?q=exposure%3Alink_local"},
			{"loopback", 1, false, "/?q=exposure%3Aloopback"}, {"none", 1, false, "/?q=exposure%3Anone"}}},
		{search: "exposure:public", key: "exposure", wantLeft: 2, want: []value{
			{"public", 2, true, "/"}, {"private", 1, false, "/?q=exposure%3Apublic+exposure%3Aprivate"}, {"link_local", 0, false, "/?q=exposure%3Apublic+exposure%3Alink_local"},
			{"loopback", 1, false, "/?q=exposure%3Apublic+exposure%3Aloopback"}, {"none", 1, false, "/?q=exposure%3Apublic+exposure%3Anone"}}},
		{search: "exposure:public", key: "expected", wantLeft: 2, want: []value{
			{"forbidden", 0, false, "/?q=exposure%3Apublic+expected%3Aforbidden"}, {"no", 0, false, "/?q=exposure%3Apublic+expected%3Ano"},
			{"undecided", 0, false, "/?q=exposure%3Apublic+expected%3Aundecided"}, {"yes", 2, false, "/?q=exposure%3Apublic+expected%3Ayes"}}},
		{search: "port:1", key: "expected", wantLeft: 0, want: []value{
			{"forbidden", 0, false, "/?q=port%3A1+expected%3Aforbidden"}, {"no", 0, false, "/?q=port%3A1+expected%3Ano"},
			{"undecided", 0, false, "/?q=port%3A1+expected%3Aundecided"}, {"yes", 0, false, "/?q=port%3A1+expected%3Ayes"}}},
		{search: "nginx exposure:private", key: "exposure", wantLeft: 0, want: []value{
			{"public", 2, false, "/?q=nginx+exposure%3Aprivate+exposure%3Apublic"}, {"private", 0, true, "/?q=nginx"}, {"link_local", 0, false, "/?q=nginx+exposure%3Aprivate+exposure%3Alink_local"},
			{"loopback", 0, false, "/?q=nginx+exposure%3Aprivate+exposure%3Aloopback"}, {"none", 0, false, "/?q=nginx+exposure%3Aprivate+exposure%3Anone"}}},
	} {
		v := p.view(search(test.search), false)
		var got []value
		for _, f := range v.Facets {
			for _, x := range f.Values {
				if f.Key == test.key {
					got = append(got, value(x))
				}
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" || v.Left != test.wantLeft {
			t.Errorf("%q: %d are left, want %d; %s (-want +got):\n%s", test.search, v.Left, test.wantLeft, test.key, diff)
		}
	}
}

// TestListenersFromBeforeSockwatchShowTheStartOfTheirProcess, because nobody knows since
// when they have listened.
func TestListenersFromBeforeSockwatchShowTheStartOfTheirProcess(t *testing.T) {
	seen := with(listener(1, "a"), "process_start_time_seconds", metric.Float(1795341500))
	before := with(seen, "first_seen_time_seconds", metric.String(""))
	before.Tags = listener(2, "a").Tags
	unknown := with(with(before, "process_start_time_seconds", metric.String("")), "pid", metric.Int(3))
	unknown.Tags = listener(3, "a").Tags
	var got []string
	for _, e := range parse(t, body(t, get(pageOf(boardOf(unknown, before, seen)), "/?sort=since"))) {
		if e.Data == "td" && attribute(e, "class") == "since" {
			got = append(got, textOf(e))
		}
	}
	want := []string{"2026-11-22 10:00:00", "2026-11-22 09:58:20 start of the process", ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestWithoutRulesThereIsNoFacetOfVerdicts(t *testing.T) {
	v := pageOf(boardOf(listener(80, "nginx"))).view(search(""), false)
	if len(v.Facets) != 1 || v.Facets[0].Key != "exposure" {
		t.Errorf("facets: %+v", v.Facets)
	}
}

// TestEveryRowIsOnSomePage without JavaScript: following the links shows each row once.
func TestEveryRowIsOnSomePage(t *testing.T) {
	if testing.Short() {
		t.Skip("renders very many pages")
	}
	const n = 1203
	points := make([]metric.Point, n)
	for i := range points {
		points[i] = listener(1+i, fmt.Sprintf("p%d", i%3))
	}
	page := pageOf(boardOf(points...))
	seen := map[string]int{}
	links := []string{"/?q=process%3Ap0%2Cp1%2Cp2"}
	for len(links) > 0 && len(seen) <= n {
		elements := parse(t, body(t, get(page, links[0])))
		links = links[1:]
		for _, e := range elements {
			if e.Data == "tr" && attribute(e, "id") != "" {
				seen[attribute(e, "id")]++
			}
			if e.Data == "a" && attribute(e, "rel") == "next" {
				links = append(links, attribute(e, "href"))
			}
		}
	}
	for id, times := range seen {
		if times != 1 {
			t.Errorf("row %s is there %d times", id, times)
		}
	}
	if len(seen) != n {
		t.Errorf("%d rows, want %d", len(seen), n)
	}
	last := page.view(search("", "from", "99999"), false)
	if last.first != 1000 || len(last.Rows) != 203 || last.Previous() != "/?from=500" || last.Next() != "" {
		t.Errorf("beyond the end: from %d, %d rows, %q, %q", last.first, len(last.Rows), last.Previous(), last.Next())
	}
}

func TestMissingListenersAreExplained(t *testing.T) {
	partial := boardOf(listener(80, "nginx"))
	partial.latest[0].Partial = "the deadline cut the search for owners"
	failed := boardOf()
	failed.latest = []*metric.Batch{{Source: "sockwatch", Time: at}}
	failed.sources[0].Err = errors.New("netlink: /secret")
	starting := boardOf()
	starting.latest, starting.sources[0].Gathered = failed.latest, false
	none := boardOf()
	none.sources = []plugin.SourceState{{Name: "cpu", Gathered: true}}
	full := boardOf(listener(80, "nginx"), beyondLimit("www", 20), beyondLimit("db", 3))
	for _, test := range []struct {
		name    string
		board   *fakeBoard
		trusted bool
		want    []string
	}{
		{name: "beyond the limit", board: full, want: []string{"23 more listeners of tcp_listen are not shown: it reports at most max_listeners."}},
		{name: "all is there", board: five()},
		{name: "before the first gather", board: &fakeBoard{}, want: []string{"Nothing has been gathered yet."}},
		{name: "filtered", board: boardOf(), want: []string{"There are no listeners, or the filters of this output drop them."}},
		{name: "no such input", board: none, want: []string{"No input of the configuration lists listeners."}},
		{name: "failed", board: failed, want: []string{"The listeners of tcp_listen are not known: its last gather failed."}},
		{name: "first gather", board: starting, want: []string{"The listeners of tcp_listen are not known: its first gather has not ended."}},
		{name: "partial", board: partial, want: []string{"Some data of tcp_listen is missing."}},
		{name: "partial, trusted", board: partial, trusted: true, want: []string{"Some data of tcp_listen is missing: the deadline cut the search for owners."}},
	} {
		if diff := cmp.Diff(test.want, pageOf(test.board).view(search(""), test.trusted).Messages); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestCountSaysWhatTheSearchLeaves(t *testing.T) {
	board := five()
	board.events = []metric.Point{change(1, "opened", web, "sequence", "1"), change(3, "closed", web, "sequence", "2")}
	p := pageOf(board)
	for url, want := range map[string]string{
		"/":                       "5 listeners",
		"/?q=redis":               "1 of 5 listeners matches clear the search",
		"/events":                 "2 changes",
		"/events?q=event:closed":  "1 matching change clear the search",
		"/?q=process:nginx":       "2 of 5 listeners match clear the search",
		"/?q=nothing&sort=-since": "0 of 5 listeners match clear the search",
	} {
		if got := textOf(byID(t, parse(t, body(t, get(p, url))), "count")); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
	one := parse(t, body(t, get(pageOf(boardOf(listener(80, "nginx"))), "/")))
	if got := textOf(byID(t, one, "count")); got != "1 listener" {
		t.Errorf("one listener: %q", got)
	}
}
