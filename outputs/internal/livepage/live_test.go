package livepage

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A changingBoard is a plugin.Board whose batches a test publishes.
type changingBoard struct {
	plugin.Board // nil: what a stream must not use, such as Refresh, panics

	mu      sync.Mutex
	latest  []*metric.Batch
	events  []metric.Point
	failed  error
	reads   int
	changed chan struct{}
}

func newChangingBoard() *changingBoard { return &changingBoard{changed: make(chan struct{})} }

func (b *changingBoard) Latest() []*metric.Batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reads++
	return b.latest
}

func (b *changingBoard) Events() []metric.Point {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.events
}

func (b *changingBoard) Sources() []plugin.SourceState {
	b.mu.Lock()
	defer b.mu.Unlock()
	return []plugin.SourceState{{Name: "listeners", Gathered: len(b.latest) > 0 || b.failed != nil, Err: b.failed}}
}

func (b *changingBoard) Health() plugin.Health { return plugin.Health{} }

func (b *changingBoard) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// publish is a gather: minute is its time, ports are those that listen.
func (b *changingBoard) publish(minute int, ports ...int) {
	batch := &metric.Batch{Source: "listeners", Time: time.Date(2026, 11, 26, 12, minute, 0, 0, time.UTC)}
	for _, port := range ports {
		batch.Points = append(batch.Points, metric.Point{
			Name:   "tcp_listen",
			Tags:   metric.NewTags("address", "127.0.0.1", "port", fmt.Sprint(port), "process", "web", "exposure", "loopback", "owner", "resolved"),
			Fields: []metric.Field{{Key: "pid", Value: metric.Int(int64(port) + 1000)}},
		})
	}
	b.change(func() { b.latest, b.failed = []*metric.Batch{batch}, nil })
}

func (b *changingBoard) change(do func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	do()
	close(b.changed)
	b.changed = make(chan struct{})
}

func newTestPage(board plugin.Board) *Page {
	p := New(Options{
		Hostname: "web1", Log: slog.New(slog.DiscardHandler), Trusted: func(*http.Request) bool { return true },
		Served: func(Kind) {}, Refused: func(Reason) {},
	}, board)
	p.live.times.pace = 0
	return p
}

// serve starts a server for a page.
func serve(t *testing.T, p *Page) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	t.Cleanup(p.End)
	return s
}

// A client reads a stream.
type client struct {
	t    *testing.T
	body io.Closer
	*bufio.Reader
}

func connect(t *testing.T, url string, header ...string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", resp.StatusCode)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return &client{t, resp.Body, bufio.NewReader(resp.Body)}
}

// message returns the next message as it was sent.
func (c *client) message() string {
	c.t.Helper()
	var b strings.Builder
	for {
		line, err := c.ReadString('\n')
		if err != nil {
			c.t.Fatalf("the stream has ended: %v", err)
		}
		b.WriteString(line)
		if line == "\n" {
			return b.String()
		}
	}
}

// update returns the next message, which is an update, and its id.
func (c *client) update() (u update, id string) {
	c.t.Helper()
	m := c.message()
	id, rest, _ := strings.Cut(strings.TrimPrefix(m, "id: "), "\n")
	_, data, ok := strings.Cut(rest, "event: update\nretry: 1000\ndata: ")
	if !ok {
		c.t.Fatalf("no update: %q", m)
	}
	if err := json.Unmarshal([]byte(data), &u); err != nil {
		c.t.Fatal(err)
	}
	return u, id
}

// rowID returns the id of the row of a port.
func rowID(p *Page, port int) string {
	for _, r := range p.snapshot().rows {
		if r.Address == fmt.Sprintf("127.0.0.1:%d", port) {
			return "r-" + r.ID
		}
	}
	return "no row"
}

func TestStreamBeginsWithEverything(t *testing.T) {
	board := newChangingBoard()
	board.publish(1, 80, 443)
	p := newTestPage(board)
	u, _ := connect(t, serve(t, p).URL+"/stream").update()
	want := []string{rowID(p, 80), rowID(p, 443)}
	if diff := cmp.Diff(want, u.Rows.Order); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	for _, id := range want {
		if html := u.Rows.Items[id]; !strings.HasPrefix(html, `<tr id="`+id+`"`) {
			t.Errorf("the row %s is %q", id, html)
		}
	}
	if !u.Full || !u.Whole || len(u.Parts) != len(parts) {
		t.Errorf("full %v, whole %v, %d parts", u.Full, u.Whole, len(u.Parts))
	}
}

