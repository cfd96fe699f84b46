package influxdb

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
)

// TestSlowAnswerEndsAtTheDeadline has a server whose answer never ends: it gets only the time
// that Push has, however the answer began.
func TestSlowAnswerEndsAtTheDeadline(t *testing.T) {
	server := newFake(t)
	server.does(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusBadRequest)
		for i := range "unable to parse 'x'" {
			w.Write([]byte("unable to parse 'x'")[i : i+1])
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(time.Second):
			}
		}
	})
	out, _ := newOutput(t, v1(server.URL))
	err := pushIn(t, out, 200*time.Millisecond)
	if want := server.URL + ": 400 Bad Request: the answer is incomplete: context deadline exceeded"; fmt.Sprint(err) != want || kind(err) != "kept" {
		t.Errorf("%s: error %v, want %s", kind(err), err, want)
	}
	server.answers(http.StatusNoContent, "")
	if err := push(t, out, "m v=1i 1"); err != nil {
		t.Errorf("the next push: %v", err)
	}
}

// TestAnswersThatBreakOff: only the status and the header of an incomplete answer count.
func TestAnswersThatBreakOff(t *testing.T) {
	server := newFake(t)
	for _, tt := range []struct {
		status     int
		kind, want string
	}{
		{200, "kept", "200 OK: the answer is incomplete: unexpected EOF: this is not how InfluxDB answers a write: check urls"},
		{400, "kept", "400 Bad Request: the answer is incomplete: unexpected EOF"},
		{401, "kept", "401 Unauthorized: the answer is incomplete: unexpected EOF"},
		{413, "too large", "413 Request Entity Too Large: the answer is incomplete: unexpected EOF (too large)"},
		{503, "after 7s", "503 Service Unavailable: the answer is incomplete: unexpected EOF (retry after 7s)"},
	} {
		server.does(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(tt.status)
			w.Write([]byte("unable to parse"))
		})
		out, _ := newOutput(t, v1(server.URL))
		err := push(t, out, "m v=1i 1", "m v=2i 1")
		if diff := cmp.Diff([]string{tt.kind, server.URL + ": " + tt.want}, []string{kind(err), fmt.Sprint(err)}); diff != "" {
			t.Errorf("%d (-want +got)\n%s", tt.status, diff)
		}
	}
}

// TestHugeErrorBodyIsNotReadWhole: of an error of a gigabyte, 64 KiB are read.
func TestHugeErrorBodyIsNotReadWhole(t *testing.T) {
	server := newFake(t)
	const size = 1 << 30
	sent := make(chan int, 1)
	server.does(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		n, chunk := 0, []byte(strings.Repeat("x", 64<<10))
		for n < size {
			if _, err := w.Write(chunk); err != nil {
				break
			}
			n += len(chunk)
		}
		sent <- n
	})
	out, _ := newOutput(t, v1(server.URL))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := push(t, out, "m v=1i 1")
	runtime.ReadMemStats(&after)
	if want := server.URL + ": 500 Internal Server Error: " + strings.Repeat("x", 500) + "..."; fmt.Sprint(err) != want {
		t.Errorf("error %v", err)
	}
	if n := <-sent; n == size {
		t.Error("the server could send all of it")
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("%d bytes allocated for an answer of which 64 KiB are to be read", n)
	}
}

// TestHugeHeaderIsRefused does the same with a header.
func TestHugeHeaderIsRefused(t *testing.T) {
	server := newFake(t)
	server.answers(http.StatusNoContent, "", "X-Huge: "+strings.Repeat("x", 1<<20))
	out, _ := newOutput(t, v1(server.URL))
	if err := push(t, out, "m v=1i 1"); kind(err) != "kept" {
		t.Errorf("error %v", err)
	}
}

