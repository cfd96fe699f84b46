package push

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/outputs/internal/push/pushtest"
)

// An answerTest is an answer to three records, and what it means.
type answerTest struct {
	name    string
	status  int
	headers []string
	body    string
	kind    string
	err     string // after the server's name
}

// testAnswers makes a server give each answer.
func testAnswers(t *testing.T, tests []answerTest) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := pushtest.NewServer(t)
			server.Answers(tt.status, tt.body, tt.headers...)
			out, _ := newOutput(t, to(server.URL))
			err := send(t, out, "1", "2", "3")
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

// TestStatuses checks what each kind of status means, and what the error says to do.
func TestStatuses(t *testing.T) {
	testAnswers(t, []answerTest{
		{name: "300", status: 300, kind: "kept", err: "300 Multiple Choices: redirects to another URL, and redirects are not followed: check urls"},
		{name: "307", status: 307, headers: []string{"Location: https://h/p?t=s3cret"}, kind: "kept",
			err: "307 Temporary Redirect: redirects to https://h, and redirects are not followed: check urls"},
		{name: "400", status: 400, kind: "bisect", err: "400 Bad Request (rejected)"},
		{name: "400 of VictoriaMetrics", status: 400, body: `unsupported path requested: "/x"`, kind: "kept",
			err: `400 Bad Request: unsupported path requested: "/x": check urls`},
		{name: "400 of VictoriaMetrics with the address", status: 400, kind: "kept",
			body: `remoteAddr: "[::1]:4, X-Forwarded-For: "::2"; requestURI: /x?y=; unsupported path requested: "/x"`,
			err:  `400 Bad Request: remoteAddr: "[::1]:4, X-Forwarded-For: "::2"; requestURI: /x?y=; unsupported path requested: "/x": check urls`},
		{name: "400 of VictoriaMetrics about a label", status: 400, kind: "bisect",
			body: `remoteAddr: "[::1]:4"; requestURI: /x; bad label "; unsupported path requested"`,
			err:  `400 Bad Request: remoteAddr: "[::1]:4"; requestURI: /x; bad label "; unsupported path requested" (rejected)`},
		{name: "400 of Go for http to https", status: 400, body: "Client sent an HTTP request to an HTTPS server.\n", kind: "kept",
			err: "400 Bad Request: Client sent an HTTP request to an HTTPS server.: write https:// in urls"},
		{name: "400 of nginx for http to https", status: 400, headers: []string{"Content-Type: text/html"}, kind: "kept",
			body: "<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>",
			err:  "400 Bad Request: a web page: write https:// in urls"},
		{name: "400 with a path in it", status: 400, body: `the label is an unsupported path requested`, kind: "bisect",
			err: `400 Bad Request: the label is an unsupported path requested (rejected)`},
		{name: "401", status: 401, kind: "kept", err: "401 Unauthorized: set username or token"},
		{name: "402", status: 402, kind: "kept", err: "402 Payment Required"},
		{name: "403", status: 403, kind: "kept", err: "403 Forbidden: allow the login to write, or check urls"},
		{name: "404", status: 404, kind: "kept", err: "404 Not Found: check urls"},
		{name: "405", status: 405, kind: "kept", err: "405 Method Not Allowed: check urls"},
		{name: "407", status: 407, kind: "kept", err: "407 Proxy Authentication Required: check the user and password of the proxy"},
		{name: "408", status: 408, kind: "kept", err: "408 Request Timeout"},
		{name: "409", status: 409, kind: "bisect", err: "409 Conflict (rejected)"},
		{name: "411", status: 411, kind: "kept", err: "411 Length Required"},
		{name: "413", status: 413, kind: "too large", err: "413 Request Entity Too Large (too large)"},
		{name: "414", status: 414, kind: "kept", err: "414 Request URI Too Long"},
		{name: "415", status: 415, kind: "kept", err: "415 Unsupported Media Type: check urls and content_encoding"},
		{name: "417 without a question", status: 417, kind: "bisect", err: "417 Expectation Failed (rejected)"},
		{name: "421", status: 421, kind: "kept", err: "421 Misdirected Request: check urls"},
		{name: "422", status: 422, kind: "bisect", err: "422 Unprocessable Entity (rejected)"},
		{name: "425", status: 425, kind: "kept", err: "425 Too Early"},
		{name: "426", status: 426, kind: "kept", err: "426 Upgrade Required"},
		{name: "431", status: 431, kind: "kept", err: "431 Request Header Fields Too Large"},
		{name: "500", status: 500, kind: "kept", err: "500 Internal Server Error"},
		{name: "599", status: 599, kind: "kept", err: "599"},
	})
}