// One viewer and nothing changing: each gather sends these bytes and nothing else.
func TestGatherWithoutChangesSendsAHeartbeatOnly(t *testing.T) {
	board := newChangingBoard()
	board.publish(1, 80)
	c := connect(t, serve(t, newTestPage(board)).URL+"/stream")
	c.update()
	for minute := 2; minute < 5; minute++ {
		board.publish(minute, 80)
		want := fmt.Sprintf("event: heartbeat\ndata: 2026-11-26T12:%02d:00Z\n\n", minute)
		if diff := cmp.Diff(want, c.message()); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}
	}
}

func TestUpdateHasOnlyWhatHasChanged(t *testing.T) {
	board := newChangingBoard()
	board.publish(1, 80, 443)
	p := newTestPage(board)
	c := connect(t, serve(t, p).URL+"/stream?sort=process")
	c.update()
	closed := rowID(p, 80)
	board.publish(2, 443, 8080)
	u, _ := c.update()
	opened := rowID(p, 8080)
	html, err := p.row(p.snapshot().byID[strings.TrimPrefix(opened, "r-")])
	if err != nil {
		t.Fatal(err)
	}
	want := update{
		Gathered: time.Date(2026, 11, 26, 12, 2, 0, 0, time.UTC),
		Whole:    true,
		Closed:   []string{closed},
		Rows:     &listUpdate{Order: []string{rowID(p, 443), opened}, Items: map[string]string{opened: string(html)}},
	}
	if diff := cmp.Diff(want, u); diff != "" {
		t.Errorf("update (-want +got):\n%s", diff)
	}
}

// A failed gather withdraws the listeners. Nobody knows whether they have closed.
func TestFailedGatherClosesNothing(t *testing.T) {
	board := newChangingBoard()
	board.publish(1, 80)
	c := connect(t, serve(t, newTestPage(board)).URL+"/stream")
	c.update()
	board.change(func() { board.latest, board.failed = nil, fmt.Errorf("netlink: refused") })
	u, _ := c.update()
	if u.Closed != nil || u.Whole || len(u.Rows.Order) != 0 || u.Parts["messages"] == "" {
		t.Errorf("closed %q, whole %v, rows %q, messages %q", u.Closed, u.Whole, u.Rows.Order, u.Parts["messages"])
	}
}

// A listener that max_listeners leaves out is still open.
func TestListenersBeyondTheLimitAreNotClosed(t *testing.T) {
	board := newChangingBoard()
	board.publish(1, 80)
	c := connect(t, serve(t, newTestPage(board)).URL+"/stream")
	c.update()
	board.change(func() {
		board.latest = []*metric.Batch{{Source: "listeners", Points: []metric.Point{beyondLimit("root", 1)}}}
	})
	if u, _ := c.update(); u.Closed != nil || u.Whole || len(u.Rows.Order) != 0 {
		t.Errorf("closed %q, whole %v, rows %q", u.Closed, u.Whole, u.Rows.Order)
	}
}

// Another owner is another row, but the address has not closed.
func TestAnotherOwnerClosesNothing(t *testing.T) {
	board := newChangingBoard()
	board.publish(1, 80)
	c := connect(t, serve(t, newTestPage(board)).URL+"/stream")
	c.update()
	owned := metric.Point{Name: "tcp_listen", Tags: metric.NewTags("address", "127.0.0.1", "port", "80", "process", "other"), Fields: []metric.Field{{Key: "pid", Value: metric.Int(1)}}}
	board.change(func() { board.latest = []*metric.Batch{{Source: "listeners", Points: []metric.Point{owned}}} })
	if u, _ := c.update(); u.Closed != nil || len(u.Rows.Order) != 1 || len(u.Rows.Items) != 1 {
		t.Errorf("closed %q, rows %v", u.Closed, u.Rows)
	}
}

