package influxdb

import (
	"bytes"
	"compress/gzip"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
)

// TestMain runs the tests, or is the child of TestProxyOfTheEnvironmentIsUsed, which
// pushes one point to the URL in envPushTo.
func TestMain(m *testing.M) {
	url := os.Getenv(envPushTo)
	if url == "" {
		flag.Set("test.parallel", "8") // the tests wait more than they compute; -parallel overrides it
		os.Exit(m.Run())
	}
	out, err := New(v1(url), plugin.Env{Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		err = out.Push(context.Background(), [][]byte{[]byte("m v=1i 1")})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

const envPushTo = "SOCKWATCH_TEST_PUSH_TO"

// TestRequests checks what is sent to each API.
func TestRequests(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options func(o *Options)
		path    string // of the URL in the options
		url     string // as requested
		login   string
		plain   bool
	}{
		{name: "1.x", options: func(o *Options) { o.Database = "d b" }, url: "/write?db=d+b&precision=ns"},
		{name: "1.x with all", options: func(o *Options) {
			o.Database, o.RetentionPolicy, o.Username, o.Password = "d", "rp", "u", "p:w"
		}, url: "/write?db=d&precision=ns&rp=rp", login: "Basic dTpwOnc="},
		{name: "2.x", options: func(o *Options) { o.Organization, o.Bucket, o.Token = "o", "b", "t0k" },
			url: "/api/v2/write?bucket=b&org=o&precision=ns", login: "Token t0k"},
		{name: "3.x", options: func(o *Options) { o.Database, o.Token = "d", "t0k" },
			url: "/api/v3/write_lp?db=d&precision=nanosecond", login: "Bearer t0k"},
		{name: "3.x without a token", options: func(o *Options) { o.API, o.Database = "v3", "d" },
			url: "/api/v3/write_lp?db=d&precision=nanosecond"},
		{name: "behind a path", path: "/influx/", options: func(o *Options) { o.Database = "d" }, url: "/influx/write?db=d&precision=ns"},
		{name: "uncompressed", options: func(o *Options) { o.Database, o.ContentEncoding = "d", "identity" },
			url: "/write?db=d&precision=ns", plain: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newFake(t)
			o := Defaults()
			o.URLs = []string{server.URL + tt.path}
			tt.options(&o)
			out, log := newOutput(t, o)
			for range 2 {
				if err := push(t, out, "m v=1i 1", "m v=2i 2"); err != nil {
					t.Fatal(err)
				}
			}
			want := received{method: "POST", url: tt.url, login: tt.login, encoding: "gzip",
				contentType: "text/plain; charset=utf-8", lines: []string{"m v=1i 1\n", "m v=2i 2\n"}}
			if tt.plain {
				want.encoding = ""
			}
			if diff := cmp.Diff([]received{want, want}, server.took(), cmp.AllowUnexported(received{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if lines := log.lines(); len(lines) > 0 {
				t.Errorf("logged %q", lines)
			}
		})
	}
}

func TestMaxBytes(t *testing.T) {
	o := v1("http://127.0.0.1:1")
	o.MaxBody = 12345
	out, _ := newOutput(t, o)
	if got := out.MaxBytes(); got != 12345 {
		t.Errorf("MaxBytes() = %d, want 12345", got)
	}
}

// TestServersInTurn tries the URLs from the last one that worked.
func TestServersInTurn(t *testing.T) {
	a, b, c := newFake(t), newFake(t), newFake(t)
	out, _ := newOutput(t, v1(a.URL, b.URL, c.URL))
	step := func(name, want string, wantA, wantB, wantC int) {
		t.Helper()
		err := push(t, out, "m v=1i 1")
		if got := fmt.Sprint(err); got != want {
			t.Errorf("%s: error\n%s, want\n%s", name, got, want)
		}
		if diff := cmp.Diff([]int{wantA, wantB, wantC}, []int{len(a.took()), len(b.took()), len(c.took())}); diff != "" {
			t.Errorf("%s: requests (-want +got)\n%s", name, diff)
		}
	}
	step("all well", "<nil>", 1, 0, 0)
	a.answers(500, "")
	step("the first fails", "<nil>", 1, 1, 0)
	step("the one that worked", "<nil>", 0, 1, 0)
	a.answers(204, "")
	step("and goes on working", "<nil>", 0, 1, 0)
	b.answers(503, "", "Retry-After: 60")
	c.answers(429, "", "Retry-After: 5")
	step("round the end", "<nil>", 1, 1, 1)
	a.answers(503, "", "Retry-After: 30")
	step("all say when: the first of it counts", a.URL+": 503 Service Unavailable (retry after 30s); "+
		b.URL+": 503 Service Unavailable (retry after 1m0s); "+
		c.URL+": 429 Too Many Requests (retry after 5s) (retry after 5s)", 1, 1, 1)
	a.answers(500, "")
	err := push(t, out, "m v=1i 1")
	if got := kind(err); got != "kept" {
		t.Errorf("one does not say when: %q, want the agent's own backoff", got)
	}
	a.took()
	b.took()
	c.took()
	a.answers(400, "unable to parse 'x'")
	step("an answer about the points is none about the server",
		a.URL+": 400 Bad Request: unable to parse 'x'", 1, 0, 0)
}

// TestRedirectIsNotFollowed: the redirect leads to another host, which must not see the token.
func TestRedirectIsNotFollowed(t *testing.T) {
	elsewhere := newFake(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		server := newFake(t)
		server.answers(status, "", "Location: "+elsewhere.URL+"/write?token=x")
		o := Defaults()
		o.URLs, o.Database, o.Token = []string{server.URL}, "d", "s3cret"
		out, _ := newOutput(t, o)
		err := push(t, out, "m v=1i 1")
		want := fmt.Sprintf("%s: %d %s: redirects to %s, and redirects are not followed: check urls", server.URL, status, http.StatusText(status), elsewhere.URL)
		if fmt.Sprint(err) != want || kind(err) != "kept" {
			t.Errorf("%s: error\n%v, want\n%s", kind(err), err, want)
		}
	}
	if n := len(elsewhere.took()); n > 0 {
		t.Errorf("%d requests elsewhere", n)
	}
}

// TestResetBeforeTheAnswer: the server accepts a request and resets the connection. The same
// records, with their times, are sent again.
func TestResetBeforeTheAnswer(t *testing.T) {
	server := newFake(t)
	server.does(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	})
	out, _ := newOutput(t, v1(server.URL))
	records := encode(t, out, listener("nginx"), listener("sshd"))
	if err := out.Push(t.Context(), records); kind(err) != "kept" {
		t.Fatalf("error %v", err)
	}
	first := server.took()
	server.answers(http.StatusNoContent, "")
	if err := out.Push(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	again := server.took()
	if len(again) != 1 || len(first) == 0 || len(again[0].lines) != 2 {
		t.Fatalf("requests %v, then %v", first, again)
	}
	if diff := cmp.Diff(first[0], again[0], cmp.AllowUnexported(received{})); diff != "" {
		t.Errorf("sent again (-first +again)\n%s", diff)
	}
}

// TestBlackHoleLeavesTimeForTheNextServer shares the time among the servers: one that does
// not answer leaves time for the next.
func TestBlackHoleLeavesTimeForTheNextServer(t *testing.T) {
	t.Parallel()
	hole, server := newFake(t), newFake(t)
	hole.does(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	out, _ := newOutput(t, v1(hole.URL, server.URL))
	if err := pushIn(t, out, 2*time.Second); err != nil {
		t.Errorf("two servers: %v", err)
	}
	if n := len(server.took()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	alone, _ := newOutput(t, v1(hole.URL))
	err := pushIn(t, alone, 100*time.Millisecond)
	if want := hole.URL + ": context deadline exceeded"; fmt.Sprint(err) != want || kind(err) != "kept" {
		t.Errorf("alone: %s: %v, want %s", kind(err), err, want)
	}
}

// TestPushObeysContext cancels in the middle of a request.
func TestPushObeysContext(t *testing.T) {
	server := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	server.does(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	out, _ := newOutput(t, v1(server.URL))
	if err := out.Push(ctx, [][]byte{[]byte("m v=1i 1")}); err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("error %v", err)
	}
}

// TestNoServerKeepsThePoints: requests fail before there is an answer.
func TestNoServerKeepsThePoints(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	out, _ := newOutput(t, v1(closed.URL))
	err := push(t, out, "m v=1i 1")
	addr := strings.TrimPrefix(closed.URL, "http://")
	if want := closed.URL + ": dial tcp " + addr + ": connect: connection refused"; fmt.Sprint(err) != want || kind(err) != "kept" {
		t.Errorf("%s: error\n%v, want\n%s", kind(err), err, want)
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
	out, _ = newOutput(t, v1("http://"+garbage.Addr().String()))
	if err := push(t, out, "m v=1i 1"); kind(err) != "kept" {
		t.Errorf("another protocol: %s: %v", kind(err), err)
	}
}

// TestBodyIsNotReused: the server answers before it has read the body. The connection may
// still be sending it, so it must not become the body of the next request.
func TestBodyIsNotReused(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	o := v1(server.URL)
	o.ContentEncoding = "identity"
	out, _ := newOutput(t, o)
	for range 20 { // the race detector reports a reuse
		if err := push(t, out, strings.Repeat("x", 1<<20)); concernsRecords(err) {
			t.Fatal(err)
		}
	}
}

// BenchmarkPush compares Push with a bare loop of gzip and POST of the same lines to the
// same server. Push must be at least half as fast.
func BenchmarkPush(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := readBody(r); err != nil {
			b.Error(err)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	out, _ := newOutput(b, v1(server.URL))
	var records [][]byte
	bytes := 0
	for i := range 5000 {
		records = append(records, encode(b, out, listener(fmt.Sprint("process", i)))[0])
		bytes += len(records[i]) + 1
	}
	b.Run("push", func(b *testing.B) {
		b.SetBytes(int64(bytes))
		for b.Loop() {
			if err := out.Push(b.Context(), records); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare", func(b *testing.B) {
		b.SetBytes(int64(bytes))
		for b.Loop() {
			if err := barePost(server.URL, records); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// barePost is what ten lines of code would do.
func barePost(url string, records [][]byte) error {
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	for _, r := range records {
		z.Write(r)
		z.Write([]byte{'\n'})
	}
	z.Close()
	req, err := http.NewRequest(http.MethodPost, url, &body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Encoding", "gzip")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("%s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
