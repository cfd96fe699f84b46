package prometheus

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

func TestH7OneUserHasTheMost(t *testing.T) {
	var points []metric.Point
	for i := range 3000 {
		points = append(points, listener(i+1, "spam", "mallory"))
	}
	for i := range 100 {
		points = append(points, listener(i+10001, "sshd", "root"))
	}
	points = append(points, metric.Point{ // the input has folded some already
		Name: "tcp_listen_overflow", Tags: metric.NewTags("user", "mallory", "host", "web-1"),
		Fields: []metric.Field{{Key: "listeners", Value: metric.Int(27000)}, {Key: "sockets", Value: metric.Int(27000)}, {Key: "backlog", Value: metric.Int(5)}},
	})
	e, book := newTestEndpoint(t, func(o *Options) { o.MaxSeries = 1000 })
	page := bodyOf(t, get(t, e, boardOf(batch("tcp_listen", points...)), "/metrics"))
	if n := strings.Count(page, "\ntcp_listen_sockets{"); n != 100 || strings.Contains(page, `process="spam"`) {
		t.Errorf("%d listeners are on the page, want the 100 of root", n)
	}
	for _, line := range []string{
		`tcp_listen_overflow_listeners{host="web-1",user="mallory"} 30000`,
		`tcp_listen_overflow_sockets{host="web-1",user="mallory"} 30000`,
		`tcp_listen_overflow_backlog{host="web-1",user="mallory"} 5`,
		`# TYPE tcp_listen_overflow_sockets gauge`,
		`sockwatch_prometheus_left_out_series_total{reason="folded"} 24000`,
		`sockwatch_prometheus_series 803`,
	} {
		if !strings.Contains(page, "\n"+line+"\n") {
			t.Errorf("the page has no line %s", line)
		}
	}
	if lines := book.all(); len(lines) != 1 || !strings.Contains(lines[0], `folded="24000, the first: tcp_listen{`) {
		t.Errorf("logged %q", lines)
	}
}

func TestFold(t *testing.T) {
	one := func(name, user string, n int, fields ...string) []metric.Point {
		var points []metric.Point
		for i := range n {
			p := metric.Point{Name: name, Tags: metric.NewTags("host", "h", "i", strconv.Itoa(i), "user", user)}
			for _, f := range fields {
				p.Fields = append(p.Fields, metric.Field{Key: f, Value: metric.Int(2)})
			}
			points = append(points, p)
		}
		return points
	}
	for _, test := range []struct {
		name   string
		room   size
		points []metric.Point
		want   map[string]float64 // series by text; what begins with "..." counts
		left   map[reason]int
	}{
		{"room for all", size{6, 1 << 20}, one("m", "a", 3, "x", "y"), map[string]float64{"m_x": 3, "m_y": 3}, map[reason]int{}},
		{"the largest goes first", size{9, 1 << 20}, slices.Concat(one("m", "a", 2, "x", "y"), one("m", "b", 4, "x", "y")),
			map[string]float64{"m_x": 2, "m_y": 2, "m_overflow_listeners": 1}, map[reason]int{folded: 8}},
		{"then the next", size{3, 1 << 20}, slices.Concat(one("m", "a", 2, "x", "y"), one("m", "b", 4, "x", "y")),
			map[string]float64{"m_overflow_listeners": 2}, map[reason]int{folded: 12}},
		{"by bytes too", size{100, 500}, slices.Concat(one("m", "a", 2, "x", "y"), one("m", "b", 4, "x", "y")),
			map[string]float64{"m_x": 2, "m_y": 2, "m_overflow_listeners": 1}, map[reason]int{folded: 8}},
		{"without a user", size{5, 1 << 20}, slices.Concat(one("m", "", 6, "x"), one("n", "a", 5, "x")),
			map[string]float64{"n_x": 5}, map[reason]int{folded: 6}},
		{"no room for one each", size{2, 1 << 20}, slices.Concat(one("m", "a", 2, "x"), one("m", "b", 2, "x"), one("m", "c", 2, "x"), one("m", "d", 2, "x")),
			map[string]float64{"m_overflow_listeners": 2}, map[reason]int{folded: 10}},
		{"no gain in folding one", size{1, 1 << 20}, slices.Concat(one("m", "a", 1, "x"), one("m", "b", 1, "x")),
			map[string]float64{"m_x": 1}, map[reason]int{folded: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, p := textOf(t, test.room, batch("a", test.points...))
			series := map[string]float64{}
			for name, f := range families(t, got) {
				series[name] = float64(len(f.Metric))
			}
			if diff := cmp.Diff(test.want, series); diff != "" {
				t.Errorf("series (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.left, counts(p.leftOut)); diff != "" {
				t.Errorf("left out (-want +got):\n%s", diff)
			}
			if len(got) > test.room.bytes || p.series > test.room.series {
				t.Errorf("%d series, %d bytes: no room for them in %v", p.series, len(got), test.room)
			}
		})
	}
}

func TestO23BelowWhatScrapersTake(t *testing.T) {
	long := strings.Repeat("\\\"\n", 200) // each byte is two on the page
	var points []metric.Point
	for u := range 20 {
		for i := range 50 {
			p := listener(i+1, long, "user-"+strconv.Itoa(u))
			p.Tags = metric.NewTags("address", "10.0.0."+strconv.Itoa(u), "port", strconv.Itoa(i+1), "process", long, "container", long+strconv.Itoa(i), "user", "user-"+strconv.Itoa(u))
			points = append(points, p)
		}
	}
	e, book := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", points...))
	const most = 16 << 20 // VictoriaMetrics' -promscrape.maxScrapeSize
	for _, accept := range []string{acceptText, acceptOpenMetrics, acceptProtobuf} {
		w := &discard{header: http.Header{}}
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept", accept)
		e.handler(board).ServeHTTP(w, r)
		if w.n >= most || accept != acceptProtobuf && w.n < most*3/4 {
			t.Errorf("%s: %d bytes; scrapers take %d", accept, w.n, most)
		}
	}
	page := bodyOf(t, get(t, e, board, "/metrics"))
	if !strings.Contains(page, "\ntcp_listen_overflow_listeners{") || !strings.Contains(page, "user-19") {
		t.Error("no overflow, or all of it")
	}
	if len(book.all()) != 1 {
		t.Errorf("logged %q", book.all())
	}
}
