package influxdb

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/push/pushtest"
)

const htmlType = "Content-Type: text/html"

// An answerTest is an answer to three records, and what it means.
type answerTest struct {
	name    string
	options func(url string) Options // nil: v1
	status  int
	headers []string
	body    string
	kind    string
	err     string // after the server's name
}

// testAnswers makes a fake give each answer.
func testAnswers(t *testing.T, tests []answerTest) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := pushtest.NewServer(t)
			server.Answers(tt.status, tt.body, tt.headers...)
			o := v1(server.URL)
			o.SkipDatabaseCreation = true
			if tt.options != nil {
				o = tt.options(server.URL)
			}
			out, _ := newOutput(t, o)
			err := send(t, out, "m v=1i 1", "m v=2i 2", "m v=3i 3")
			got := []string{pushtest.Kind(err), strings.ReplaceAll(fmt.Sprint(err), server.URL, "URL")}
			if diff := cmp.Diff([]string{tt.kind, "URL: " + tt.err}, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if n := len(server.Took()); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
	}
}

func v2Options(url string) Options {
	o := Defaults()
	o.URLs, o.Organization, o.Bucket = []string{url}, "o", "b"
	return o
}

func v3Options(url string) Options {
	o := Defaults()
	o.URLs, o.Database, o.API = []string{url}, "d", "v3"
	return o
}

func guessedV3Options(url string) Options {
	o := Defaults()
	o.URLs, o.Database, o.Token = []string{url}, "d", "t0k"
	return o
}

