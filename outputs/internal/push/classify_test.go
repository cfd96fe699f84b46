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
