package otlp

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"

	"sockwatch/agent/plugin"
)

// partialSuccess returns the answer of a receiver that has accepted a request, but not
// everything in it.
func partialSuccess(rejected int64, message string) http.HandlerFunc {
	partial := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(rejected))
	partial = protowire.AppendString(protowire.AppendTag(partial, 2, protowire.BytesType), message)
	return protobuf(http.StatusOK, protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), partial))
}

// rpcStatus returns an answer with a google.rpc.Status.
func rpcStatus(code int, message string) http.HandlerFunc {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 3)
	return protobuf(code, protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), message))
}

func protobuf(code int, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.WriteHeader(code)
		w.Write(body)
	}
}

// many returns records of points with different values.
func many(t testing.TB, out *output, n int) (records [][]byte) {
	for i := range n {
		p := gauge("x", int64(i), "i", fmt.Sprint(i))
		p.Time = at.Add(time.Duration(i))
		records = append(records, encode(t, out, p)...)
	}
	return records
}

func TestAnswers(t *testing.T) {
	final := "out of order sample"
	for _, test := range []struct {
		name     string
		records  int
		answer   http.HandlerFunc
		want     string // the error without the URL
		rejected int    // how many records the error names
		partial  int    // how many it counts
		stored   int
		requests int // 0: 1; the first Push sends what is refused once more for each time
		is       error
	}{
		{name: "200", records: 2, stored: 2},
		{name: "202 with text", records: 2, answer: status(202, "ok"), stored: 2},
		{name: "204", records: 2, answer: status(204, ""), stored: 2},
		{name: "a warning", records: 2, answer: partialSuccess(0, "deprecated"), stored: 2},
		{name: "some rejected", records: 3, answer: partialSuccess(1, "bad name"), want: "URL: 200 OK: bad name: 1 of 3 data points or log records rejected", partial: 1, stored: 3},
		{name: "all rejected", records: 2, answer: partialSuccess(2, "bad name"), want: "URL: 200 OK: bad name (and 1 more rejected records)", rejected: 2, stored: 2},
		{name: "more than all rejected", records: 1, answer: partialSuccess(9, ""), want: "URL: 200 OK", rejected: 1, stored: 1},
		{name: "a negative number rejected", records: 1, answer: partialSuccess(-1, ""), stored: 1},
		{name: "a login portal", records: 1, answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, "<h1>Welcome</h1>")
		}, want: "metrics: URL: 200 OK: a web page: this is not how a receiver of OTLP answers: check metrics_url", stored: 1},
		{name: "400 for one", records: 1, answer: rpcStatus(400, "bad\nname"), want: "URL: 400 Bad Request: bad name", rejected: 1, is: plugin.ErrRejected},
		{name: "400 for several", records: 2, answer: rpcStatus(400, "bad name"), want: "metrics: URL: 400 Bad Request: bad name (rejected)", is: plugin.ErrRejected},
		{name: "text of a 400", records: 1, answer: status(400, "bad name"), want: "URL: 400 Bad Request: bad name", rejected: 1, is: plugin.ErrRejected},
		{name: "out of order", records: 3, answer: status(400, final), want: "URL: 400 Bad Request: out of order sample (and 2 more rejected records)", rejected: 3, requests: 5, is: plugin.ErrRejected},
		{name: "out of order, as octets with a quote for a length", records: 3, answer: func(w http.ResponseWriter, _ *http.Request) { // Mimir
			w.Header().Set("Content-Type", "application/octet-stream")
			w.WriteHeader(http.StatusBadRequest)
			w.Write(protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), fmt.Sprintf("%34s", "out of order sample")))
		}, want: "URL: 400 Bad Request: out of order sample (and 2 more rejected records)", rejected: 3, requests: 5, is: plugin.ErrRejected},
		{name: "401", records: 1, answer: rpcStatus(401, "who?"), want: "metrics: URL: 401 Unauthorized: who?: set username or token"},
		{name: "404", records: 1, answer: status(404, ""), want: "metrics: URL: 404 Not Found: check metrics_url"},
		{name: "413", records: 2, answer: rpcStatus(413, ""), want: "metrics: URL: 413 Request Entity Too Large (too large)", is: plugin.ErrTooLarge},
		{name: "500", records: 1, answer: rpcStatus(500, "disk full"), want: "metrics: URL: 500 Internal Server Error: disk full"},
		{name: "502", records: 1, answer: status(502, ""), want: "metrics: URL: 502 Bad Gateway"},
		{name: "504", records: 1, answer: status(504, ""), want: "metrics: URL: 504 Gateway Timeout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newReceiver(t)
			r.respond(test.answer)
			out, _ := newOutput(t, r, nil, nil)
			err := out.Push(t.Context(), many(t, out, test.records))
			got := ""
			if err != nil {
				got = strings.ReplaceAll(err.Error(), r.server.URL, "URL")
			}
			if got != test.want {
				t.Errorf("Push = %q, want %q", got, test.want)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("Push = %#v, want %v", err, test.is)
			}
			rejected, _ := errors.AsType[*plugin.RejectedError](err)
			if named := namedBy(rejected); named != test.rejected {
				t.Errorf("%d rejected records are named, want %d", named, test.rejected)
			}
			counted := 0
			if partial, ok := errors.AsType[*plugin.PartialError](err); ok {
				counted = partial.Rejected
			}
			if counted != test.partial {
				t.Errorf("%d rejected records are counted, want %d", counted, test.partial)
			}
			if n := len(r.values()); n != test.stored {
				t.Errorf("the receiver has accepted %d, want %d", n, test.stored)
			}
			if want := max(test.requests, 1); r.requests() != want {
				t.Errorf("%d requests, want %d", r.requests(), want)
			}
		})
	}
}