// TestNoContentIsDelivery also checks that there is only one request.
func TestNoContentIsDelivery(t *testing.T) {
	server := pushtest.NewServer(t)
	out, _ := newOutput(t, v1(server.URL))
	if err := send(t, out, "m v=1i 1", "m v=2i 2"); err != nil {
		t.Error(err)
	}
	if n := len(server.Took()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// TestAnswersThatAreNotInfluxDBs: the points stay queued.
func TestAnswersThatAreNotInfluxDBs(t *testing.T) {
	testAnswers(t, []answerTest{
		{name: "a web page", status: 200, headers: []string{htmlType}, body: "<html>", kind: "kept",
			err: "200 OK: a web page: this is not how InfluxDB answers a write: check urls"},
		{name: "an empty 200", status: 200, kind: "kept", err: "200 OK: this is not how InfluxDB answers a write: check urls"},
		{name: "202", status: 202, kind: "kept", err: "202 Accepted: this is not how InfluxDB answers a write: check urls"},
		{name: "a web page that speaks of points", status: 400, headers: []string{htmlType}, body: "<html>unable to parse", kind: "kept",
			err: "400 Bad Request: a web page: check the options"},
		{name: "502 of a proxy", status: 502, headers: []string{htmlType}, body: "<html>", kind: "kept", err: "502 Bad Gateway: a web page"},
		{name: "JSON of another kind", status: 500, body: `["x"]`, kind: "kept", err: `500 Internal Server Error: ["x"]`},
		{name: "a hostile text is one line", status: 400, body: "a\nb\x1b[31m\x00c\xff", kind: "kept",
			err: "400 Bad Request: a b [31m c?: check the options"},
		{name: "a long text is cut", status: 500, body: strings.Repeat("é", 3000), kind: "kept",
			err: "500 Internal Server Error: " + strings.Repeat("é", 500) + "..."},
	})
}

// TestAnswersOfInfluxDB1 has the texts of InfluxDB 1.6 and 1.8.
func TestAnswersOfInfluxDB1(t *testing.T) {
	testAnswers(t, []answerTest{
		{name: "a line that does not parse among good ones", status: 400,
			body: `{"error":"partial write: unable to parse 'm v=2i 2': missing fields dropped=0"}`, kind: "rejected [1], others stored",
			err: "400 Bad Request: unable to parse 'm v=2i 2': missing fields"},
		{name: "two lines that do not parse", status: 400,
			body: `{"error":"partial write: unable to parse 'm v=1i 1': missing fields\nunable to parse 'm v=3i 3': bad timestamp dropped=0"}`,
			kind: "rejected [0 2], others stored",
			err:  "400 Bad Request: unable to parse 'm v=1i 1': missing fields (and 1 more rejected records)"},
		{name: "a line that was not sent", status: 400,
			body: `{"error":"partial write: unable to parse 'm v=1i 1': missing fields\nunable to parse 'x': bad timestamp dropped=0"}`,
			kind: "rejected [0]", err: "400 Bad Request: unable to parse 'm v=1i 1': missing fields"},
		{name: "an unknown line", status: 400, body: `{"error":"unable to parse 'x': missing fields"}`, kind: "bisect",
			err: "400 Bad Request: unable to parse 'x': missing fields (rejected)"},
		{name: "type conflict", status: 400,
			body: `{"error":"partial write: field type conflict: input field \"v\" on measurement \"m\" is type float, already exists as type integer dropped=1"}`,
			kind: "bisect, others stored",
			err:  `400 Bad Request: partial write: field type conflict: input field "v" on measurement "m" is type float, already exists as type integer dropped=1 (rejected)`},
		{name: "all beyond retention", status: 400, body: `{"error":"partial write: points beyond retention policy dropped=3"}`,
			kind: "rejected [0 1 2], others stored",
			err:  "400 Bad Request: partial write: points beyond retention policy dropped=3 (and 2 more rejected records)"},
		{name: "a count beyond all integers", status: 400, body: `{"error":"partial write: x dropped=99999999999999999999"}`, kind: "bisect, others stored",
			err: "400 Bad Request: partial write: x dropped=99999999999999999999 (rejected)"},
		{name: "a count that a name holds", status: 400, body: `{"error":"partial write: tag \"dropped=9\" is too long"}`, kind: "bisect, others stored",
			err: `400 Bad Request: partial write: tag "dropped=9" is too long (rejected)`},
		{name: "no database given", status: 400, body: `{"error":"database is required"}`, kind: "kept",
			err: "400 Bad Request: database is required: check the options"},
		{name: "no such database", status: 404, body: `{"error":"database not found: \"sockwatch\""}`, kind: "kept",
			err: `404 Not Found: database not found: "sockwatch": create database "sockwatch", or check urls`},
		{name: "unknown user", status: 401, body: `{"error":"authorization failed"}`, kind: "kept",
			err: "401 Unauthorized: authorization failed: check username and password"},
		{name: "no right", status: 403, body: `{"error":"\"u\" user is not authorized to write to database \"sockwatch\""}`, kind: "kept",
			err: `403 Forbidden: "u" user is not authorized to write to database "sockwatch": allow writing to database "sockwatch"`},
		{name: "too large", status: 413, body: `{"error":"Request Entity Too Large"}`, kind: "too large",
			err: "413 Request Entity Too Large: Request Entity Too Large (too large)"},
		{name: "too large for a proxy", status: 413, headers: []string{htmlType}, body: "<html>", kind: "too large",
			err: "413 Request Entity Too Large: a web page (too large)"},
		{name: "timeout", status: 500, body: `{"error":"timeout"}`, kind: "kept", err: "500 Internal Server Error: timeout"},
		{name: "a status beside it that speaks of points", status: 409, body: "unable to parse", kind: "kept", err: "409 Conflict: unable to parse"},
		{name: "a timeout of the server's own", status: 408, kind: "kept", err: "408 Request Timeout"},
	})
}

// TestAnswersOfInfluxDB2 has the texts of InfluxDB 2.7.
func TestAnswersOfInfluxDB2(t *testing.T) {
	testAnswers(t, []answerTest{
		{name: "a line that does not parse: nothing is stored", options: v2Options, status: 400,
			body: `{"code":"invalid","message":"unable to parse 'm v=2i 2': missing fields"}`, kind: "rejected [1]",
			err: "400 Bad Request: unable to parse 'm v=2i 2': missing fields"},
		{name: "type conflict", options: v2Options, status: 422,
			body: `{"code":"unprocessable entity","message":"failure writing points to database: partial write: field type conflict: x dropped=2"}`, kind: "bisect, others stored",
			err: "422 Unprocessable Entity: failure writing points to database: partial write: field type conflict: x dropped=2 (rejected)"},
		{name: "all of type conflict", options: v2Options, status: 422,
			body: `{"code":"unprocessable entity","message":"failure writing points to database: partial write: field type conflict: x dropped=3"}`,
			kind: "rejected [0 1 2], others stored",
			err:  "422 Unprocessable Entity: failure writing points to database: partial write: field type conflict: x dropped=3 (and 2 more rejected records)"},
		{name: "type conflict as an internal error", options: v2Options, status: 500,
			body: `{"code":"internal error","message":"unexpected error writing points to database: engine: field type conflict"}`, kind: "bisect",
			err: "500 Internal Server Error: unexpected error writing points to database: engine: field type conflict (rejected)"},
		{name: "partial write as an internal error", options: v2Options, status: 500,
			body: `{"code":"internal error","message":"unexpected error writing points to database: [shard 1] partial write: field type conflict dropped=1"}`, kind: "bisect",
			err: "500 Internal Server Error: unexpected error writing points to database: [shard 1] partial write: field type conflict dropped=1 (rejected)"},
		{name: "an internal error", options: v2Options, status: 500,
			body: `{"code":"internal error","message":"unexpected error writing points to database: [shard 7] open x: too many open files"}`, kind: "kept",
			err: "500 Internal Server Error: unexpected error writing points to database: [shard 7] open x: too many open files"},
		{name: "an internal error with a name of ours", options: v2Options, status: 500,
			body: `{"code":"internal error","message":"panic at 'field type conflict'"}`, kind: "kept",
			err: "500 Internal Server Error: panic at 'field type conflict'"},
		{name: "another 422", options: v2Options, status: 422, body: `{"code":"unprocessable entity","message":"bucket is read only"}`, kind: "kept",
			err: "422 Unprocessable Entity: bucket is read only: check the options"},
		{name: "unknown token", options: v2Options, status: 401, kind: "kept", err: "401 Unauthorized: check token"},
		{name: "no right", options: v2Options, status: 403, kind: "kept", err: `403 Forbidden: allow writing to bucket "b" of organization "o"`},
		{name: "no such bucket", options: v2Options, status: 404, kind: "kept",
			err: `404 Not Found: create bucket "b" of organization "o", or check urls`},
	})
}

// TestAnswersOfInfluxDB3 has the texts of InfluxDB 3 Core, of the hosted editions,
// and of QuestDB, which answers like them.
func TestAnswersOfInfluxDB3(t *testing.T) {
	limit := `{"error":"Update to schema would exceed number of tables per database limit of 2000 tables","data":null}`
	testAnswers(t, []answerTest{
		{name: "one line of three", options: v3Options, status: 400,
			body: `{"error":"partial write of line protocol occurred","data":[{"original_line":"m v=2i","line_number":2,"error_message":"No fields were provided"}]}`,
			kind: "rejected [1], others stored", err: "400 Bad Request: No fields were provided"},
		{name: "every line", options: v3Options, status: 400,
			body: `{"error":"partial write of line protocol occurred","data":[{"line_number":1,"error_message":"a"},{"line_number":2,"error_message":"b"},{"line_number":3,"error_message":"c"}]}`,
			kind: "rejected [0 1 2], others stored", err: "400 Bad Request: a (and 2 more rejected records)"},
		{name: "line numbers that were not sent", options: v3Options, status: 400,
			body: `{"error":"partial write of line protocol occurred","data":[{"line_number":0,"error_message":"a"},{"line_number":4,"error_message":"b"}]}`,
			kind: "bisect, others stored", err: "400 Bad Request: partial write of line protocol occurred: line 0: a (rejected)"},
		{name: "a line number that was sent and one that was not", options: v3Options, status: 400,
			body: `{"error":"partial write of line protocol occurred","data":[{"line_number":3,"error_message":"a"},{"line_number":4,"error_message":"b"}]}`,
			kind: "rejected [2]", err: "400 Bad Request: a"},
		{name: "the first line of a request of which nothing is stored", options: v3Options, status: 400,
			body: `{"error":"parsing failed for write_lp endpoint","data":{"original_line":"x","line_number":1,"error_message":"no fields"}}`,
			kind: "rejected [0]", err: "400 Bad Request: no fields"},
		{name: "the same of 3.11", options: v3Options, status: 400,
			body: `{"error":"line protocol parsing error","data":{"original_line":"x","line_number":3,"error_message":"no fields"}}`,
			kind: "rejected [2]", err: "400 Bad Request: no fields"},
		{name: "hosted, two lines in the text", options: v2Options, status: 400,
			body: `{"code":"invalid","message":"failed to parse line protocol: errors encountered on line(s):\nerror parsing line 1 (1-based): Invalid measurement was provided\nerror parsing line 3 (1-based): Unable to parse timestamp value '1'","line":1}`,
			kind: "rejected [0 2]", err: "400 Bad Request: Invalid measurement was provided (and 1 more rejected records)"},
		{name: "QuestDB", options: v2Options, status: 400,
			body: `{"code":"invalid","message":"failed to parse line protocol:errors encountered on line(s):\nerror in line 2: table: m; invalid column name: x","line":2}`,
			kind: "rejected [1]", err: "400 Bad Request: table: m; invalid column name: x"},
		{name: "lines without numbers", options: v2Options, status: 400,
			body: `{"code":"invalid","message":"failed to parse line protocol: errors encountered on line(s): 2"}`, kind: "bisect",
			err: "400 Bad Request: failed to parse line protocol: errors encountered on line(s): 2 (rejected)"},
		{name: "plain text", options: v3Options, status: 400, body: "missing query parameter 'db'", kind: "kept",
			err: "400 Bad Request: missing query parameter 'db': check the options"},
		{name: "too large", options: v3Options, status: 500, body: "max request size (10485760 bytes) exceeded", kind: "too large",
			err: "500 Internal Server Error: max request size (10485760 bytes) exceeded (too large)"},
		{name: "a bad line with a hostile name", options: v3Options, status: 400, body: "error at 'max request size'", kind: "kept",
			err: "400 Bad Request: error at 'max request size': check the options"},
		{name: "a limit of tables", options: v3Options, status: 422, body: limit, kind: "kept",
			err: "422 Unprocessable Entity: Update to schema would exceed number of tables per database limit of 2000 tables: raise this limit on the server, or send it fewer series and fields"},
		{name: "a limit of tables by the API of 2.x", options: v2Options, status: 422, body: limit, kind: "kept",
			err: "422 Unprocessable Entity: Update to schema would exceed number of tables per database limit of 2000 tables: raise this limit on the server, or send it fewer series and fields"},
		{name: "no right", options: v3Options, status: 403, kind: "kept", err: `403 Forbidden: allow writing to database "d"`},
		{name: "no such database", options: v3Options, status: 404, kind: "kept", err: `404 Not Found: create database "d", or check urls`},
		{name: "another method", options: v3Options, status: 405, kind: "kept", err: "405 Method Not Allowed: check urls and api"},
		{name: "an older server, guessed: 404", options: guessedV3Options, status: 404, body: "404 page not found\n", kind: "kept",
			err: `404 Not Found: 404 page not found: if the server is older than InfluxDB 3, set organization, bucket and api = "v2" instead of database; else create database "d"`},
		{name: "an older server, guessed: 405", options: guessedV3Options, status: 405, kind: "kept",
			err: `405 Method Not Allowed: if the server is older than InfluxDB 3, set organization, bucket and api = "v2" instead of database; else check urls`},
	})
}

// TestRejectedAlone: a rejected single record needs no bisect.
func TestRejectedAlone(t *testing.T) {
	server := pushtest.NewServer(t)
	out, _ := newOutput(t, v1(server.URL))
	for _, tt := range []struct {
		status int
		body   string
	}{
		{400, "unable to parse 'x'"},
		{400, "partial write: field type conflict dropped=0"},
		{500, "unexpected error writing points to database: engine: field type conflict"},
	} {
		server.Answers(tt.status, tt.body)
		if got, want := pushtest.Kind(send(t, out, "m v=1i 1")), "rejected [0], others stored"; got != want {
			t.Errorf("%q is %q, want %q", tt.body, got, want)
		}
	}
}

// TestEachRecordHasItsOwnReason checks the content of the dead-letter file.
func TestEachRecordHasItsOwnReason(t *testing.T) {
	server := pushtest.NewServer(t)
	server.Answers(http.StatusBadRequest, `{"error":"partial write of line protocol occurred","data":[`+
		`{"original_line":"m v=1i","line_number":1,"error_message":"first"},{"original_line":"m v=3i","line_number":3,"error_message":"third"}]}`)
	out, _ := newOutput(t, v3Options(server.URL))
	err, _ := send(t, out, "m v=1i 1", "m v=2i 2", "m v=3i 3").(*plugin.RejectedError)
	if err == nil {
		t.Fatal("not a RejectedError")
	}
	got := map[int]string{}
	for i, reason := range err.Records {
		got[i] = reason.Error()
	}
	want := map[int]string{0: server.URL + ": 400 Bad Request: first", 2: server.URL + ": 400 Bad Request: third"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