// TestTextsOfAnswers: the message in JSON of several servers is shown, or else the body.
func TestTextsOfAnswers(t *testing.T) {
	testAnswers(t, []answerTest{
		{name: "message", status: 500, body: `{"code":3,"message":"bad token"}`, kind: "kept", err: "500 Internal Server Error: bad token"},
		{name: "error", status: 500, body: `{"error":"bad token","status":"error"}`, kind: "kept", err: "500 Internal Server Error: bad token"},
		{name: "an error with a reason", status: 500, body: `{"error":{"type":"x","reason":"no index"},"status":500}`, kind: "kept", err: "500 Internal Server Error: no index"},
		{name: "an error with a message", status: 500, body: `{"error":{"code":1,"message":"no index"}}`, kind: "kept", err: "500 Internal Server Error: no index"},
		{name: "a number", status: 500, body: `{"error":7}`, kind: "kept", err: `500 Internal Server Error: {"error":7}`},
		{name: "other JSON", status: 500, body: `["x"]`, kind: "kept", err: `500 Internal Server Error: ["x"]`},
		{name: "nothing", status: 500, kind: "kept", err: "500 Internal Server Error"},
		{name: "a web page", status: 502, headers: []string{"Content-Type: text/html"}, body: "<html>", kind: "kept", err: "502 Bad Gateway: a web page"},
		{name: "a hostile text is one line", status: 500, body: "a\nb\x1b[31m\x00c\xff", kind: "kept", err: "500 Internal Server Error: a b [31m c?"},
		{name: "a long text is cut", status: 500, body: strings.Repeat("é", 3000), kind: "kept",
			err: "500 Internal Server Error: " + strings.Repeat("é", 500) + "..."},
	})
}

// TestOneRejectedRecordNeedsNoSearch: it goes to the dead-letter file at once.
func TestOneRejectedRecordNeedsNoSearch(t *testing.T) {
	server := pushtest.NewServer(t)
	server.Answers(422, "bad field")
	out, _ := newOutput(t, to(server.URL))
	err := send(t, out, "1")
	if want := server.URL + ": 422 Unprocessable Entity: bad field"; pushtest.Kind(err) != "rejected [0], others stored" || fmt.Sprint(err) != want {
		t.Errorf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
	}
}

// TestAdviceFitsTheLogin after 401.
func TestAdviceFitsTheLogin(t *testing.T) {
	server := pushtest.NewServer(t)
	server.Answers(401, "")
	for want, change := range map[string]func(o *options){
		"check username and password":                 func(o *options) { o.Username, o.Password = "u", "p" },
		"check token":                                 func(o *options) { o.Token = "t" },
		"check the headers, or set username or token": func(o *options) { o.Headers = map[string]string{"X-Key": "k"} },
		"set username or token":                       func(*options) {},
	} {
		o := to(server.URL)
		change(&o)
		out, _ := newOutput(t, o)
		if got, want := fmt.Sprint(send(t, out, "1")), server.URL+": 401 Unauthorized: "+want; got != want {
			t.Errorf("error\n%s, want\n%s", got, want)
		}
	}
}

// TestRetryAfterIsHonoured checks every form of the header, and the cap of ten
// minutes.
func TestRetryAfterIsHonoured(t *testing.T) {
	const date = "Date: Sun, 06 Nov 1994 08:49:00 GMT"
	in37s := "503 Service Unavailable (retry after 37s)"
	in10m := "503 Service Unavailable (retry after 10m0s)"
	testAnswers(t, []answerTest{
		{name: "429 without a time", status: 429, kind: "kept", err: "429 Too Many Requests"},
		{name: "429, seconds", status: 429, body: `{"message":"limit"}`, headers: []string{"Retry-After: 7"}, kind: "after 7s",
			err: "429 Too Many Requests: limit (retry after 7s)"},
		{name: "503, seconds", status: 503, headers: []string{"Retry-After:  120 "}, kind: "after 2m0s",
			err: "503 Service Unavailable (retry after 2m0s)"},
		{name: "503, IMF-fixdate, by the server's clock", status: 503, headers: []string{date, "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT"}, kind: "after 37s", err: in37s},
		{name: "503, RFC 850", status: 503, headers: []string{date, "Retry-After: Sunday, 06-Nov-94 08:49:37 GMT"}, kind: "after 37s", err: in37s},
		{name: "503, asctime", status: 503, headers: []string{date, "Retry-After: Sun Nov  6 08:49:37 1994"}, kind: "after 37s", err: in37s},
		{name: "a day is capped", status: 503, headers: []string{"Retry-After: 86400"}, kind: "after 10m0s", err: in10m},
		{name: "more than an integer holds", status: 503, headers: []string{"Retry-After: 99999999999999999999999"}, kind: "after 10m0s", err: in10m},
		{name: "a date far off", status: 503, headers: []string{date, "Retry-After: Sun, 06 Nov 2094 08:49:37 GMT"}, kind: "after 10m0s", err: in10m},
		{name: "a date gone by", status: 503, headers: []string{date, "Retry-After: Sun, 06 Nov 1994 08:48:00 GMT"}, kind: "kept", err: "503 Service Unavailable"},
		{name: "zero, which must not spin", status: 429, headers: []string{"Retry-After: 0"}, kind: "kept", err: "429 Too Many Requests"},
		{name: "no time at all", status: 503, headers: []string{"Retry-After: soon"}, kind: "kept", err: "503 Service Unavailable"},
		{name: "a negative number", status: 503, headers: []string{"Retry-After: -5"}, kind: "kept", err: "503 Service Unavailable"},
		{name: "another that says when", status: 504, headers: []string{"Retry-After: 3"}, kind: "after 3s",
			err: "504 Gateway Timeout (retry after 3s)"},
	})
}
