package influxdb

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
)

const htmlType = "Content-Type: text/html"

// An answerTest is an answer to three records, and what it means.
type answerTest struct {
	name    string
	status  int
	body    string
	headers []string
	kind    string
	err     string // behind the server's name
}

// testAnswers lets a fake give each answer.
func testAnswers(t *testing.T, tests []answerTest) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := newFake(t)
			server.answers(tt.status, tt.body, tt.headers...)
			out, _ := newOutput(t, v1(server.URL))
			err := push(t, out, "m v=1i 1", "m v=2i 2", "m v=3i 3")
			if got := kind(err); got != tt.kind {
				t.Errorf("is %q, want %q", got, tt.kind)
			}
			if got, want := fmt.Sprint(err), server.URL+": "+tt.err; got != want {
				t.Errorf("error\n%q, want\n%q", got, want)
			}
			if n := len(server.took()); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
	}
}

// TestO1Stored holds that 204 is delivery, after one request.
func TestO1Stored(t *testing.T) {
	server := newFake(t)
	out, _ := newOutput(t, v1(server.URL))
	if err := push(t, out, "m v=1i 1", "m v=2i 2"); err != nil {
		t.Error(err)
	}
	if n := len(server.took()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// TestAnswers holds what each other answer means. Texts are those of InfluxDB 1.6,
// 2.7 and 3.
func TestAnswers(t *testing.T) {
	testAnswers(t, []answerTest{
		{"a web page", 200, "<html>", []string{htmlType}, "kept", "200 OK: a web page: no InfluxDB answers a write so: check urls"},
		{"an empty 200", 200, "", nil, "kept", "200 OK: no InfluxDB answers a write so: check urls"},
		{"202", 202, "", nil, "kept", "202 Accepted: no InfluxDB answers a write so: check urls"},

		{"O5: 1.x, a bad line among good ones", 400,
			`{"error":"partial write: unable to parse 'x': missing fields dropped=0"}`, nil, "others stored",
			"400 Bad Request: partial write: unable to parse 'x': missing fields dropped=0 (rejected)"},
		{"1.x, bad lines alone", 400, `{"error":"unable to parse 'x': missing fields"}`, nil, "rejected",
			"400 Bad Request: unable to parse 'x': missing fields (rejected)"},
		{"O6: 1.x, type conflict", 400,
			`{"error":"partial write: field type conflict: input field \"v\" on measurement \"m\" is type float, already exists as type integer dropped=1"}`, nil, "others stored",
			`400 Bad Request: partial write: field type conflict: input field "v" on measurement "m" is type float, already exists as type integer dropped=1 (rejected)`},
		{"O6: 1.x, beyond retention, all", 400, `{"error":"partial write: points beyond retention policy dropped=3"}`, nil, "all rejected",
			"400 Bad Request: partial write: points beyond retention policy dropped=3 (and 2 more rejected records)"},
		{"1.x, no database given", 400, `{"error":"database is required"}`, nil, "kept",
			"400 Bad Request: database is required: check the options"},
		{"O8: 1.x, no such database", 404, `{"error":"database not found: \"sockwatch\""}`, nil, "kept",
			`404 Not Found: database not found: "sockwatch": create database "sockwatch", or check urls`},
		{"O7: 1.x, unknown user", 401, `{"error":"authorization failed"}`, nil, "kept",
			"401 Unauthorized: authorization failed: check username and password"},
		{"O7: 1.x, no right", 403, `{"error":"\"u\" user is not authorized to write to database \"sockwatch\""}`, nil, "kept",
			`403 Forbidden: "u" user is not authorized to write to database "sockwatch": allow to write to database "sockwatch"`},

		{"2.x, a bad line", 400, `{"code":"invalid","message":"unable to parse 'x': missing fields"}`, nil, "rejected",
			"400 Bad Request: unable to parse 'x': missing fields (rejected)"},
		{"O6: 2.x, type conflict", 422,
			`{"code":"unprocessable entity","message":"failure writing points to database: partial write: field type conflict: x dropped=2"}`, nil, "others stored",
			"422 Unprocessable Entity: failure writing points to database: partial write: field type conflict: x dropped=2 (rejected)"},
		{"2.x, another 422", 422, `{"code":"unprocessable entity","message":"bucket is read only"}`, nil, "kept",
			"422 Unprocessable Entity: bucket is read only: check the options"},

		{"3.x, a list of lines", 400,
			`{"error":"partial write of line protocol occurred","data":[{"original_line":"x","line_number":2,"error_message":"no fields"}]}`, nil, "others stored",
			"400 Bad Request: partial write of line protocol occurred: line 2: no fields (rejected)"},
		{"3.x, every line", 400,
			`{"error":"partial write of line protocol occurred","data":[{"line_number":1,"error_message":"a"},{"line_number":2,"error_message":"b"},{"line_number":3,"error_message":"c"}]}`, nil, "all rejected",
			"400 Bad Request: partial write of line protocol occurred: line 1: a (and 2 more rejected records)"},
		{"3.x, one line and nothing stored", 400,
			`{"error":"parsing failed for write_lp endpoint","data":{"original_line":"x","line_number":1,"error_message":"no fields"}}`, nil, "rejected",
			"400 Bad Request: parsing failed for write_lp endpoint: line 1: no fields (rejected)"},
		{"3.x by the API of 2.x", 400, `{"code":"invalid","message":"failed to parse line protocol: errors encountered on line(s): 2"}`, nil, "rejected",
			"400 Bad Request: failed to parse line protocol: errors encountered on line(s): 2 (rejected)"},
		{"3.x, plain text", 400, "missing query parameter 'db'", nil, "kept",
			"400 Bad Request: missing query parameter 'db': check the options"},
		{"O9: 3.x, too large", 500, "max request size (10485760 bytes) exceeded", nil, "too large",
			"500 Internal Server Error: max request size (10485760 bytes) exceeded (too large)"},

		{"O9: too large", 413, `{"error":"Request Entity Too Large"}`, nil, "too large",
			"413 Request Entity Too Large: Request Entity Too Large (too large)"},
		{"O9: too large for a proxy", 413, "<html>", []string{htmlType}, "too large",
			"413 Request Entity Too Large: a web page (too large)"},
		{"a web page that speaks of points", 400, "<html>unable to parse", []string{htmlType}, "kept",
			"400 Bad Request: a web page: check the options"},
		{"a status beside it that speaks of points", 409, "unable to parse", nil, "kept", "409 Conflict: unable to parse"},
		{"a timeout of the server's own", 408, "", nil, "kept", "408 Request Timeout"},

		{"500", 500, `{"error":"timeout"}`, nil, "kept", "500 Internal Server Error: timeout"},
		{"502 of a proxy", 502, "<html>", []string{htmlType}, "kept", "502 Bad Gateway: a web page"},

		{"a hostile text is one line", 400, "a\nb\x1b[31m\x00c\xff", nil, "kept", "400 Bad Request: a b [31m c?: check the options"},
		{"a long text is cut", 500, strings.Repeat("é", 3000), nil, "kept", "500 Internal Server Error: " + strings.Repeat("é", 500) + "..."},
		{"JSON of another kind", 500, `["x"]`, nil, "kept", `500 Internal Server Error: ["x"]`},
		{"a number that is none", 400, `{"error":"partial write: x dropped=99999999999999999999"}`, nil, "others stored",
			"400 Bad Request: partial write: x dropped=99999999999999999999 (rejected)"},
	})
}

// TestO10RetryAfter holds every form of the header, and the cap of ten minutes.
func TestO10RetryAfter(t *testing.T) {
	testAnswers(t, []answerTest{
		{"429 without a time", 429, "", nil, "kept", "429 Too Many Requests"},
		{"429, seconds", 429, `{"message":"limit"}`, []string{"Retry-After: 7"}, "after 7s",
			"429 Too Many Requests: limit (to be tried again after 7s)"},
		{"503, seconds", 503, "", []string{"Retry-After:  120 "}, "after 2m0s", "503 Service Unavailable (to be tried again after 2m0s)"},
		{"503, IMF-fixdate, by the server's clock", 503, "",
			[]string{"Date: Sun, 06 Nov 1994 08:49:00 GMT", "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT"}, "after 37s",
			"503 Service Unavailable (to be tried again after 37s)"},
		{"503, RFC 850", 503, "",
			[]string{"Date: Sun, 06 Nov 1994 08:49:00 GMT", "Retry-After: Sunday, 06-Nov-94 08:49:37 GMT"}, "after 37s",
			"503 Service Unavailable (to be tried again after 37s)"},
		{"503, asctime", 503, "",
			[]string{"Date: Sun, 06 Nov 1994 08:49:00 GMT", "Retry-After: Sun Nov  6 08:49:37 1994"}, "after 37s",
			"503 Service Unavailable (to be tried again after 37s)"},
		{"a day is capped", 503, "", []string{"Retry-After: 86400"}, "after 10m0s", "503 Service Unavailable (to be tried again after 10m0s)"},
		{"more than an integer holds", 503, "", []string{"Retry-After: 99999999999999999999999"}, "after 10m0s",
			"503 Service Unavailable (to be tried again after 10m0s)"},
		{"a date far off", 503, "", []string{"Date: Sun, 06 Nov 1994 08:49:00 GMT", "Retry-After: Sun, 06 Nov 2094 08:49:37 GMT"}, "after 10m0s",
			"503 Service Unavailable (to be tried again after 10m0s)"},
		{"a date gone by", 503, "", []string{"Date: Sun, 06 Nov 1994 08:49:00 GMT", "Retry-After: Sun, 06 Nov 1994 08:48:00 GMT"}, "kept",
			"503 Service Unavailable"},
		{"zero, which must not spin", 429, "", []string{"Retry-After: 0"}, "kept", "429 Too Many Requests"},
		{"no time at all", 503, "", []string{"Retry-After: soon"}, "kept", "503 Service Unavailable"},
		{"a negative number", 503, "", []string{"Retry-After: -5"}, "kept", "503 Service Unavailable"},
		{"another that says when", 504, "", []string{"Retry-After: 3"}, "after 3s", "504 Gateway Timeout (to be tried again after 3s)"},
	})
}

// TestRejectedAlone is a rejection of a single record: it is always all of it.
func TestRejectedAlone(t *testing.T) {
	server := newFake(t)
	out, _ := newOutput(t, v1(server.URL))
	for _, body := range []string{"unable to parse 'x'", "partial write: field type conflict dropped=0"} {
		server.answers(http.StatusBadRequest, body)
		if got := kind(push(t, out, "m v=1i 1")); got != "all rejected" {
			t.Errorf("%q is %q", body, got)
		}
	}
}

// TestAdvice holds what is said of the other APIs.
func TestAdvice(t *testing.T) {
	v2, v3 := Defaults(), Defaults()
	v2.Organization, v2.Bucket = "o", "b"
	v3.Database, v3.API = "d", "v3"
	server := newFake(t)
	for _, tt := range []struct {
		options Options
		status  int
		want    string
	}{
		{v2, 401, "401 Unauthorized: check token"},
		{v2, 403, `403 Forbidden: allow to write to bucket "b" of organization "o"`},
		{v2, 404, `404 Not Found: create bucket "b" of organization "o", or check urls`},
		{v3, 401, "401 Unauthorized: check token"},
		{v3, 403, `403 Forbidden: allow to write to database "d"`},
		{v3, 404, `404 Not Found: create database "d", or check urls`},
	} {
		server.answers(tt.status, "")
		tt.options.URLs = []string{server.URL}
		out, _ := newOutput(t, tt.options)
		if got, want := fmt.Sprint(push(t, out, "m v=1i 1")), server.URL+": "+tt.want; got != want {
			t.Errorf("error\n%q, want\n%q", got, want)
		}
	}
}

// TestO4OneByteASecond is a server whose answer never ends: the time that Push has
// is all that it gets, whatever the answer began with.
func TestO4OneByteASecond(t *testing.T) {
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
	if want := server.URL + ": 400 Bad Request: the answer breaks off: context deadline exceeded"; fmt.Sprint(err) != want || kind(err) != "kept" {
		t.Errorf("%s: error %v, want %s", kind(err), err, want)
	}
	server.answers(http.StatusNoContent, "")
	if err := push(t, out, "m v=1i 1"); err != nil {
		t.Errorf("the next push: %v", err)
	}
}

// TestAnswersThatBreakOff mean what their status and header say alone.
func TestAnswersThatBreakOff(t *testing.T) {
	server := newFake(t)
	for _, tt := range []struct {
		status     int
		kind, want string
	}{
		{200, "kept", "200 OK: the answer breaks off: unexpected EOF: no InfluxDB answers a write so: check urls"},
		{400, "kept", "400 Bad Request: the answer breaks off: unexpected EOF"},
		{401, "kept", "401 Unauthorized: the answer breaks off: unexpected EOF"},
		{413, "too large", "413 Request Entity Too Large: the answer breaks off: unexpected EOF (too large)"},
		{503, "after 7s", "503 Service Unavailable: the answer breaks off: unexpected EOF (to be tried again after 7s)"},
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

// TestO13HugeErrorBody is an error of a gigabyte: 64 KiB of it are read.
func TestO13HugeErrorBody(t *testing.T) {
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

// TestHugeHeader is the same with a header.
func TestHugeHeader(t *testing.T) {
	server := newFake(t)
	server.answers(http.StatusNoContent, "", "X-Huge: "+strings.Repeat("x", 1<<20))
	out, _ := newOutput(t, v1(server.URL))
	if err := push(t, out, "m v=1i 1"); kind(err) != "kept" {
		t.Errorf("error %v", err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(400, "application/json", "", "", `{"error":"partial write: x dropped=1","data":[{"line_number":1,"error_message":"x"}]}`, 3)
	f.Add(503, "text/html", "7", "Sun, 06 Nov 1994 08:49:37 GMT", "<html>", 1)
	f.Add(500, "", "Sun, 06 Nov 1994 08:49:37 GMT", "x", "dropped=", 1)
	f.Add(307, "", "", "", `{"data":{}}`, 1)
	f.Fuzz(func(t *testing.T, status int, contentType, retry, date, body string, records int) {
		out, _ := newOutput(t, v1("http://127.0.0.1:1"))
		resp := &http.Response{StatusCode: status, Status: fmt.Sprint(status), Body: http.NoBody, Header: http.Header{
			"Content-Type": {contentType}, "Retry-After": {retry}, "Date": {date}, "Location": {body}}}
		resp.Body = readCloser{strings.NewReader(body)}
		err := out.judge(resp, records)
		if (err == nil) != (status == http.StatusNoContent) {
			t.Fatalf("status %d: %v", status, err)
		}
		if err == nil {
			return
		}
		if strings.ContainsFunc(err.Error(), isControl) || len(err.Error()) > 4096 {
			t.Errorf("not one short line: %q", err)
		}
		if after, ok := err.(*plugin.RetryAfterError); ok && (after.Wait <= 0 || after.Wait > maxRetryAfter) {
			t.Errorf("wait %v", after.Wait)
		}
	})
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }
