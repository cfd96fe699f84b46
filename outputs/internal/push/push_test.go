package push

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/push/pushtest"
)

// TestMain runs the tests, or is the child of TestProxyOfTheEnvironmentIsUsed, which
// pushes one line to the URL in envPushTo.
func TestMain(m *testing.M) {
	url := os.Getenv(envPushTo)
	if url == "" {
		flag.Set("test.parallel", "8") // the tests wait more than they compute; -parallel overrides it
		os.Exit(m.Run())
	}
	client, err := New(Config{URLs: []string{url}, Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		err = client.Push(context.Background(), &Request{Path: "write", Body: []byte("m v=1i 1\n"), Records: 1}, nil)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

const envPushTo = "SOCKWATCH_TEST_PUSH_TO"

// TestServersInTurn tries the URLs from the last one that worked.
func TestServersInTurn(t *testing.T) {
	a, b, c := pushtest.NewServer(t), pushtest.NewServer(t), pushtest.NewServer(t)
	out, _ := newOutput(t, to(a.URL, b.URL, c.URL))
	step := func(name, want string, wantA, wantB, wantC int) {
		t.Helper()
		err := send(t, out, "m v=1i 1")
		if got := fmt.Sprint(err); got != want {
			t.Errorf("%s: error\n%s, want\n%s", name, got, want)
		}
		if diff := cmp.Diff([]int{wantA, wantB, wantC}, []int{len(a.Took()), len(b.Took()), len(c.Took())}); diff != "" {
			t.Errorf("%s: requests (-want +got)\n%s", name, diff)
		}
	}
	step("all well", "<nil>", 1, 0, 0)
	a.Answers(500, "")
	step("the first fails", "<nil>", 1, 1, 0)
	step("the one that worked", "<nil>", 0, 1, 0)
	a.Answers(204, "")
	step("and goes on working", "<nil>", 0, 1, 0)
	b.Answers(503, "", "Retry-After: 60")
	c.Answers(429, "", "Retry-After: 5")
	step("round the end", "<nil>", 1, 1, 1)
	a.Answers(503, "", "Retry-After: 30")
	step("all say when: the first of it counts", a.URL+": 503 Service Unavailable (retry after 30s); "+
		b.URL+": 503 Service Unavailable (retry after 1m0s); "+
		c.URL+": 429 Too Many Requests (retry after 5s) (retry after 5s)", 1, 1, 1)
	a.Answers(500, "")
	err := send(t, out, "m v=1i 1")
	if got := pushtest.Kind(err); got != "kept" {
		t.Errorf("one does not say when: %q, want the agent's own backoff", got)
	}
	a.Took()
	b.Took()
	c.Took()
	a.Answers(400, "unable to parse 'x'")
	step("an answer about the points is not about the server",
		a.URL+": 400 Bad Request: unable to parse 'x'", 1, 0, 0)
}

// TestErrorsAboutRecordsEndTheTry: no other server gets records that one has judged.
func TestErrorsAboutRecordsEndTheTry(t *testing.T) {
	for _, tt := range []struct {
		name  string
		err   error
		calls int
	}{
		{name: "stored", calls: 1},
		{name: "rejected", err: fmt.Errorf("a: %w", plugin.ErrRejected), calls: 1},
		{name: "records that are named", err: plugin.RejectAll(1, errors.New("a: bad")), calls: 1},
		{name: "records that are not named", err: &plugin.PartialError{Rejected: 1, Err: errors.New("a: one is bad")}, calls: 1},
		{name: "too large", err: fmt.Errorf("a: %w", plugin.ErrTooLarge), calls: 1},
		{name: "any other", err: errors.New("a: down"), calls: 3},
		{name: "a time to retry", err: &plugin.RetryAfterError{Wait: 1, Err: errors.New("a: down")}, calls: 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, _ := newOutput(t, to("http://a", "http://b", "http://c"))
			calls := 0
			err := out.client.Try(t.Context(), func(context.Context, *Server) error {
				calls++
				return tt.err
			})
			if calls != tt.calls || pushtest.Kind(err) != pushtest.Kind(tt.err) {
				t.Errorf("%d calls, %v, want %d calls, %v", calls, err, tt.calls, tt.err)
			}
		})
	}
}

// TestAnswersAreClassifiedByTheOutput: its function gets every answer, and decides.
func TestAnswersAreClassifiedByTheOutput(t *testing.T) {
	server := pushtest.NewServer(t)
	out, _ := newOutput(t, to(server.URL))
	own := errors.New("the output's error")
	for _, status := range []int{200, 400, 415, 503} {
		server.Answers(status, "words", "X-Written: 3")
		var a *Response
		err := out.client.Push(t.Context(), &Request{Body: []byte("x"), Records: 1}, func(_ *Server, answer *Response) error {
			a = answer
			return own
		})
		if a == nil || a.Status != status || string(a.Body) != "words" || a.Header.Get("X-Written") != "3" || !errors.Is(err, own) {
			t.Errorf("%d: answer %+v, %v", status, a, err)
		}
	}
}

// TestTargets checks how the path and the query of a request are added to a URL.
func TestTargets(t *testing.T) {
	for _, tt := range []struct{ url, path, query, want string }{
		{url: "http://h", want: "http://h"},
		{url: "http://h/a/?x=y%20z", want: "http://h/a/?x=y%20z"},
		{url: "http://h", path: "write", query: "db=d", want: "http://h/write?db=d"},
		{url: "http://h/a/", path: "write", want: "http://h/a/write"},
		{url: "http://h/a%2Fb", path: "write", want: "http://h/a%2Fb/write"},
		{url: "http://h/a?x=y", path: "write", query: "db=d", want: "http://h/a/write?x=y&db=d"},
	} {
		out, _ := newOutput(t, to(tt.url))
		if got := out.client.servers[0].target(&Request{Path: tt.path, Query: tt.query}); got != tt.want {
			t.Errorf("%s with %q and %q: %s, want %s", tt.url, tt.path, tt.query, got, tt.want)
		}
	}
}

// TestHeadersOfARequest: those of the output are sent, and the configured ones take precedence.
func TestHeadersOfARequest(t *testing.T) {
	server := pushtest.NewServer(t)
	o := to(server.URL)
	o.Headers = map[string]string{"X-Two": "configured", "content-type": "text/x"}
	out, _ := newOutput(t, o)
	r := &Request{Method: "PUT", ContentType: "text/plain", Header: http.Header{"X-One": {"1"}, "x-two": {"2"}}, Records: 1}
	for range 2 {
		if err := out.client.Push(t.Context(), r, nil); err != nil {
			t.Fatal(err)
		}
		got := server.Took()[0]
		want := []string{"PUT", "1", "configured", "text/x", "sockwatch"}
		if diff := cmp.Diff(want, []string{got.Method, got.Header.Get("X-One"), got.Header.Get("X-Two"), got.ContentType, got.Header.Get("User-Agent")}); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

// TestRedirectIsNotFollowed: the redirect leads to another host, which must not see the token.
func TestRedirectIsNotFollowed(t *testing.T) {
	elsewhere := pushtest.NewServer(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		server := pushtest.NewServer(t)
		server.Answers(status, "", "Location: "+elsewhere.URL+"/write?token=x")
		o := to(server.URL)
		o.Token = "s3cret"
		out, _ := newOutput(t, o)
		err := send(t, out, "m v=1i 1")
		want := fmt.Sprintf("%s: %d %s: redirects to %s, and redirects are not followed: check urls", server.URL, status, http.StatusText(status), elsewhere.URL)
		if fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
			t.Errorf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
		}
	}
	if n := len(elsewhere.Took()); n > 0 {
		t.Errorf("%d requests elsewhere", n)
	}
}

// TestResetBeforeTheAnswer: the server accepts a request and resets the connection. The same
// records, with their times, are sent again.
func TestResetBeforeTheAnswer(t *testing.T) {
	server := pushtest.NewServer(t)
	server.Does(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	})
	out, _ := newOutput(t, to(server.URL))
	if err := send(t, out, "m v=1i 1", "m v=2i 2"); pushtest.Kind(err) != "kept" {
		t.Fatalf("error %v", err)
	}
	first := server.Took()
	server.Answers(http.StatusNoContent, "")
	if err := send(t, out, "m v=1i 1", "m v=2i 2"); err != nil {
		t.Fatal(err)
	}
	again := server.Took()
	if len(again) != 1 || len(first) == 0 || strings.Count(again[0].Body, "\n") != 2 {
		t.Fatalf("requests %v, then %v", first, again)
	}
	if diff := cmp.Diff(first[0], again[0], cmpopts.IgnoreFields(pushtest.Request{}, "Header")); diff != "" {
		t.Errorf("sent again (-first +again)\n%s", diff)
	}
}

// TestBlackHoleLeavesTimeForTheNextServer shares the time among the servers: one that does
// not answer leaves time for the next.
func TestBlackHoleLeavesTimeForTheNextServer(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a second")
	}
	t.Parallel()
	hole, server := pushtest.NewServer(t), pushtest.NewServer(t)
	hole.Does(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	out, _ := newOutput(t, to(hole.URL, server.URL))
	if err := sendIn(t, out, 2*time.Second, "m v=1i 1"); err != nil {
		t.Errorf("two servers: %v", err)
	}
	if n := len(server.Took()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	alone, _ := newOutput(t, to(hole.URL))
	err := sendIn(t, alone, 100*time.Millisecond, "m v=1i 1")
	if want := hole.URL + ": no answer within timeout: context deadline exceeded"; fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
		t.Errorf("alone: %s: %v, want %s", pushtest.Kind(err), err, want)
	}
}

// TestPushObeysContext cancels in the middle of a request.
func TestPushObeysContext(t *testing.T) {
	server := pushtest.NewServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	server.Does(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	out, _ := newOutput(t, to(server.URL))
	if err := out.Push(ctx, [][]byte{[]byte("m v=1i 1")}); err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("error %v", err)
	}
}

// TestNoServerKeepsThePoints: requests fail before there is an answer.
func TestNoServerKeepsThePoints(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	out, _ := newOutput(t, to(closed.URL))
	err := send(t, out, "m v=1i 1")
	addr := strings.TrimPrefix(closed.URL, "http://")
	if want := closed.URL + ": dial tcp " + addr + ": connect: connection refused"; fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
		t.Errorf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
	}

	garbage, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer garbage.Close()
	go func() {
		for {
			conn, err := garbage.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "SSH-2.0-OpenSSH\r\n")
			conn.Close()
		}
	}()
	out, _ = newOutput(t, to("http://"+garbage.Addr().String()))
	if err := send(t, out, "m v=1i 1"); pushtest.Kind(err) != "kept" {
		t.Errorf("another protocol: %s: %v", pushtest.Kind(err), err)
	}
}

// TestBodyIsNotReused: the server answers before it has read the body. The connection may
// still be sending it, so it must not become the body of the next request.
func TestBodyIsNotReused(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	o := to(server.URL)
	o.ContentEncoding = "identity"
	out, _ := newOutput(t, o)
	for range 20 { // the race detector reports a reuse
		if err := send(t, out, strings.Repeat("x", 1<<20)); concernsRecords(err) {
			t.Fatal(err)
		}
	}
}
