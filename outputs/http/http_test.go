package http

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest"
	"sockwatch/outputs/internal/push/pushtest"
)

// to returns options for a receiver at these URLs.
func to(urls ...string) Options {
	o := Defaults()
	o.URL = urls
	return o
}

// newOutput returns the output of options that must be valid, and its log.
func newOutput(t testing.TB, o Options) (*output, *pushtest.Log) {
	t.Helper()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	log := &pushtest.Log{}
	p, err := New(o, plugin.Env{Log: log.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	out := p.(*output)
	t.Cleanup(func() { out.Close() })
	return out, log
}

// event returns an event with a sequence.
func event(sequence int) metric.Point {
	return metric.Point{
		Name: "tcp_listen_event", Time: time.Unix(1795341600, int64(sequence)),
		Tags:   metric.NewTags("event", "opened", "port", "4444"),
		Fields: []metric.Field{{Key: "exe", Value: metric.String("/usr/bin/nc")}, {Key: "sequence", Value: metric.Int(int64(sequence))}},
	}
}

// encode returns the records of events with sequences from 1 to n.
func encode(t testing.TB, out *output, n int) [][]byte {
	t.Helper()
	var records [][]byte
	for i := range n {
		p := event(i + 1)
		r, err := out.Encode(nil, &p)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	return records
}

// send pushes with a timeout that only a fault exceeds.
func send(t testing.TB, out *output, records [][]byte) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return out.Push(ctx, records)
}

// object returns the event with a sequence as it is sent.
func object(sequence int) string {
	return fmt.Sprintf(`{"name":"tcp_listen_event","tags":{"event":"opened","port":"4444"},"fields":{"exe":"/usr/bin/nc","sequence":%d},"timestamp":"2026-11-22T10:00:00.00000000%dZ"}`, sequence, sequence)
}

// TestRequests checks what is sent for each option.
func TestRequests(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(o *Options)
		records int
		want    pushtest.Request
	}{
		{name: "lines", change: func(o *Options) {}, records: 2,
			want: pushtest.Request{Method: "POST", URL: "/", ContentType: "application/x-ndjson", Body: object(1) + "\n" + object(2) + "\n"}},
		{name: "an array", change: func(o *Options) { o.Format = "json_array" }, records: 2,
			want: pushtest.Request{Method: "POST", URL: "/", ContentType: "application/json", Body: "[" + object(1) + "," + object(2) + "]"}},
		{name: "an array of one", change: func(o *Options) { o.Format = "json_array" }, records: 1,
			want: pushtest.Request{Method: "POST", URL: "/", ContentType: "application/json", Body: "[" + object(1) + "]"}},
		{name: "an object", change: func(o *Options) { o.Format = "json_object" }, records: 1,
			want: pushtest.Request{Method: "POST", URL: "/", ContentType: "application/json", Body: object(1)}},
		{name: "PUT to a path with a query", change: func(o *Options) { o.Method, o.URL[0] = "PUT", o.URL[0]+"/a%2Fb?token=x&y=z" }, records: 1,
			want: pushtest.Request{Method: "PUT", URL: "/a%2Fb?token=x&y=z", ContentType: "application/x-ndjson", Body: object(1) + "\n"}},
		{name: "another type", change: func(o *Options) { o.Headers = map[string]string{"content-type": "application/stream+json"} }, records: 1,
			want: pushtest.Request{Method: "POST", URL: "/", ContentType: "application/stream+json", Body: object(1) + "\n"}},
		{name: "gzip", change: func(o *Options) { o.ContentEncoding = "gzip" }, records: 2,
			want: pushtest.Request{Method: "POST", URL: "/", Encoding: "gzip", ContentType: "application/x-ndjson", Body: object(1) + "\n" + object(2) + "\n"}},
		{name: "zstd", change: func(o *Options) { o.ContentEncoding, o.Format = "zstd", "json_array" }, records: 2,
			want: pushtest.Request{Method: "POST", URL: "/", Encoding: "zstd", ContentType: "application/json", Body: "[" + object(1) + "," + object(2) + "]"}},
		{name: "snappy", change: func(o *Options) { o.ContentEncoding = "snappy" }, records: 2,
			want: pushtest.Request{Method: "POST", URL: "/", Encoding: "snappy", ContentType: "application/x-ndjson", Body: object(1) + "\n" + object(2) + "\n"}},
		{name: "a user", change: func(o *Options) { o.Username, o.Password = "u", "p:w" }, records: 1,
			want: pushtest.Request{Method: "POST", URL: "/", Login: "Basic dTpwOnc=", ContentType: "application/x-ndjson", Body: object(1) + "\n"}},
		{name: "a token", change: func(o *Options) { o.Token = "t0k" }, records: 1,
			want: pushtest.Request{Method: "POST", URL: "/", Login: "Bearer t0k", ContentType: "application/x-ndjson", Body: object(1) + "\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := pushtest.NewServer(t)
			server.Answers(http.StatusOK, "ok")
			o := to(server.URL)
			tt.change(&o)
			out, log := newOutput(t, o)
			records := encode(t, out, tt.records)
			for range 2 {
				if err := send(t, out, records); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff([]pushtest.Request{tt.want, tt.want}, server.Took(), cmpopts.IgnoreFields(pushtest.Request{}, "Header")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if lines := log.Lines(); len(lines) > 0 {
				t.Errorf("logged %q", lines)
			}
		})
	}
}

// TestBodiesAreBounded: what the agent counts for a Push fits exactly when the body is as long
// as max_body. An object is always alone.
func TestBodiesAreBounded(t *testing.T) {
	for _, format := range []string{"json_lines", "json_array"} {
		server := pushtest.NewServer(t)
		o := to(server.URL)
		o.Format = format
		out, _ := newOutput(t, o)
		records := encode(t, out, 3)
		if err := send(t, out, records); err != nil {
			t.Fatal(err)
		}
		size := len(server.Took()[0].Body)
		counted := len(records) // as in plugin.Bounded
		for _, r := range records {
			counted += len(r)
		}
		out.options.MaxBody = plugin.Size(size)
		if out.MaxBytes() != counted {
			t.Errorf("%s: a body of %d bytes: MaxBytes() = %d, but the agent counts %d", format, size, out.MaxBytes(), counted)
		}
	}
	o := to("http://127.0.0.1:1")
	o.Format = "json_object"
	out, _ := newOutput(t, o)
	if got := out.MaxBytes(); got != 1 {
		t.Errorf("json_object: MaxBytes() = %d, want 1", got)
	}
	o.Format, o.MaxBody = "json_array", 1
	out, _ = newOutput(t, o)
	if got := out.MaxBytes(); got != 1 {
		t.Errorf("an array of 1 byte: MaxBytes() = %d, want 1", got)
	}
}

// TestAnswers checks what each status means for three records.
func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		kind   string
		err    string // after the server's name; "": none
	}{
		{status: 200, kind: "stored"},
		{status: 202, kind: "stored"},
		{status: 204, kind: "stored"},
		{status: 302, kind: "kept", err: "302 Found: redirects to another URL, and redirects are not followed: check url"},
		{status: 400, body: `{"error":{"message":"bad field"}}`, kind: "bisect", err: "400 Bad Request: bad field (rejected)"},
		{status: 401, kind: "kept", err: "401 Unauthorized: set username or token"},
		{status: 403, kind: "kept", err: "403 Forbidden: allow the login to write, or check url"},
		{status: 404, body: "no such hook", kind: "kept", err: "404 Not Found: no such hook: check url"},
		{status: 405, kind: "kept", err: "405 Method Not Allowed: check url and method"},
		{status: 408, kind: "kept", err: "408 Request Timeout"},
		{status: 409, body: "a duplicate", kind: "rejected [0 1 2], others stored", err: "409 Conflict: a duplicate (and 2 more rejected records)"},
		{status: 410, kind: "bisect", err: "410 Gone (rejected)"},
		{status: 413, kind: "too large", err: "413 Request Entity Too Large (too large)"},
		{status: 422, kind: "bisect", err: "422 Unprocessable Entity (rejected)"},
		{status: 429, kind: "kept", err: "429 Too Many Requests"},
		{status: 500, kind: "kept", err: "500 Internal Server Error"},
		{status: 501, kind: "rejected [0 1 2], others stored", err: "501 Not Implemented (and 2 more rejected records)"},
		{status: 503, kind: "kept", err: "503 Service Unavailable"},
	} {
		t.Run(fmt.Sprint(tt.status), func(t *testing.T) {
			server := pushtest.NewServer(t)
			server.Answers(tt.status, tt.body)
			o := to(server.URL)
			o.NonRetryableStatusCodes = []int{409, 501}
			out, _ := newOutput(t, o)
			err := send(t, out, encode(t, out, 3))
			want := "<nil>"
			if tt.err != "" {
				want = "URL: " + tt.err
			}
			got := []string{pushtest.Kind(err), strings.ReplaceAll(fmt.Sprint(err), server.URL, "URL")}
			if diff := cmp.Diff([]string{tt.kind, want}, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestNextURLIsTried: the first receiver is down.
func TestNextURLIsTried(t *testing.T) {
	down, up := pushtest.NewServer(t), pushtest.NewServer(t)
	down.Answers(http.StatusBadGateway, "")
	out, _ := newOutput(t, to(down.URL, up.URL))
	for range 2 {
		if err := send(t, out, encode(t, out, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]int{1, 2}, []int{len(down.Took()), len(up.Took())}); diff != "" {
		t.Errorf("requests (-want +got)\n%s", diff)
	}
}

// TestSecretOfAWebhookIsNotShown: the secret is in the URL, and the receiver quotes it.
func TestSecretOfAWebhookIsNotShown(t *testing.T) {
	server := pushtest.NewServer(t)
	server.Does(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no hook "+r.URL.String(), http.StatusNotFound)
	})
	out, _ := newOutput(t, to(server.URL+"/hooks/T0123456789ABCDEF?key=s3cret-s3cret-s3cret"))
	err := send(t, out, encode(t, out, 1))
	want := server.URL + ": 404 Not Found: no hook /hooks/[secret]?key=[secret]: check url"
	if fmt.Sprint(err) != want {
		t.Errorf("error\n%v, want\n%s", err, want)
	}
}

func TestConformance(t *testing.T) {
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			server := pushtest.NewServer(t)
			o := to(server.URL)
			o.Format = format
			plugintest.Pusher(t, Plugin, &o)
		})
	}
}
