package prometheus

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/respond"
)

func TestTwoScrapers(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", listeners(200)...))
	url := "http://" + serve(t, e, board)[0].String() + "/metrics"
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 20 {
				r, err := testClient.Get(url)
				if err != nil {
					t.Error(err)
					return
				}
				if page := bodyOf(t, r); r.StatusCode != 200 || strings.Count(page, "\ntcp_listen_sockets{") != 200 {
					t.Errorf("status %d, %d bytes", r.StatusCode, len(page))
				}
			}
		})
	}
	for i := range 20 { // a gather never waits for them
		board.publish(batch("tcp_listen", append(listeners(200), point("m", float64(i)))...))
	}
	wg.Wait()
}

func TestHead(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	url := "http://" + serve(t, e, boardOf(batch("tcp_listen", listeners(10)...)))[0].String()
	for _, path := range []string{"/metrics", "/", "/-/healthy", "/-/ready", "/sd/listeners"} {
		r, err := testClient.Head(url + path)
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := strconv.Atoi(r.Header.Get("Content-Length")); r.StatusCode != 200 || n == 0 || bodyOf(t, r) != "" {
			t.Errorf("HEAD %s: status %d, headers %v", path, r.StatusCode, r.Header)
		}
	}
}

// exchange writes a raw request and returns the answer; the connection must be closed
// after it.
func exchange(t *testing.T, addr net.Addr, request string) *http.Response {
	t.Helper()
	c, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	b := bufio.NewReader(c)
	r, err := http.ReadResponse(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	bodyOf(t, r)
	if _, err := b.ReadByte(); err == nil {
		t.Errorf("%.20q: the connection stays open", request)
	}
	return r
}

func TestRequestsWithBodiesAreRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for bodies that never come")
	}
	t.Parallel()
	e, _ := newTestEndpoint(t, nil)
	addr := serve(t, e, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))[0]
	for _, test := range []struct {
		request string
		want    int
	}{
		// The announced bodies never come: nothing may wait for them.
		{"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", 405},
		{"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", 413},
		{"GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 413},
		{"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 431},
		{"GET /" + strings.Repeat("x", 64<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431},
		{"\x16\x03\x01\x02\x00 nonsense\r\n\r\n", 400},
	} {
		if r := exchange(t, addr, test.request); r.StatusCode != test.want {
			t.Errorf("%.60q: status %d, want %d", test.request, r.StatusCode, test.want)
		}
	}
}

// A slowReader is a client that reads nothing until it is released.
type slowReader struct {
	*httptest.ResponseRecorder
	waiting chan<- struct{}
	release <-chan struct{}
}

func (s *slowReader) Write(p []byte) (int, error) {
	s.waiting <- struct{}{}
	<-s.release
	return s.ResponseRecorder.Write(p)
}

// TestSlowReadersDelayNobody: there are more of them than concurrent answers, each
// with its own answer.
func TestSlowReadersDelayNobody(t *testing.T) {
	t.Parallel()
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", listener(80, "nginx", "root")))
	waiting, release := make(chan struct{}), make(chan struct{})
	readers := make([]*slowReader, 3*maxRequests)
	var wg sync.WaitGroup
	for i := range readers {
		readers[i] = &slowReader{ResponseRecorder: httptest.NewRecorder(), waiting: waiting, release: release}
		path := []string{"/metrics", sdPath, "/"}[i%3]
		wg.Go(func() { testHandler(e, board).ServeHTTP(readers[i], httptest.NewRequest(http.MethodGet, path, nil)) })
		next(t, waiting)
		board.publish(batch("tcp_listen", listener(80, "nginx", "root"), point("m", float64(i))))
	}
	for _, path := range []string{"/metrics", sdPath, "/"} {
		if r := get(t, e, board, path); r.StatusCode != 200 {
			t.Errorf("%s beside slow readers: status %d", path, r.StatusCode)
		}
	}
	close(release)
	wg.Wait()
	for i, r := range readers {
		if r.Code != 200 || r.Body.Len() == 0 {
			t.Errorf("slow reader %d: status %d, %d bytes", i, r.Code, r.Body.Len())
		}
	}
}

// TestSlowReadersAreDisconnectedAtTheMemoryLimit over a real connection, whose write
// ends with an error.
func TestSlowReadersAreDisconnectedAtTheMemoryLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("opens many connections")
	}
	e, _ := newTestEndpoint(t, nil)
	e.responder = respond.New(respond.Options{Log: e.env.Log, MaxRequests: maxRequests, MaxUnread: 1, Refused: e.own.refused.Inc})
	board := boardOf(batch("tcp_listen", listeners(benchListeners)...)) // more than sockets buffer
	addr := serve(t, e, board)[0]
	slow, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	slow.SetDeadline(time.Now().Add(time.Minute))
	slow.(*net.TCPConn).SetReadBuffer(256 << 10)
	if _, err := io.WriteString(slow, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(slow), nil) // the answer has begun
	if err != nil {
		t.Fatal(err)
	}
	if r, err := testClient.Get("http://" + addr.String() + sdPath); err != nil || r.StatusCode != 200 || len(bodyOf(t, r)) < 1000 {
		t.Errorf("a client beside the slow one: %v, %v", r, err)
	}
	if n, err := io.Copy(io.Discard, answer.Body); err == nil || n >= answer.ContentLength {
		t.Errorf("the slow client reads %d bytes of %d, %v", n, answer.ContentLength, err)
	}
}

