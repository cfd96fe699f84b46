package influxdb

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/soak"
	"sockwatch/outputs/internal/push/pushtest"
)

// TestQuotedLinesOfHostileNames has records that contain the very words with which a
// server quotes records.
func TestQuotedLinesOfHostileNames(t *testing.T) {
	records := []string{
		`m,p=x s="unable to parse 'm v=2i 2': y" 1`,
		`m v=2i 2`,
		`m,p=': s=": " 3`,
		`m v=2i 2`,
	}
	for _, tt := range []struct {
		name, text string
		want       string
	}{
		{name: "one that quotes another", text: "unable to parse '" + records[0] + "': bad", want: "rejected [0]"},
		{name: "one with the separator in it", text: "unable to parse '" + records[2] + "': bad", want: "rejected [2]"},
		{name: "equal ones", text: "unable to parse 'm v=2i 2': bad", want: "rejected [1 3]"},
		{name: "without an end", text: "unable to parse 'm v=2i 2", want: "bisect"},
		{name: "without a reason", text: "unable to parse 'm v=2i 2'", want: "bisect"},
		{name: "in the middle of a text", text: "unable to parse: unable to parse 'm v=2i 2': bad", want: "bisect"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := pushtest.NewServer(t)
			server.Answers(http.StatusBadRequest, tt.text)
			out, _ := newOutput(t, v1(server.URL))
			if got := pushtest.Kind(send(t, out, records...)); got != tt.want {
				t.Errorf("%q is %q, want %q", tt.text, got, tt.want)
			}
		})
	}
}

// TestLinesOfACutAnswer: the answer lists more rejected lines than are read. Those before
// the cut are named, and the error does not claim that all others are stored.
func TestLinesOfACutAnswer(t *testing.T) {
	var records, listed, quoted []string
	for i := range 2000 {
		r := fmt.Sprintf(`m v=%di %d`, i, i)
		records = append(records, r)
		listed = append(listed, fmt.Sprintf(`{"original_line":%q,"line_number":%d,"error_message":"no \"%s\""}`, r, i+1, strings.Repeat("x", 60)))
		quoted = append(quoted, fmt.Sprintf(`unable to parse '%s': no \"%s\"`, r, strings.Repeat("x", 60)))
	}
	for _, tt := range []struct{ name, body string }{
		{name: "a list", body: `{"error":"partial write of line protocol occurred","data":[` + strings.Join(listed, ",") + `]}`},
		{name: "a text", body: `{"error":"partial write: ` + strings.Join(quoted, `\n`) + ` dropped=0"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for shift := 0; shift < 8; shift += soak.Step(4) { // the cut is once at each byte of an escape
				server := pushtest.NewServer(t)
				server.Answers(http.StatusBadRequest, strings.Repeat(" ", shift)+tt.body)
				out, _ := newOutput(t, v1(server.URL))
				got := pushtest.Kind(send(t, out, records...))
				if !strings.HasPrefix(got, "rejected [0 1 2 3 4 ") || strings.HasSuffix(got, "others stored") {
					t.Errorf("shifted by %d: %.100q", shift, got)
				}
			}
		})
	}
}

func TestDroppedCount(t *testing.T) {
	got := map[string]int{}
	want := map[string]int{
		"partial write: x dropped=3": 3, "dropped=12": 12, "partial write: x": 0, "dropped=": 0, "dropped=1 of 2": 0,
		"dropped=-1": 0, "dropped=9999999999999999999": 0, `tag "dropped=3"`: 0,
	}
	for text := range want {
		a := answer{text: text}
		got[text] = a.dropped()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