// TestCompressedAnswers: a proxy compresses answers without being asked.
func TestCompressedAnswers(t *testing.T) {
	compress := func(text string) string {
		var b strings.Builder
		z := gzip.NewWriter(&b)
		z.Write([]byte(text))
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	conflict := `{"error":"partial write: field type conflict dropped=1"}`
	bomb := compress(strings.Repeat("x", 100<<20))
	testAnswers(t, []answerTest{
		{name: "gzip", status: 400, headers: []string{"Content-Encoding: gzip"}, body: compress(conflict), kind: "bisect, others stored",
			err: "400 Bad Request: partial write: field type conflict dropped=1 (rejected)"},
		{name: "x-gzip", status: 400, headers: []string{"Content-Encoding: X-GZIP"}, body: compress(conflict), kind: "bisect, others stored",
			err: "400 Bad Request: partial write: field type conflict dropped=1 (rejected)"},
		{name: "nothing", status: 503, headers: []string{"Content-Encoding: gzip"}, kind: "kept", err: "503 Service Unavailable"},
		{name: "none after all", status: 400, headers: []string{"Content-Encoding: gzip"}, body: conflict, kind: "kept",
			err: "400 Bad Request: the answer is incomplete: gzip: gzip: invalid header"},
		{name: "cut", status: 400, headers: []string{"Content-Encoding: gzip"}, body: compress(conflict)[:30], kind: "kept",
			err: "400 Bad Request: the answer is incomplete: gzip: unexpected EOF"},
		{name: "100 MiB", status: 500, headers: []string{"Content-Encoding: gzip"}, body: bomb, kind: "kept",
			err: "500 Internal Server Error: " + strings.Repeat("x", 500) + "..."},
		{name: "another encoding", status: 400, headers: []string{"Content-Encoding: br"}, body: "?", kind: "kept",
			err: `400 Bad Request: the answer is incomplete: unknown content encoding "br"`},
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(400, "application/json", "", "", "", `{"error":"partial write: x dropped=1","data":[{"line_number":1,"error_message":"x"}]}`, 3)
	f.Add(503, "text/html", "", "7", "Sun, 06 Nov 1994 08:49:37 GMT", "<html>", 1)
	f.Add(500, "", "gzip", "Sun, 06 Nov 1994 08:49:37 GMT", "x", "dropped=", 1)
	f.Add(307, "", "br", "", "", `{"data":{}}`, 1)
	f.Add(400, "", "", "", "", "{\"error\":\"unable to parse 'm v=0i 0': x\\nunable to parse 'm v=2i 2': y", 3)
	f.Add(400, "", "", "", "", `{"message":"failed to parse line protocol:\nerror in line 2: x"}`, 3)
	f.Fuzz(func(t *testing.T, status int, contentType, encoding, retry, date, body string, n int) {
		o := v1("http://127.0.0.1:1")
		o.Username, o.Password = "user", "0123456789abcdef"
		out, _ := newOutput(t, o)
		resp := &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{
			"Content-Type": {contentType}, "Content-Encoding": {encoding}, "Retry-After": {retry}, "Date": {date}, "Location": {body}}}
		var records [][]byte
		for i := range min(max(n, 1), 100) {
			records = append(records, fmt.Appendf(nil, "m v=%di %d", i, i))
		}
		a := readAnswer(resp)
		err := out.classifier.classify(out.servers[0], &a, records)
		if (err == nil) != (status == http.StatusNoContent) {
			t.Fatalf("status %d: %v", status, err)
		}
		if err == nil {
			return
		}
		if strings.ContainsFunc(err.Error(), isControl) || len(err.Error()) > 4096 {
			t.Errorf("not one short line: %q", err)
		}
		switch err := err.(type) {
		case *plugin.RetryAfterError:
			if err.Wait <= 0 || err.Wait > maxRetryAfter {
				t.Errorf("wait %v", err.Wait)
			}
		case *plugin.RejectedError:
			if len(err.Records) == 0 {
				t.Error("a rejection of no record")
			}
			for i, reason := range err.Records {
				if i < 0 || i >= len(records) || reason == nil {
					t.Errorf("record %d of %d: %v", i, len(records), reason)
				}
			}
		}
	})
}
