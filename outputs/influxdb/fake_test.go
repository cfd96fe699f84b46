package influxdb

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A fake is a server that records every request and gives the answers that a test sets.
type fake struct {
	*httptest.Server

	mu       sync.Mutex
	answer   http.HandlerFunc
	requests []received
}

type received struct {
	method, url, login, encoding, contentType string
	lines                                     []string
}

// newFake starts a fake that answers 204.
func newFake(t testing.TB) *fake {
	t.Helper()
	f := &fake{}
	f.answers(http.StatusNoContent, "")
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusTeapot)
		return
	}
	f.mu.Lock()
	answer := f.answer
	f.requests = append(f.requests, received{
		method: r.Method, url: r.URL.String(), login: r.Header.Get("Authorization"), encoding: r.Header.Get("Content-Encoding"),
		contentType: r.Header.Get("Content-Type"), lines: slices.Collect(strings.Lines(string(body))),
	})
	f.mu.Unlock()
	answer(w, r)
}

func readBody(r *http.Request) ([]byte, error) {
	if r.Header.Get("Content-Encoding") != "gzip" {
		return io.ReadAll(r.Body)
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// answers makes the fake answer with a status, a body and headers ("Name: value").
func (f *fake) answers(status int, body string, headers ...string) {
	f.does(func(w http.ResponseWriter, _ *http.Request) {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
}

// does makes the fake answer with a handler, after the request's body has been read.
func (f *fake) does(answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// took returns the requests since the last call.
func (f *fake) took() []received {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.requests
	f.requests = nil
	return r
}

// A logBook is a logger's output.
type logBook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// lines returns what was logged, without times.
func (b *logBook) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var lines []string
	for line := range strings.Lines(b.buf.String()) {
		_, line, _ = strings.Cut(strings.TrimSuffix(line, "\n"), " ") // the time
		lines = append(lines, line)
	}
	return lines
}

// newOutput returns the output of options that must be valid, and its log.
func newOutput(t testing.TB, o Options) (*output, *logBook) {
	t.Helper()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	log := &logBook{}
	p, err := New(o, plugin.Env{Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	out := p.(*output)
	t.Cleanup(func() { out.Close() })
	return out, log
}

// v1 returns options for InfluxDB 1.x at these URLs.
func v1(urls ...string) Options {
	o := Defaults()
	o.URLs, o.Database = urls, "sockwatch"
	return o
}

// encode returns the records of points.
func encode(t testing.TB, out *output, points ...metric.Point) [][]byte {
	t.Helper()
	var records [][]byte
	for i := range points {
		r, err := out.Encode(nil, &points[i])
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	return records
}

// push pushes with a timeout that only a fault exceeds.
func push(t testing.TB, out *output, records ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var raw [][]byte
	for _, r := range records {
		raw = append(raw, []byte(r))
	}
	return out.Push(ctx, raw)
}

// pushIn pushes one record with a timeout that is supposed to expire.
func pushIn(t testing.TB, out *output, timeout time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return out.Push(ctx, [][]byte{[]byte("m v=1i 1")})
}

// kind names how the agent handles an error: "stored", "rejected [0 2]" with the
// indices of the records and perhaps ", others stored", "bisect" with the same, "too
// large", "after 5s", or "kept".
func kind(err error) string {
	after, isAfter := errors.AsType[*plugin.RetryAfterError](err)
	rejected, isRejected := errors.AsType[*plugin.RejectedError](err)
	switch {
	case err == nil:
		return "stored"
	case isRejected && len(rejected.Records) == 0:
		return "bisect, others stored"
	case isRejected && rejected.OthersStored:
		return fmt.Sprintf("rejected %v, others stored", slices.Sorted(maps.Keys(rejected.Records)))
	case isRejected:
		return fmt.Sprintf("rejected %v", slices.Sorted(maps.Keys(rejected.Records)))
	case errors.Is(err, plugin.ErrRejected):
		return "bisect"
	case errors.Is(err, plugin.ErrTooLarge):
		return "too large"
	case isAfter:
		return "after " + after.Wait.String()
	default:
		return "kept"
	}
}

// checkLogin answers 204 to one login, and repeats any other in its error.
func checkLogin(want string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != want {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, "I do not know %q", got)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// withoutPort replaces a fake's URL in a text.
func withoutPort(text, url string) string { return strings.ReplaceAll(text, url, "URL") }
