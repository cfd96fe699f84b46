package schematest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sockwatch/agent/metric"
)

const listener = `{"name":"tcp_listen","tags":{"address":"::","exposure":"public","family":"dual","owner":"unreadable","port":"80","user":"root"},"fields":{"processes":0,"sockets":1,"uid":0},"timestamp":"2026-11-26T14:39:16.064224555Z"}`

const event = `{"name":"tcp_listen_event","tags":{"address":"::","event":"opened","family":"dual","owner":"none","port":"80","user":"root"},"fields":{"history":"1f06e09a45b4a474","sequence":1,"uid":0,"while_down":false,"window_seconds":10},"timestamp":1795341600}`

func TestValidLines(t *testing.T) {
	for _, line := range []string{
		listener, event,
		`{"name":"foreign","tags":{},"fields":{"a":1.5,"b":true,"c":"text"},"timestamp":1795341600}`,
		`{"name":"only_nan","tags":{},"fields":{},"timestamp":-1}`,
	} {
		Line(t, []byte(line))
	}
}

func TestInvalidLines(t *testing.T) {
	for _, test := range []struct{ name, line, old, new, want string }{
		{name: "not JSON", line: listener, old: "}", new: "", want: "unexpected end of JSON input"},
		{name: "no time", line: listener, old: `,"timestamp":"2026-11-26T14:39:16.064224555Z"`, new: "", want: `validating root: required: missing properties: ["timestamp"]`},
		{name: "another zone", line: listener, old: "555Z", new: "555+01:00", want: "/properties/timestamp: anyOf: did not validate"},
		{name: "a further key", line: listener, old: `"tags"`, new: `"host":"a","tags"`, want: `unexpected additional properties ["host"]`},
		{name: "an empty tag", line: listener, old: `"user":"root"`, new: `"user":""`, want: "/tags/additionalProperties: minLength"},
		{name: "a null field", line: listener, old: `"uid":0`, new: `"uid":null`, want: "/fields/properties/uid: type"},
		{name: "an unknown class", line: listener, old: `"public"`, new: `"world"`, want: "/tags/properties/exposure: enum: world does not equal any of: [loopback link_local private public]"},
		{name: "no port", line: listener, old: `"port":"80",`, new: "", want: `/tags: required: missing properties: ["port"]`},
		{name: "a field that is not described", line: listener, old: `"uid":0`, new: `"gid":0,"uid":0`, want: `/fields: unexpected additional properties ["gid"]`},
		{name: "an owner without a pid", line: listener, old: `"unreadable"`, new: `"resolved"`, want: `missing properties: ["pid"]`},
		{name: "an unknown kind", line: event, old: `"opened"`, new: `"gone"`, want: "/tags/properties/event: enum: gone"},
		{name: "no identity", line: event, old: `"sequence":1,`, new: "", want: `missing properties: ["sequence"]`},
		{name: "restarted without down_seconds", line: event, old: `"opened"`, new: `"restarted"`, want: `missing properties: ["down_seconds"]`},
		{name: "no such month", line: listener, old: "2026-11", new: "2026-13", want: "month out of range"},
		{name: "a count as a string", line: event, old: `"sequence":1`, new: `"sequence":"1"`, want: "/fields/properties/sequence: type"},
	} {
		t.Run(test.name, func(t *testing.T) {
			line := strings.Replace(test.line, test.old, test.new, 1)
			if line == test.line {
				t.Fatal("nothing replaced")
			}
			err := Check([]byte(line))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Check of %s: %v, want %q", line, err, test.want)
			}
		})
	}
}

func TestBatchChecksEventsAndPoints(t *testing.T) {
	wrong := metric.Point{
		Name:   "tcp_listen_events",
		Tags:   []metric.Tag{{Key: "event", Value: "opened"}},
		Fields: []metric.Field{{Key: "total", Value: metric.Int(-1)}},
	}
	for _, b := range []metric.Batch{{Points: []metric.Point{wrong}}, {Events: []metric.Point{wrong}}} {
		if err := CheckBatch(&b); err == nil || !strings.Contains(err.Error(), "/fields/properties/total: minimum") {
			t.Errorf("CheckBatch: %v", err)
		}
	}
}

// TestAPIAnswersAreArraysOfLines, so that the schema of the API refuses what that of lines
// does.
func TestAPIAnswersAreArraysOfLines(t *testing.T) {
	API(t, []byte("[]"))
	API(t, []byte("["+listener+",\n"+event+"]"))
	for _, answer := range []string{listener, "[1]", "[" + strings.Replace(listener, `"uid":0`, `"gid":0`, 1) + "]"} {
		if err := validate(compileAPI, []byte(answer)); err == nil {
			t.Errorf("valid: %s", answer)
		}
	}
}

// TestSimulatedPointsAreCheckedOncePerShape also checks that another shape is not skipped.
func TestSimulatedPointsAreCheckedOncePerShape(t *testing.T) {
	name := fmt.Sprint("simulated_", time.Now().UnixNano()) // new also with -count=2
	for _, tt := range []struct {
		tags   []metric.Tag
		before bool
	}{
		{tags: []metric.Tag{{Key: "a", Value: "1"}}, before: false},
		{tags: []metric.Tag{{Key: "a", Value: "2"}}, before: true},
		{tags: []metric.Tag{{Key: "a", Value: "2"}, {Key: "b", Value: "1"}}, before: false},
		{tags: []metric.Tag{{Key: "event", Value: "opened"}}, before: false},
		{tags: []metric.Tag{{Key: "event", Value: "closed"}}, before: false},
	} {
		p := metric.Point{Name: name, Tags: tt.tags, Fields: []metric.Field{{Key: "n", Value: metric.Int(1)}}}
		if got := checkedBefore(&p); got != tt.before {
			t.Errorf("%s: got %t, want %t", p.Series(), got, tt.before)
		}
	}
}
