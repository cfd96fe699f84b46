package livepage

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/schematest"
)

// elements returns the elements of a JSON array, after it has checked them against the
// schema of the API.
func elements(t *testing.T, text string) []string {
	t.Helper()
	var raw []json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	schematest.API(t, []byte(text))
	list := make([]string, 0, len(raw))
	for _, e := range raw {
		list = append(list, string(e))
	}
	return list
}

func TestListenersAsJSON(t *testing.T) {
	board := boardOf(listener(443, "nginx"), listener(80, "nginx"), listener(22, "sshd"))
	board.latest = append(board.latest, &metric.Batch{Source: "z", Time: at.Add(1500), Points: []metric.Point{listener(1, "other")}})
	p := pageOf(board)
	const tags = `"tags":{"address":"0.0.0.0","exposure":"public","family":"ipv4","owner":"resolved","port":"%s","process":"%s","unit":"%[2]s.service","user":"root"}`
	const line = `{"name":"tcp_listen",` + tags + `,"fields":{"backlog":3,"backlog_limit":128,%s"first_seen_time_seconds":1795341600,"pid":%s,"processes":2,"sockets":1,"uid":0},"timestamp":"%s"}`
	const first, second = "2026-11-22T10:00:00.000000000Z", "2026-11-22T10:00:00.000001500Z"
	for _, test := range []struct {
		query, authorization string
		want                 []string
	}{
		{query: "?q=process:nginx", want: []string{fmt.Sprintf(line, "80", "nginx", "", "1080", first), fmt.Sprintf(line, "443", "nginx", "", "1443", first)}},
		{query: "?q=port:443", authorization: "x", want: []string{fmt.Sprintf(line, "443", "nginx", `"exe":"/usr/sbin/nginx",`, "1443", first)}},
		{query: "?q=port:1", want: []string{fmt.Sprintf(line, "1", "other", "", "1001", second)}},
		{query: "?q=port:2", want: []string{}},
	} {
		r := get(p, "/api/listeners"+test.query, "Authorization", test.authorization)
		if got := r.Header.Get("Content-Type"); got != "application/json" || r.Header.Get("Link") != "" {
			t.Errorf("%s: Content-Type %q, Link %q", test.query, got, r.Header.Get("Link"))
		}
		if diff := cmp.Diff(test.want, elements(t, body(t, r))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.query, diff)
		}
	}
	if got := len(elements(t, body(t, get(p, "/api/listeners")))); got != 4 {
		t.Errorf("%d listeners without a query, want 4", got)
	}
}

