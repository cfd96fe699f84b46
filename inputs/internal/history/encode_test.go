package history

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A line is encoded exactly as by encoding/json.
func TestLineIsWhatEncodingJSONWrites(t *testing.T) {
	c := newContent()
	e, err := c.stamp(extremeEvent(), 0)
	if err != nil {
		t.Fatal(err)
	}
	saved := saveEvents([]*event{e})
	records := map[string]json.RawMessage{
		"e:80 0.0.0.0 ": json.RawMessage(`{"n":[1,{"a":"b"}]}`), "e:a\n\"\xc3\xa9<": json.RawMessage(`"x"`), "r:gone": nil,
	}
	tests := []struct {
		name string
		line line
	}{
		{name: "nothing", line: line{}},
		{name: "a write", line: line{ID: "6f1d", Sequence: 7, Set: records, Events: saved, Delivered: [][2]int64{{-1, 2}, {4, 4}}}},
		{name: "an empty snapshot", line: line{Snapshot: &snapshot{}}},
		{name: "a snapshot", line: line{Snapshot: &snapshot{
			Version: 1, Machine: "m<&>", ID: "6f1d", Sequence: 7, Records: records, Waiting: append(saved, saved...),
			Recent: []savedEvent{{Time: time.Date(1999, 1, 1, 0, 0, 0, 1, time.UTC), Fields: []savedField{{}, {Key: "none"}}}},
		}}},
	}
	for _, tt := range tests {
		want, err := json.Marshal(tt.line)
		if err != nil {
			t.Fatal(err)
		}
		text := append(append([]byte{'{'}, tt.line.append(nil)...), '}')
		var wantValue, value any
		if err := json.Unmarshal(want, &wantValue); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &value); err != nil {
			t.Fatalf("%s: %v: %s", tt.name, err, text)
		}
		if diff := cmp.Diff(wantValue, value); diff != "" {
			t.Errorf("%s (-encoding/json +got):\n%s", tt.name, diff)
		}
	}
}

func TestRecordWithNewlinesStaysOnItsLine(t *testing.T) {
	c := newContent()
	record, changed := c.set("e:1", json.RawMessage("{\n\t\"n\": 1\r\n}"))
	if want := `{"n":1}`; string(record) != want || !changed {
		t.Errorf("the record is %q, want %q", record, want)
	}
}
