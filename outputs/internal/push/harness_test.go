package push

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"sockwatch/outputs/internal/push/pushtest"
)

// options are those of an output under test.
type options struct {
	Options
	URLs            []string
	ContentEncoding string
}

// to returns options for servers at these URLs.
func to(urls ...string) options { return options{URLs: urls, ContentEncoding: "gzip"} }

// withToken returns options for a server at a URL, with a token in a file.
func withToken(url, tokenFile string) options {
	o := to(url)
	o.TokenFile = tokenFile
	return o
}

// An output is the smallest one that uses a Client.
type output struct {
	client     *Client
	compressor *Compressor
}

// newOutput returns the output of options that must be valid, and its log.
func newOutput(t testing.TB, o options) (*output, *pushtest.Log) {
	t.Helper()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	log := &pushtest.Log{}
	client, err := New(Config{URLs: o.URLs, URLOption: "urls", Options: o.Options, Log: log.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return &output{client, NewCompressor(o.ContentEncoding)}, log
}

// Push pushes lines.
func (o *output) Push(ctx context.Context, records [][]byte) error {
	body, err := o.compressor.Join(records, Lines)
	if err != nil {
		return err
	}
	return o.client.Push(ctx, &Request{
		Path: "write", Query: "db=d", ContentType: "text/plain", ContentEncoding: o.compressor.Encoding(), Body: body, Records: len(records),
	}, nil)
}

// send pushes with a timeout that only a fault exceeds.
func send(t testing.TB, out *output, records ...string) error {
	t.Helper()
	return sendIn(t, out, 30*time.Second, records...)
}

// sendIn pushes with a timeout.
func sendIn(t testing.TB, out *output, timeout time.Duration, records ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	var raw [][]byte
	for _, r := range records {
		raw = append(raw, []byte(r))
	}
	return out.Push(ctx, raw)
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

// within pushes a request with a timeout.
func within(t testing.TB, timeout time.Duration, out *output, r *Request) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return out.client.Push(ctx, r, nil)
}