func namedBy(e *plugin.RejectedError) int {
	if e == nil {
		return 0
	}
	return len(e.Records)
}

// After a restart, requests are split by time until one of them is stored: those that are
// refused before may all have been stored before the restart.
func TestRequestsAreSplitUntilOneIsStored(t *testing.T) {
	r := newReceiver(t)
	out, _ := newOutput(t, r, nil, nil)
	var got []int
	push := func(answer http.HandlerFunc) {
		before := r.requests()
		r.respond(answer)
		out.Push(t.Context(), many(t, out, 3))
		got = append(got, r.requests()-before)
	}
	refuse := status(http.StatusBadRequest, "out of order sample")
	push(refuse)
	push(refuse)
	push(nil)
	push(refuse)
	// Of each refusal: the request, once more without the resource, and then three times.
	if diff := cmp.Diff([]int{5, 5, 1, 2}, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// A server that says the same in every answer is logged once.
func TestAWarningIsLoggedOnce(t *testing.T) {
	r := newReceiver(t)
	out, log := newOutput(t, r, nil, nil)
	for _, message := range []string{"deprecated", "deprecated", "slow"} {
		r.respond(partialSuccess(0, message))
		if err := out.Push(t.Context(), many(t, out, 1)); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{`level=WARN msg="warning from the receiver" kind=metrics answer="URL: 200 OK: deprecated"`, `level=WARN msg="warning from the receiver" kind=metrics answer="URL: 200 OK: slow"`}
	var got []string
	for line := range strings.Lines(log.String()) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		got = append(got, strings.ReplaceAll(rest, r.server.URL, "URL"))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Prometheus derives a series from the attributes of the resource. If it is out of order, the
// points are not: the receiver gets them without these attributes.
func TestPointsAreSentWithoutInfoIfTheirTimesAreRefused(t *testing.T) {
	r := newReceiver(t)
	out, _ := newOutput(t, r, nil, func(o *Options) { o.ResourceAttributes = map[string]string{"rack": "7"} })
	first := true
	r.respond(func(w http.ResponseWriter, _ *http.Request) {
		if first {
			http.Error(w, "out of order sample", http.StatusBadRequest)
		}
		first = false
	})
	for range 2 {
		if err := out.Push(t.Context(), many(t, out, 1)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, m := range r.metrics {
		var keys []string
		for _, a := range m.ResourceMetrics[0].Resource.Attributes {
			keys = append(keys, a.Key)
		}
		got = append(got, strings.Join(keys, " "))
	}
	want := []string{"service.instance.id service.name", "host.name rack service.instance.id service.name"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}

// A failure in the middle sends only the rest again, and what is rejected stays rejected.
func TestRequestsAreBoundedAndNotRepeated(t *testing.T) {
	r := newReceiver(t)
	out, _ := newOutput(t, r, nil, func(o *Options) { o.MaxBody = 1000 })
	records := many(t, out, 200)
	var sizes []int
	n := 0
	r.respond(func(w http.ResponseWriter, req *http.Request) {
		n++
		switch n {
		case 4:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2, 3: // the second time without the other attributes of the resource
			http.Error(w, "too old sample", http.StatusBadRequest)
		}
	})
	if err := out.Push(t.Context(), records); err == nil {
		t.Fatal("Push has not failed")
	}
	if n != 4 {
		t.Fatalf("%d requests until the failure, want 4", n)
	}
	err := out.Push(t.Context(), records)
	rejected, ok := errors.AsType[*plugin.RejectedError](err)
	if !ok || !rejected.OthersStored {
		t.Fatalf("Push = %v, want a RejectedError", err)
	}
	var want []string
	for i := range records {
		if reason := rejected.Records[i]; reason == nil {
			want = append(want, fmt.Sprint("x ", i))
		} else if want := r.server.URL + ": 400 Bad Request: too old sample"; reason.Error() != want {
			t.Errorf("record %d is rejected: %v, want %s", i, reason, want)
		}
	}
	if diff := cmp.Diff(want, r.values()); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
	if len(want) == len(records) || len(want) == 0 {
		t.Errorf("%d of %d records stored", len(want), len(records))
	}
	for _, m := range r.metrics {
		sizes = append(sizes, len(valuesOf(m)))
	}
	if len(sizes) < 5 {
		t.Errorf("requests of %v data points, want at least 5", sizes)
	}
}

// Rejected records that the server does not name are counted by the next Push that succeeds,
// even if this one fails.
func TestUnnamedRejectedRecordsAreCountedAfterAFailure(t *testing.T) {
	metrics, logs := newReceiver(t), newReceiver(t)
	out, _ := newOutput(t, metrics, logs, nil)
	metrics.respond(partialSuccess(1, "bad name"))
	logs.respond(status(503, ""))
	records := mixed(t, out, 0, 2)
	if err := out.Push(t.Context(), records); err == nil {
		t.Fatal("Push has not failed")
	}
	logs.respond(nil)
	partial, ok := errors.AsType[*plugin.PartialError](out.Push(t.Context(), records))
	if !ok || partial.Rejected != 1 {
		t.Fatalf("Push = %v, want one rejected record", partial)
	}
	if err := out.Push(t.Context(), mixed(t, out, 2, 3)); err == nil {
		t.Error("the next request is partial, too, but Push = nil")
	}
	metrics.respond(nil)
	if err := out.Push(t.Context(), mixed(t, out, 3, 4)); err != nil {
		t.Error(err)
	}
}