func TestEventsAsJSON(t *testing.T) {
	board := boardOf()
	board.events = []metric.Point{change(1, "opened", web, "sequence", "1", "exe", "/x"), change(3, "restarted", web, "sequence", "2", "down_seconds", "0"), change(2, "closed", web, "sequence", "3")}
	p := pageOf(board)
	var got []string
	for _, e := range elements(t, body(t, get(p, "/api/events?q="+url.QueryEscape("sequence:>1")))) {
		got = append(got, e[strings.Index(e, `"fields"`):])
	}
	want := []string{
		`"fields":{"history":"f00","sequence":3,"uid":33,"while_down":false,"window_seconds":2},"timestamp":"2026-11-22T10:00:02.000000000Z"}`,
		`"fields":{"down_seconds":0,"history":"f00","sequence":2,"uid":33,"while_down":false,"window_seconds":2},"timestamp":"2026-11-22T10:00:03.000000000Z"}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestScriptsAreToldHowManyListenersAreMissing(t *testing.T) {
	unexpected := metric.Point{Name: "tcp_listen_unexpected", Tags: metric.NewTags("exposure", "public"), Fields: []metric.Field{{Key: "listeners", Value: metric.Int(7)}}}
	got := map[string][]string{}
	for name, board := range map[string]*fakeBoard{
		"all":    boardOf(listener(80, "nginx"), unexpected),
		"beyond": boardOf(listener(80, "nginx"), unexpected, beyondLimit("www", 20), beyondLimit("db", 3)),
	} {
		got[name] = get(pageOf(board), "/api/listeners").Header.Values("X-Missing-Listeners")
	}
	if diff := cmp.Diff(map[string][]string{"all": nil, "beyond": {"23"}}, got); diff != "" {
		t.Errorf("X-Missing-Listeners (-want +got):\n%s", diff)
	}
}

// TestCursorsVisitEveryListenerOnce while others open and close between the requests.
func TestCursorsVisitEveryListenerOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("visits thousands of listeners")
	}
	points := make([]metric.Point, 0, 12000)
	for i := range 12000 {
		points = append(points, listener(1+i, "p"))
	}
	board := boardOf(points...)
	p := pageOf(board)
	seen := map[string]int{}
	requests := 0
	for link := "/api/listeners?q=process%3Ap"; link != ""; {
		r := get(p, link)
		var list []struct{ Tags map[string]string }
		if err := json.Unmarshal([]byte(body(t, r)), &list); err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			seen[e.Tags["port"]]++
		}
		link, _, _ = strings.Cut(strings.TrimPrefix(r.Header.Get("Link"), "<"), ">")
		requests++
		board.latest = boardOf(slices.Concat(points[1:2000], points[4999:4999], points[5000:], []metric.Point{listener(1, "new")})...).latest // port 5000, the last one, closes
	}
	for port, times := range seen {
		if times != 1 {
			t.Errorf("port %s comes %d times", port, times)
		}
	}
	if len(seen) != 12000 || requests != 3 {
		t.Errorf("%d listeners in %d requests, want 12000 in 3", len(seen), requests)
	}
}

// A script asks for new events before there are any, and for fields that no listener has now.
func TestFieldsThatNothingHasYetMatchNothing(t *testing.T) {
	board := five()
	board.events = nil
	board.latest[0].Descs = append(board.latest[0].Descs,
		metric.Desc{Name: "tcp_listen_event", Field: "sequence", Type: metric.Gauge}, metric.Desc{Name: "tcp_listen_event", Field: "cause"},
		metric.Desc{Name: "tcp_listen", Field: "established", Type: metric.Gauge})
	for _, path := range []string{"/api/events?q=sequence:%3E17", "/api/events?q=cause:host_address", "/api/listeners?q=established:%3E0"} {
		if got := body(t, get(pageOf(board), path)); got != "[\n]\n" {
			t.Errorf("%s: %s, want an empty array", path, got)
		}
	}
}

func TestScriptsGetErrorsInsteadOfMessages(t *testing.T) {
	failed := five()
	failed.latest = []*metric.Batch{{Source: "sockwatch", Time: at}}
	failed.sources[0].Err = errorText("inner")
	for _, test := range []struct {
		name, path string
		board      *fakeBoard
		wantStatus int
		wantBody   string
	}{
		{name: "unknown key", path: "/api/listeners?q=prot:1", board: five(), wantStatus: 400,
			wantBody: "No listener or event has \"prot\". Did you mean \"port\"? To search for the text, write \"prot:1\".\n"},
		{name: "bad port", path: "/api/events?q=port:x", board: five(), wantStatus: 400, wantBody: "\"x\" is not a port (1 to 65535) or a range such as 8000-8100.\n"},
		{name: "unknown parameter", path: "/api/listeners?port=1", board: five(), wantStatus: 400, wantBody: "unknown parameter \"port\" (known: q, cursor)\n"},
		{name: "cursor of events", path: "/api/events?cursor=x", board: five(), wantStatus: 400, wantBody: "unknown parameter \"cursor\" (known: q)\n"},
		{name: "two searches", path: "/api/listeners?q=port:80&q=user:root", board: five(), wantStatus: 400, wantBody: "the parameter q is given 2 times: write all terms into one\n"},
		{name: "long search", path: "/api/events?q=" + strings.Repeat("x", 10000), board: five(), wantStatus: 400, wantBody: "The search is longer than 1024 bytes.\n"},
		{name: "many terms", path: "/api/listeners?q=" + strings.Repeat("x+", 33), board: five(), wantStatus: 400, wantBody: "The search has more than 32 terms.\n"},
		{name: "bad query", path: "/api/listeners?q=%zz", board: five(), wantStatus: 400, wantBody: "invalid URL escape \"%zz\"\n"},
		{name: "bad cursor", path: "/api/listeners?cursor=!", board: five(), wantStatus: 400, wantBody: "the cursor is not one from a Link header\n"},
		{name: "nothing gathered", path: "/api/listeners", board: &fakeBoard{}, wantStatus: 503, wantBody: "nothing has been gathered yet\n"},
		{name: "no events yet", path: "/api/events?q=sequence:%3E17", board: &fakeBoard{}, wantStatus: 503, wantBody: "nothing has been gathered yet\n"},
		{name: "failed", path: "/api/listeners", board: failed, wantStatus: 503, wantBody: "the listeners of tcp_listen are not known: its last gather failed\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := get(pageOf(test.board), test.path)
			b := make([]byte, 1000)
			n, _ := r.Body.Read(b)
			if diff := cmp.Diff([]any{test.wantStatus, test.wantBody}, []any{r.StatusCode, string(b[:n])}); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if (r.StatusCode == http.StatusServiceUnavailable) != (r.Header.Get("Retry-After") != "") {
				t.Errorf("status %d, Retry-After %q", r.StatusCode, r.Header.Get("Retry-After"))
			}
		})
	}
}