func TestReaderThatHasEverythingGetsAHeartbeatFirst(t *testing.T) {
	board := newChangingBoard()
	board.publish(1, 80)
	url := serve(t, newTestPage(board)).URL + "/stream?q=port:80"
	first := connect(t, url)
	_, id := first.update()
	first.body.Close()
	const heartbeat = "event: heartbeat\ndata: 2026-11-26T12:01:00Z\n\n"
	if diff := cmp.Diff(heartbeat, connect(t, url, "Last-Event-ID", id).message()); diff != "" {
		t.Errorf("with Last-Event-ID (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(heartbeat, connect(t, url+"&have="+id).message()); diff != "" {
		t.Errorf("with have (-want +got):\n%s", diff)
	}
	if u, _ := connect(t, url, "Last-Event-ID", "1f").update(); !u.Full {
		t.Error("a reader with another version gets a part")
	}
}

func TestIdleStreamSendsHeartbeats(t *testing.T) {
	board := newChangingBoard()
	board.publish(1, 80)
	p := newTestPage(board)
	p.live.times.alive = time.Millisecond
	c := connect(t, serve(t, p).URL+"/stream")
	c.update()
	if got := c.message(); got != "event: heartbeat\ndata: 2026-11-26T12:01:00Z\n\n" {
		t.Errorf("message %q", got)
	}
}

// A password that is no longer valid does not keep a page current for ever.
func TestStreamEndsAfterItsLife(t *testing.T) {
	board := newChangingBoard()
	board.publish(1, 80)
	p := newTestPage(board)
	p.live.times.life = 10 * time.Millisecond
	c := connect(t, serve(t, p).URL+"/stream")
	c.update()
	if _, err := c.ReadByte(); err != io.EOF {
		t.Errorf("after its life: %v", err)
	}
}

// Without viewers nothing waits for changes, and nothing is rendered.
func TestNoViewersCostNothing(t *testing.T) {
	board := newChangingBoard()
	board.publish(1, 80)
	p := newTestPage(board)
	s := serve(t, p)
	c := connect(t, s.URL+"/stream")
	c.update()
	c.body.Close()
	await(t, "the stream ends", func() bool { p.live.mu.Lock(); defer p.live.mu.Unlock(); return p.live.open == 0 })
	if len(p.live.shared) != 0 {
		t.Errorf("%d frames are kept", len(p.live.shared))
	}
	await(t, "no goroutine waits", func() bool {
		stacks := make([]byte, 1<<20)
		return !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "livepage.(*live).wait")
	})
	board.mu.Lock()
	board.reads = 0
	board.mu.Unlock()
	board.publish(2, 80, 443)
	time.Sleep(10 * time.Millisecond)
	board.mu.Lock()
	defer board.mu.Unlock()
	if board.reads != 0 {
		t.Errorf("%d reads of the board", board.reads)
	}
}

func TestViewersOfOneQueryShareFrames(t *testing.T) {
	board := newChangingBoard()
	board.publish(1, 80)
	p := newTestPage(board)
	s := serve(t, p)
	a, b, other := connect(t, s.URL+"/stream?q=port:80"), connect(t, s.URL+"/stream?q=port:80&have=x"), connect(t, s.URL+"/stream")
	for _, c := range []*client{a, b, other} {
		c.update()
	}
	p.live.mu.Lock()
	defer p.live.mu.Unlock()
	if got := len(p.live.shared); got != 2 {
		t.Errorf("%d frames for two queries", got)
	}
}

func TestNinthStreamIsRefused(t *testing.T) {
	board := newChangingBoard()
	p := newTestPage(board)
	refused := make(chan Reason, 2)
	p.opts.Refused = func(why Reason) { refused <- why }
	s := serve(t, p)
	var clients []*client
	for i := range maxStreams {
		clients = append(clients, connect(t, fmt.Sprintf("%s/stream?q=%d", s.URL, i)))
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		r, err := http.NewRequest(method, s.URL+"/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "30" || method == http.MethodGet && string(body) != "too many live pages: 8 are open\n" {
			t.Errorf("%s: status %d, Retry-After %q, %q", method, resp.StatusCode, resp.Header.Get("Retry-After"), body)
		}
		if why := <-refused; why != RefusedBusy {
			t.Errorf("%s: counted as %q", method, why)
		}
	}
	clients[0].body.Close()
	await(t, "a slot is free", func() bool {
		resp, err := http.Head(s.URL + "/stream")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == 200
	})
}

