package prometheus

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sockwatch/agent/listen"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A fakeBoard is a plugin.Board that a test sets.
type fakeBoard struct {
	mu      sync.Mutex
	latest  []*metric.Batch
	sources []plugin.SourceState
	refresh func(ctx context.Context, maxAge time.Duration) error
	changed chan struct{} // closed and replaced at each change
}

func (b *fakeBoard) Latest() []*metric.Batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.latest
}

func (b *fakeBoard) Details(context.Context, string, *metric.Point) ([]plugin.DetailSection, error) {
	return nil, nil
}

func (b *fakeBoard) Refresh(ctx context.Context, maxAge time.Duration) error {
	if b.refresh == nil {
		return ctx.Err()
	}
	return b.refresh(ctx, maxAge)
}

func (b *fakeBoard) Sources() []plugin.SourceState {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sources
}

func (b *fakeBoard) Events() []metric.Point { return nil }

func (b *fakeBoard) Health() plugin.Health { return plugin.Health{} }

func (b *fakeBoard) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *fakeBoard) publish(batches ...*metric.Batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.latest = batches
	close(b.changed)
	b.changed = make(chan struct{})
}

func boardOf(batches ...*metric.Batch) *fakeBoard {
	return &fakeBoard{latest: batches, changed: make(chan struct{})}
}

// batch returns a batch of tcp_listen, or of another source with its Descs.
func batch(source string, points ...metric.Point) *metric.Batch {
	return &metric.Batch{Source: source, Time: time.Unix(1795341600, 0), Points: points, Descs: listenDescs}
}

// listenDescs document the fields of the tests' points, as tcp_listen does.
var listenDescs = []metric.Desc{
	{Name: "tcp_listen", Field: "sockets", Type: metric.Gauge, Unit: "sockets", Help: "Sockets of the listener"},
	{Name: "tcp_listen", Field: "processes", Type: metric.Gauge, Unit: "processes", Help: "Processes that hold the listener"},
	{Name: "tcp_listen", Field: "pid", Type: metric.Gauge, Unit: "pid", Help: "Process id of the named owner"},
	{Name: "tcp_listen", Field: "backlog", Type: metric.Gauge, Unit: "connections", Help: "Connections that wait for accept"},
	{Name: "tcp_listen", Field: "backlog_limit", Type: metric.Gauge, Unit: "connections", Help: "How many connections may wait for accept"},
	{Name: "tcp_listen", Field: "uid", Type: metric.Gauge, Unit: "uid", Help: "User id of the socket"},
	{Name: "tcp_listen", Field: "first_seen_time_seconds", Type: metric.Gauge, Unit: "Unix seconds", Help: "When the listener was first seen"},
	{Name: "tcp_listen", Field: "process_start_time_seconds", Type: metric.Gauge, Unit: "Unix seconds", Help: "When the named owner started"},
	{Name: "tcp_listen", Field: "exe", Unit: "", Help: "Executable of the named owner"},
	{Name: "tcp_listen_overflow", Field: "listeners", Type: metric.Gauge, Unit: "listeners", Help: "Listeners of the user without points of their own"},
	{Name: "tcp_listen_overflow", Field: "sockets", Type: metric.Gauge, Unit: "sockets", Help: "Sockets of these listeners"},
	{Name: "tcp_listen_overflow", Field: "backlog", Type: metric.Gauge, Unit: "connections", Help: "Connections that wait at these listeners"},
	{Name: "sockwatch_input", Field: "up", Type: metric.Gauge, Help: "Whether the last gather of the input gave a batch"},
	{Name: "sockwatch_input", Field: "gathers_total", Type: metric.Counter, Unit: "gathers", Help: "Gathers of the input that ended or timed out"},
	{Name: "custom_port_exporter", Field: "value", Type: metric.Untyped, Help: "port state description"},
}