// TestTooManyRequestsAtOnceAreRefused while others are being answered: the board keeps
// them waiting.
func TestTooManyRequestsAtOnceAreRefused(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", listener(80, "nginx", "root")))
	waiting, release := make(chan struct{}), make(chan struct{})
	busy := &waitingBoard{fakeBoard: board, waiting: waiting, release: release}
	var wg sync.WaitGroup
	for range maxRequests {
		wg.Go(func() {
			testHandler(e, busy).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", nil))
		})
		next(t, waiting)
	}
	for _, path := range []string{"/metrics", sdPath} {
		r := get(t, e, board, path)
		if body := bodyOf(t, r); r.StatusCode != 503 || r.Header.Get("Retry-After") != "1" || body != "16 requests are being answered\n" {
			t.Errorf("%s: status %d, %q", path, r.StatusCode, body)
		}
	}
	for _, path := range []string{"/-/healthy", "/-/ready"} {
		if r := get(t, e, board, path); r.StatusCode != 200 {
			t.Errorf("%s: status %d", path, r.StatusCode)
		}
	}
	close(release)
	wg.Wait()
	if page := bodyOf(t, get(t, e, board, "/metrics")); !strings.Contains(page, "\n"+ownName+"_refused_requests_total 2\n") {
		t.Error("refused requests are not counted")
	}
}

// A waitingBoard has its batches when it is released.
type waitingBoard struct {
	*fakeBoard
	waiting chan<- struct{}
	release <-chan struct{}
}

func (b *waitingBoard) Latest() []*metric.Batch {
	b.waiting <- struct{}{}
	<-b.release
	return b.fakeBoard.Latest()
}

// TestSlowClientsAreDisconnected in a synctest bubble, over pipes.
func TestSlowClientsAreDisconnected(t *testing.T) {
	for _, test := range []struct {
		name, request string
		want          time.Duration
	}{
		{"no request", "", readHeaderTimeout},
		{"half a header", "GET /metrics HTTP/1.1\r\nHost:", readHeaderTimeout},
		{"reads nothing", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", respond.WriteTimeout + time.Second},
		{"stays idle", "GET /none HTTP/1.1\r\nHost: x\r\n\r\n", idleTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pipes := make(pipeListener)
				o := Defaults()
				e, err := newEndpoint(o, plugin.Env{Log: slog.New(slog.DiscardHandler), Listen: func(context.Context, string, string) (net.Listener, error) { return pipes, nil }})
				if err != nil {
					t.Fatal(err)
				}
				if err := e.Listen(t.Context()); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				served := make(chan error, 1)
				go func() { served <- e.Serve(ctx, boardOf(batch("tcp_listen", listeners(10)...))) }()

				client, server := net.Pipe()
				pipes <- server
				io.WriteString(client, test.request)
				if test.want == idleTimeout {
					r, err := http.ReadResponse(bufio.NewReader(client), nil)
					if err != nil {
						t.Fatal(err)
					}
					bodyOf(t, r)
				}
				start := time.Now()
				ended := make(chan struct{})
				if test.name == "reads nothing" {
					time.Sleep(test.want)
				}
				go func() {
					io.Copy(io.Discard, client)
					close(ended)
				}()
				<-ended
				if took := time.Since(start).Round(time.Second); took != test.want {
					t.Errorf("cut after %v, want %v", took, test.want)
				}
				cancel()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A pipeListener accepts the ends of pipes that are sent to it.
type pipeListener chan net.Conn

func (p pipeListener) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipeListener) Close() error {
	defer func() { _ = recover() }() // closed twice
	close(p)
	return nil
}

func (pipeListener) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "pipe"} }