func TestEndEndsEveryStream(t *testing.T) {
	board := newChangingBoard()
	p := newTestPage(board)
	s := serve(t, p)
	c := connect(t, s.URL+"/stream")
	c.update()
	p.End()
	p.End() // again: nothing happens
	if _, err := c.ReadByte(); err != io.EOF {
		t.Errorf("after End: %v", err)
	}
	// A stream that begins later ends after its first message.
	c = connect(t, s.URL+"/stream")
	c.update()
	if _, err := c.ReadByte(); err != io.EOF {
		t.Errorf("begun after End: %v", err)
	}
}

// A reader that never reads is cut off. What the kernel cannot take is one message, however
// often something changes.
func TestReaderThatNeverReadsIsDisconnected(t *testing.T) {
	t.Parallel()
	board := newChangingBoard()
	ports := make([]int, pageRows)
	for i := range ports {
		ports[i] = i + 1
	}
	board.publish(1, ports...)
	p := newTestPage(board)
	p.live.times.write = 100 * time.Millisecond
	// A unix socket holds little, so that the first message does not fit.
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: p, WriteTimeout: time.Hour}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-served })
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
	open := func() int { p.live.mu.Lock(); defer p.live.mu.Unlock(); return p.live.open }
	await(t, "the stream begins", func() bool { return open() == 1 })
	await(t, "it is cut off", func() bool { board.publish(2, ports[1:]...); return open() == 0 })
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, conn); err != nil || n > 1<<20 {
		t.Errorf("%d bytes were sent, %v", n, err)
	}
}

// The timeouts of a server are for single responses. A stream outlives them, and so does one
// of HTTP/2.
func TestStreamOutlivesTheTimeoutsOfTheServer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		http2 bool
	}{{name: "HTTP/1.1"}, {name: "HTTP/2", http2: true}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			board := newChangingBoard()
			board.publish(1, 80)
			p := newTestPage(board)
			p.live.times.write = 100 * time.Millisecond // for one message, not for the time between two
			s := httptest.NewUnstartedServer(p)
			s.Config.ReadTimeout, s.Config.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond
			s.EnableHTTP2 = test.http2
			s.StartTLS()
			t.Cleanup(s.Close)
			t.Cleanup(p.End)
			resp, err := s.Client().Get(s.URL + "/stream")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if (resp.ProtoMajor == 2) != test.http2 {
				t.Fatalf("protocol %s", resp.Proto)
			}
			c := &client{t, resp.Body, bufio.NewReader(resp.Body)}
			c.update()
			time.Sleep(500 * time.Millisecond)
			board.publish(2, 80, 443)
			c.update()
		})
	}
}

// Names are text in every fragment.
func TestHostileNamesAreTextInTheStream(t *testing.T) {
	board := newChangingBoard()
	const name = `<img src=x onerror=alert(1)>"'` + "\u2028</script>"
	board.change(func() {
		board.latest = []*metric.Batch{{Source: "listeners", Points: []metric.Point{{
			Name: "tcp_listen", Tags: metric.NewTags("address", "127.0.0.1", "port", "80", "process", name, "user", name, "unit", name, "netns", name),
			Fields: []metric.Field{{Key: "pid", Value: metric.Int(1)}},
		}}}}
	})
	c := connect(t, serve(t, newTestPage(board)).URL+"/stream")
	m := c.message()
	if strings.Contains(m, "<img") || strings.Contains(m, "</script") || strings.Count(m, "\n") != 5 {
		t.Errorf("message %q", m)
	}
}

// await waits until something holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// The module is small enough to be read, and has no dependency.
func TestModuleIsSmall(t *testing.T) {
	text, err := os.ReadFile("assets/page.js")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 400 {
		t.Errorf("%d lines, want at most 400", n)
	}
	if strings.Contains(string(text), "import ") {
		t.Error("it imports something")
	}
}

// BenchmarkGatherWithAViewer is what one gather of 5,000 listeners costs while one page is
// open and nothing has changed.
func BenchmarkGatherWithAViewer(b *testing.B) {
	board := newChangingBoard()
	ports := make([]int, 5000)
	for i := range ports {
		ports[i] = i + 1
	}
	p := newTestPage(board)
	key := viewKey{trusted: true}
	p.live.enter(key)
	board.publish(0, ports...)
	before, err := p.live.frame(p, key, board.Changed())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		board.publish(1, ports...)
		b.StartTimer()
		next, err := p.live.frame(p, key, board.Changed())
		if err != nil || next.content != before.content {
			b.Fatal("the page has changed: ", err)
		}
	}
}
