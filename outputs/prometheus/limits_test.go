package prometheus

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sockwatch/agent/plugin"
)

func TestO22TwoScrapers(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", listeners(200)...))
	url := "http://" + serve(t, e, board)[0].String() + "/metrics"
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 20 {
				r, err := http.Get(url)
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

func TestO22Head(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	url := "http://" + serve(t, e, boardOf(batch("tcp_listen", listeners(10)...)))[0].String()
	for _, path := range []string{"/metrics", "/", "/-/healthy", "/-/ready", "/sd/listeners"} {
		r, err := http.Head(url + path)
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := strconv.Atoi(r.Header.Get("Content-Length")); r.StatusCode != 200 || n == 0 || bodyOf(t, r) != "" {
			t.Errorf("HEAD %s: status %d, headers %v", path, r.StatusCode, r.Header)
		}
	}
}

// exchange writes a raw request and returns the answer; the connection must be
// closed behind it.
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

func TestO22PostAndOtherBodies(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	addr := serve(t, e, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))[0]
	for _, test := range []struct {
		request string
		want    int
	}{
		// The bodies that are announced never come: nobody may wait for them.
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

func TestO22SlowClients(t *testing.T) {
	e, book := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", listeners(2000)...))
	addr := serve(t, e, board)[0]
	// All but one of the places are taken by clients that read nothing.
	for range maxRequests - 1 {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.(*net.TCPConn).SetReadBuffer(4 << 10)
		io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	for len(e.slots) < maxRequests-1 {
		time.Sleep(time.Millisecond)
	}
	scrape := func() *http.Response {
		r, err := http.Get("http://" + addr.String() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	board.publish(batch("tcp_listen", listener(80, "nginx", "root")))
	if r := scrape(); r.StatusCode != 200 || strings.Count(bodyOf(t, r), "\ntcp_listen_sockets{") != 1 {
		t.Errorf("status %d beside slow clients", r.StatusCode)
	}
	for len(e.slots) > maxRequests-1 { // until the place of that scrape is free again
		time.Sleep(time.Millisecond)
	}
	e.slots <- struct{}{}
	if r := scrape(); r.StatusCode != 503 || r.Header.Get("Retry-After") != "1" || bodyOf(t, r) != "16 requests are being answered\n" {
		t.Errorf("status %d without a place", r.StatusCode)
	}
	if r, err := http.Get("http://" + addr.String() + "/-/healthy"); err != nil || r.StatusCode != 200 {
		t.Errorf("health without a place: %v, %v", r, err)
	}
	<-e.slots
	if page := bodyOf(t, scrape()); !strings.Contains(page, "\n"+ownName+"_refused_requests_total 1\n") {
		t.Error("what was refused is not counted")
	}
	if len(book.all()) > 0 {
		t.Errorf("slow clients are logged: %q", book.all())
	}
}

// TestSlowClientsAreCut: in the time of a synctest bubble, over pipes.
func TestSlowClientsAreCut(t *testing.T) {
	for _, test := range []struct {
		name, request string
		want          time.Duration
	}{
		{"no request", "", readHeaderTimeout},
		{"half a header", "GET /metrics HTTP/1.1\r\nHost:", readHeaderTimeout},
		{"reads nothing", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", writeTimeout + time.Second},
		{"stays idle", "GET /none HTTP/1.1\r\nHost: x\r\n\r\n", idleTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pipes := make(pipeListener)
				o := Defaults()
				e, err := newEndpoint(o, plugin.Env{Listen: func(context.Context, string, string) (net.Listener, error) { return pipes, nil }})
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

func TestConnectionsAreLimited(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner, make(chan struct{}, 2))
	accepted := make(chan net.Conn)
	failed := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				failed <- err
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		c, err := net.Dial("tcp", inner.Addr().String()) // the kernel takes it
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, second := <-accepted, <-accepted
	select {
	case <-accepted:
		t.Fatal("a third connection has a place")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	first.Close() // gives its place back once
	third := <-accepted
	select {
	case <-accepted:
		t.Fatal("a fourth connection has a place")
	default:
	}
	l.Close()
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept gives %v", err)
	}
	second.Close()
	third.Close()
}

func TestGatherOnScrape(t *testing.T) {
	for _, test := range []struct {
		header string
		want   time.Duration
	}{
		{"", 9500 * time.Millisecond},
		{"10", 9500 * time.Millisecond},
		{"30.5", 30 * time.Second},
		{"0.5", 250 * time.Millisecond},
		{"100000", maxGather - 500*time.Millisecond},
		{"1e300", maxGather - 500*time.Millisecond},
		{"+Inf", maxGather - 500*time.Millisecond},
		{"NaN", 9500 * time.Millisecond},
		{"-1", 9500 * time.Millisecond},
		{"soon", 9500 * time.Millisecond},
	} {
		t.Run(test.header, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, _ := newTestEndpoint(t, func(o *Options) {
					o.GatherOnScrape, o.MinAge = true, plugin.Duration(3*time.Second)
				})
				board := boardOf(batch("a", point("m", 1)))
				board.refresh = func(ctx context.Context, maxAge time.Duration) error {
					if maxAge != 3*time.Second {
						t.Errorf("Refresh with %v, want min_age", maxAge)
					}
					<-ctx.Done()
					return ctx.Err()
				}
				start := time.Now()
				page := bodyOf(t, get(t, e, board, "/metrics", "X-Prometheus-Scrape-Timeout-Seconds", test.header))
				if took := time.Since(start); took != test.want {
					t.Errorf("answered after %v, want %v", took, test.want)
				}
				if gatheredPart(page) != "# TYPE m untyped\nm 1\n" {
					t.Errorf("a late gather leaves %q", gatheredPart(page))
				}
			})
		})
	}
}

func TestGatherOnScrapeShowsTheMoment(t *testing.T) {
	e, _ := newTestEndpoint(t, func(o *Options) { o.GatherOnScrape = true })
	board := &fakeBoard{}
	gathers := 0.0
	board.refresh = func(context.Context, time.Duration) error {
		gathers++
		board.publish(batch("a", point("m", gathers)))
		return nil
	}
	for _, want := range []string{"m 1\n", "m 2\n"} { // also at the first, of an empty board
		if page := gatheredPart(bodyOf(t, get(t, e, board, "/metrics"))); page != "# TYPE m untyped\n"+want {
			t.Errorf("page %q, want %q", page, want)
		}
	}
	bodyOf(t, get(t, e, board, "/sd/listeners"))
	bodyOf(t, get(t, e, board, "/"))
	if gathers != 2 {
		t.Errorf("%v gathers, want 2", gathers)
	}
}