// listener returns a point like those of tcp_listen.
func listener(port int, process, user string) metric.Point {
	return metric.Point{
		Name: "tcp_listen",
		Tags: metric.NewTags("address", "0.0.0.0", "port", strconv.Itoa(port), "family", "ipv4", "process", process,
			"user", user, "unit", process+".service", "exposure", "private", "owner", "resolved", "host", "web-1"),
		Fields: []metric.Field{
			{Key: "sockets", Value: metric.Int(1)},
			{Key: "processes", Value: metric.Int(2)},
			{Key: "pid", Value: metric.Int(1000 + int64(port))},
			{Key: "backlog", Value: metric.Int(0)},
			{Key: "backlog_limit", Value: metric.Int(4096)},
			{Key: "uid", Value: metric.Int(33)},
			{Key: "first_seen_time_seconds", Value: metric.Float(1795341600.25)},
			{Key: "process_start_time_seconds", Value: metric.Float(1795341500.5)},
			{Key: "exe", Value: metric.String("/usr/sbin/" + process)},
		},
	}
}

func point(name string, value float64, tags ...string) metric.Point {
	return metric.Point{Name: name, Tags: metric.NewTags(tags...), Fields: []metric.Field{{Key: "value", Value: metric.Float(value)}}}
}

// A logBook keeps log messages, one per line.
type logBook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func (l *logBook) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

// warnings returns the lines that are not mere information.
func (l *logBook) warnings() []string {
	return slices.DeleteFunc(l.all(), func(line string) bool { return strings.HasPrefix(line, "level=INFO") })
}

// logger logs into the book, without times.
func (l *logBook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// newTestEndpoint returns an endpoint that does not listen yet.
func newTestEndpoint(t testing.TB, change func(*Options)) (*endpoint, *logBook) {
	t.Helper()
	o := Defaults()
	o.Listen = plugin.Strings{"127.0.0.1:0"}
	o.PageHosts = plugin.Strings{"*.example", "example.com"} // of the requests of get and httptest
	if change != nil {
		change(&o)
	}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	book := &logBook{}
	e, err := newEndpoint(o, plugin.Env{Log: book.logger(), Hostname: "web-1", Name: "prometheus", Listen: new(listen.Sockets).Listen})
	if err != nil {
		t.Fatal(err)
	}
	return e.(*endpoint), book
}

// serve serves the endpoint until the test ends and returns the addresses.
func serve(t testing.TB, e *endpoint, board plugin.Board) []net.Addr {
	t.Helper()
	if err := e.Listen(t.Context()); err != nil {
		t.Fatalf("Listen: %v", err)
	}
	var addrs []net.Addr
	for _, l := range e.listeners {
		addrs = append(addrs, l.Addr())
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Serve(ctx, board) }()
	t.Cleanup(func() {
		cancel()
		if err := next(t, done); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return addrs
}

// testClient has a timeout longer than any busy machine needs.
var testClient = &http.Client{Timeout: time.Minute}

// get sends a request to the handler, without a network.
func get(t testing.TB, e *endpoint, board plugin.Board, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://web-1.example:8088"+path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	testHandler(e, board).ServeHTTP(w, r)
	return w.Result()
}

func bodyOf(t testing.TB, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// gatheredPart returns the lines of a text page that are not the program's own metrics.
func gatheredPart(page string) string {
	var lines []string
	for line := range strings.Lines(page) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") && !strings.HasPrefix(name, ownName) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// listeners returns n listeners with different ports and processes.
func listeners(n int) []metric.Point {
	points := make([]metric.Point, n)
	for i := range points {
		points[i] = listener(1+i%65535, "daemon-"+strconv.Itoa(i/10), "user-"+strconv.Itoa(i%50))
	}
	return points
}

// next receives a value, with a deadline longer than any busy machine needs.
func next[T any](t testing.TB, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(time.Minute):
		t.Fatal("nothing comes")
	}
	return v
}

// testHandler returns the handler of an endpoint that is not serving.
func testHandler(e *endpoint, board plugin.Board) http.Handler {
	h, _ := e.handler(board)
	return h
}
