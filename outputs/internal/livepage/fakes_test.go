package livepage

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A fakeBoard is a plugin.Board that a test sets.
type fakeBoard struct {
	latest  []*metric.Batch
	events  []metric.Point
	sources []plugin.SourceState
	health  plugin.Health
	details func(ctx context.Context, source string, p *metric.Point) ([]plugin.DetailSection, error)
}

func (b *fakeBoard) Latest() []*metric.Batch                      { return b.latest }
func (b *fakeBoard) Events() []metric.Point                       { return b.events }
func (b *fakeBoard) Sources() []plugin.SourceState                { return b.sources }
func (b *fakeBoard) Health() plugin.Health                        { return b.health }
func (b *fakeBoard) Changed() <-chan struct{}                     { return make(chan struct{}) }
func (b *fakeBoard) Refresh(context.Context, time.Duration) error { return nil }
func (b *fakeBoard) Details(ctx context.Context, source string, p *metric.Point) ([]plugin.DetailSection, error) {
	if b.details == nil {
		return nil, nil
	}
	return b.details(ctx, source, p)
}

// at is the time of the tests' batches.
var at = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// boardOf returns a board on which tcp_listen has published points.
func boardOf(points ...metric.Point) *fakeBoard {
	return &fakeBoard{
		latest:  []*metric.Batch{{Source: "tcp_listen", Time: at, Points: points, Descs: []metric.Desc{{Name: "tcp_listen", Field: "sockets", Help: "Listening sockets"}}}},
		sources: []plugin.SourceState{{Name: "tcp_listen", Gathered: true, Since: at, Tags: []string{"address", "container", "exposure", "port", "process", "unit", "user"}}},
	}
}

// pageOf returns the page of a board. The header Authorization makes a request trusted.
func pageOf(board plugin.Board) *Page {
	return New(Options{
		Hostname: "web-1", Log: slog.New(slog.DiscardHandler),
		Trusted: func(r *http.Request) bool { return r.Header.Get("Authorization") != "" },
		Links:   []Link{{"Metrics", "/metrics"}},
		Served:  func(Kind) {}, Refused: func(Reason) {},
	}, board)
}

// get sends a request with header fields (name, value, ...).
func get(p *Page, url string, header ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, "http://web-1:8088"+url, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Result()
}

// body returns the body of an answer with status 200.
func body(t testing.TB, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("status %d, %v: %s", r.StatusCode, err, b)
	}
	return string(b)
}

// listener returns a point like those of tcp_listen. more are further tags.
func listener(port int, process string, more ...string) metric.Point {
	tags := append([]string{"address", "0.0.0.0", "port", strconv.Itoa(port), "family", "ipv4", "process", process, "user", "root",
		"unit", process + ".service", "exposure", "public", "owner", "resolved"}, more...)
	seen := map[string]string{}
	for i := 0; i+1 < len(tags); i += 2 {
		seen[tags[i]] = tags[i+1]
	}
	var pairs []string
	for key, value := range seen {
		pairs = append(pairs, key, value)
	}
	return metric.Point{Name: "tcp_listen", Tags: metric.NewTags(pairs...), Fields: []metric.Field{
		{Key: "sockets", Value: metric.Int(1)},
		{Key: "processes", Value: metric.Int(2)},
		{Key: "uid", Value: metric.Int(0)},
		{Key: "pid", Value: metric.Int(1000 + int64(port))},
		{Key: "backlog", Value: metric.Int(3)},
		{Key: "backlog_limit", Value: metric.Int(128)},
		{Key: "first_seen_time_seconds", Value: metric.Float(1795341600)},
		{Key: "exe", Value: metric.String("/usr/sbin/" + process)},
		{Key: "cmdline", Value: metric.String(process + " --password=secret")},
	}}
}

// beyondLimit returns the point for the listeners of a user that are beyond max_listeners.
func beyondLimit(user string, listeners int64) metric.Point {
	return metric.Point{Name: "tcp_listen_overflow", Tags: metric.NewTags("user", user), Fields: []metric.Field{
		{Key: "listeners", Value: metric.Int(listeners)}, {Key: "sockets", Value: metric.Int(listeners)}, {Key: "backlog", Value: metric.Uint(0)},
	}}
}

// with returns the point with another value of a field, or one more.
func with(p metric.Point, key string, v metric.Value) metric.Point {
	fields := make([]metric.Field, 0, len(p.Fields)+1)
	for _, f := range p.Fields {
		if f.Key != key {
			fields = append(fields, f)
		}
	}
	p.Fields = append(fields, metric.Field{Key: key, Value: v})
	return p
}

// change returns an event a number of seconds after at. fields are strings (key, value,
// ...); those that are numbers or "true" become numbers and bools.
func change(seconds float64, kind string, tags []string, fields ...string) metric.Point {
	if slices.Contains(tags, "address") {
		tags = append([]string{"family", "ipv4", "owner", "resolved"}, tags...)
	}
	p := metric.Point{
		Name: "tcp_listen_event", Tags: metric.NewTags(append([]string{"event", kind}, tags...)...),
		Time: at.Add(time.Duration(seconds * float64(time.Second))), Fields: []metric.Field{
			{Key: "history", Value: metric.String("f00")}, {Key: "sequence", Value: metric.Int(0)}, {Key: "uid", Value: metric.Int(33)},
			{Key: "while_down", Value: metric.Bool(false)}, {Key: "window_seconds", Value: metric.Float(2)},
		},
	}
	for i := 0; i+1 < len(fields); i += 2 {
		v := metric.String(fields[i+1])
		if n, err := strconv.ParseFloat(fields[i+1], 64); err == nil {
			v = metric.Float(n)
		}
		if fields[i+1] == "true" {
			v = metric.Bool(true)
		}
		p = with(p, fields[i], v)
	}
	return p
}

// addresses returns the addresses of rows.
func addresses(rows []*row) []string {
	list := make([]string, 0, len(rows))
	for _, r := range rows {
		list = append(list, r.Address)
	}
	return list
}

// search returns a query for a search.
func search(q string, more ...string) query {
	values := map[string][]string{"q": {q}}
	for i := 0; i+1 < len(more); i += 2 {
		values[more[i]] = []string{more[i+1]}
	}
	return parseQuery(values)
}

// parse returns the elements of an HTML page in order.
func parse(t testing.TB, page string) []*html.Node {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	var elements []*html.Node
	for n := range root.Descendants() {
		if n.Type == html.ElementNode {
			elements = append(elements, n)
		}
	}
	return elements
}

// attribute returns an attribute of an element, or "".
func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// textOf returns the text of an element, with single spaces.
func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// byID returns the element with an id.
func byID(t testing.TB, elements []*html.Node, id string) *html.Node {
	t.Helper()
	for _, n := range elements {
		if attribute(n, "id") == id {
			return n
		}
	}
	t.Fatalf("no element has the id %q", id)
	return nil
}

// detailsOf returns a function that returns the same details for every point.
func detailsOf(sections ...plugin.DetailSection) func(context.Context, string, *metric.Point) ([]plugin.DetailSection, error) {
	return func(context.Context, string, *metric.Point) ([]plugin.DetailSection, error) { return sections, nil }
}

// errorText is an error with a text.
type errorText string

func (e errorText) Error() string { return string(e) }
