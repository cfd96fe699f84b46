package push

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/push/pushtest"
)

// TestSlowAnswerEndsAtTheDeadline has a server whose answer never ends: it gets only the time
// that Push has, however the answer began.
func TestSlowAnswerEndsAtTheDeadline(t *testing.T) {
	t.Parallel()
	server := pushtest.NewServer(t)
	server.Does(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusForbidden)
		for i := range "you must not" {
			w.Write([]byte("you must not")[i : i+1])
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(time.Second):
			}
		}
	})
	out, _ := newOutput(t, to(server.URL))
	err := sendIn(t, out, 200*time.Millisecond, "m v=1i 1")
	if want := server.URL + ": 403 Forbidden: the answer is incomplete: context deadline exceeded"; fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
		t.Errorf("%s: error %v, want %s", pushtest.Kind(err), err, want)
	}
	server.Answers(http.StatusNoContent, "")
	if err := send(t, out, "m v=1i 1"); err != nil {
		t.Errorf("the next push: %v", err)
	}
}

// TestAnswersThatBreakOff: the status and the header of an incomplete answer count.
func TestAnswersThatBreakOff(t *testing.T) {
	server := pushtest.NewServer(t)
	for _, tt := range []struct {
		status     int
		kind, want string
	}{
		{status: 200, kind: "stored", want: "<nil>"},
		{status: 400, kind: "bisect", want: "URL: 400 Bad Request: the answer is incomplete: unexpected EOF (rejected)"},
		{status: 401, kind: "kept", want: "URL: 401 Unauthorized: the answer is incomplete: unexpected EOF"},
		{status: 413, kind: "too large", want: "URL: 413 Request Entity Too Large: the answer is incomplete: unexpected EOF (too large)"},
		{status: 503, kind: "after 7s", want: "URL: 503 Service Unavailable: the answer is incomplete: unexpected EOF (retry after 7s)"},
	} {
		server.Does(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(tt.status)
			w.Write([]byte("your records"))
		})
		out, _ := newOutput(t, to(server.URL))
		err := send(t, out, "1", "2")
		if diff := cmp.Diff([]string{tt.kind, tt.want}, []string{pushtest.Kind(err), strings.ReplaceAll(fmt.Sprint(err), server.URL, "URL")}); diff != "" {
			t.Errorf("%d (-want +got)\n%s", tt.status, diff)
		}
	}
}

// TestHugeErrorBodyIsNotReadWhole: of an error of a gigabyte, 64 KiB are read.
func TestHugeErrorBodyIsNotReadWhole(t *testing.T) {
	server := pushtest.NewServer(t)
	const size = 1 << 30
	sent := make(chan int, 1)
	server.Does(func(w http.ResponseWriter, _ *http.Request) {
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
	out, _ := newOutput(t, to(server.URL))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := send(t, out, "m v=1i 1")
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
	server := pushtest.NewServer(t)
	server.Answers(http.StatusNoContent, "", "X-Huge: "+strings.Repeat("x", 1<<20))
	out, _ := newOutput(t, to(server.URL))
	if err := send(t, out, "m v=1i 1"); pushtest.Kind(err) != "kept" {
		t.Errorf("error %v", err)
	}
}

// TestCompressedAnswers: a proxy compresses answers without being asked.
func TestCompressedAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("compresses 100 MB")
	}
	compress := func(text string) string {
		var b strings.Builder
		z := gzip.NewWriter(&b)
		z.Write([]byte(text))
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	message := `{"error":"no such field"}`
	bomb := compress(strings.Repeat("x", 100<<20))
	testAnswers(t, []answerTest{
		{name: "gzip", status: 400, headers: []string{"Content-Encoding: gzip"}, body: compress(message), kind: "bisect",
			err: "400 Bad Request: no such field (rejected)"},
		{name: "x-gzip", status: 400, headers: []string{"Content-Encoding: X-GZIP"}, body: compress(message), kind: "bisect",
			err: "400 Bad Request: no such field (rejected)"},
		{name: "nothing", status: 503, headers: []string{"Content-Encoding: gzip"}, kind: "kept", err: "503 Service Unavailable"},
		{name: "none after all", status: 403, headers: []string{"Content-Encoding: gzip"}, body: message, kind: "kept",
			err: "403 Forbidden: the answer is incomplete: gzip: gzip: invalid header"},
		{name: "cut", status: 403, headers: []string{"Content-Encoding: gzip"}, body: compress(message)[:30], kind: "kept",
			err: "403 Forbidden: the answer is incomplete: gzip: unexpected EOF"},
		{name: "100 MiB", status: 500, headers: []string{"Content-Encoding: gzip"}, body: bomb, kind: "kept",
			err: "500 Internal Server Error: " + strings.Repeat("x", 500) + "..."},
		{name: "another encoding", status: 403, headers: []string{"Content-Encoding: br"}, body: "?", kind: "kept",
			err: `403 Forbidden: the answer is incomplete: unknown content encoding "br"`},
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(400, "application/json", "", "", "", `{"error":{"message":"x"}}`, 3)
	f.Add(503, "text/html", "", "7", "Sun, 06 Nov 1994 08:49:37 GMT", "<html>", 1)
	f.Add(500, "", "gzip", "Sun, 06 Nov 1994 08:49:37 GMT", "x", "", 1)
	f.Add(307, "", "br", "", "", "http://elsewhere/?t=x", 1)
	f.Add(200, "", "", "", "", "", 1)
	f.Fuzz(func(t *testing.T, status int, contentType, encoding, retry, date, body string, records int) {
		const secret = "0123456789abcdef"
		o := to("http://127.0.0.1:1")
		o.Username, o.Password = "user", secret
		out, _ := newOutput(t, o)
		a := readResponse(&http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body + " " + secret)), Header: http.Header{
			"Content-Type": {contentType}, "Content-Encoding": {encoding}, "Retry-After": {retry}, "Date": {date}, "Location": {body}}})
		err := out.client.Classify(out.client.servers[0], a, max(records, 1))
		if (err == nil) != (status >= 200 && status < 300) {
			t.Fatalf("status %d: %v", status, err)
		}
		if err == nil {
			return
		}
		if strings.ContainsFunc(err.Error(), isControl) || len(err.Error()) > 4096 {
			t.Errorf("not one short line: %q", err)
		}
		if strings.HasSuffix(err.Error(), " "+secret) {
			t.Errorf("a secret is in %q", err)
		}
		if after, ok := errors.AsType[*plugin.RetryAfterError](err); ok && (after.Wait <= 0 || after.Wait > maxRetryAfter) {
			t.Errorf("wait %v", after.Wait)
		}
	})
}
