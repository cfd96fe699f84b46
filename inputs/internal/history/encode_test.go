package history

import (
	"bytes"
	"encoding/json"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

func TestLinesAreReadAsTheyWere(t *testing.T) {
	c := newContent()
	e, err := c.stamp(extremeEvent(), 0)
	if err != nil {
		t.Fatal(err)
	}
	first := event{sequence: -1, point: metric.Point{Name: "e", Time: time.Date(1999, 1, 1, 0, 0, 0, 1, time.UTC), Fields: []metric.Field{{Key: "f"}}}}
	records := map[string]json.RawMessage{
		"e:80 0.0.0.0 ": json.RawMessage(`{"n":[1,{"a":"b"}]}`), "e:a\n\"\xc3\xa9<": json.RawMessage(`"x"`), "r:gone": json.RawMessage("null"),
	}
	tests := []struct {
		name string
		line line
	}{
		{name: "nothing", line: line{}},
		{name: "a write", line: line{ID: "6f1d", Sequence: 7, Set: records, Events: []event{*e}, Delivered: [][2]int64{{-1, 2}, {4, 4}}}},
		{name: "an empty snapshot", line: line{Snapshot: &snapshot{}}},
		{name: "a snapshot", line: line{Snapshot: &snapshot{
			Version: 1, Machine: "m<&>", ID: "6f1d", Sequence: 7, Records: records, Waiting: []event{first, *e}, Recent: []event{*e, first},
		}}},
	}
	for _, tt := range tests {
		text, err := appendLine(nil, tt.line)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseLine(bytes.TrimSuffix(text, []byte("\n")))
		if err != nil {
			t.Fatalf("%s: %v: %s", tt.name, err, text)
		}
		if diff := cmp.Diff(tt.line, got, cmp.AllowUnexported(line{}, event{}), samePoints); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// The names of the members are those of version 1 of the file.
func TestLineIsWrittenAsBefore(t *testing.T) {
	e := event{sequence: 7, point: metric.Point{
		Name: "tcp_listen_event", Tags: metric.NewTags("event", "opened", "port", "80"), Time: time.Date(2026, 11, 26, 3, 12, 0, 5, time.UTC),
		Fields: []metric.Field{
			{Key: "pid", Value: metric.Int(5)}, {Key: "uid", Value: metric.Uint(33)}, {Key: "while_down", Value: metric.Bool(false)},
			{Key: "exe", Value: metric.String("/bin/x")}, {Key: "window_seconds", Value: metric.Float(0.5)},
		},
	}}
	text, err := appendLine(nil, line{ID: "6f1d", Sequence: 7, Set: map[string]json.RawMessage{"e:1": nil}, Events: []event{e}, Delivered: [][2]int64{{5, 6}}})
	if err != nil {
		t.Fatal(err)
	}
	want := `"history":"6f1d","sequence":7,"set":{"e:1":null},"events":[{"sequence":7,"time":"2026-11-26T03:12:00.000000005Z",` +
		`"name":"tcp_listen_event","tags":{"event":"opened","port":"80"},"fields":[{"key":"pid","int":5},{"key":"uid","uint":33},` +
		`{"key":"while_down","bool":false},{"key":"exe","string":"/bin/x"},{"key":"window_seconds","float":"0.5"}]}],"delivered":[[5,6]]}` + "\n"
	if diff := cmp.Diff(want, string(text[prefixLen:])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A line that is longer than a piece is written in pieces, with the prefix last, and in little memory.
func TestLongLineIsWrittenInPieces(t *testing.T) { // not in parallel: it counts allocations
	records := make(map[string]json.RawMessage)
	for i := range 20_000 {
		records[strconv.Itoa(i)] = json.RawMessage(`"` + strings.Repeat("x", i%500) + `"`)
	}
	l := line{Snapshot: &snapshot{Version: 1, ID: "6f1d", Records: records}}
	var f memoryFile
	length, err := writeLine(&f, 0, l)
	if err != nil {
		t.Fatal(err)
	}
	if length != int64(len(f)) || length < 5_000_000 {
		t.Errorf("length %d of a line of %d bytes", length, len(f))
	}
	got, err := parseLine(bytes.TrimSuffix(f, []byte("\n")))
	if err != nil {
		t.Fatal(err)
	}
	equal := func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }
	if !maps.EqualFunc(records, got.Snapshot.Records, equal) { // cmp takes seconds for so many
		t.Errorf("records (-want +got):\n%s", cmp.Diff(records, got.Snapshot.Records))
	}
	var offsets offsetFile
	before := allocatedBytes()
	if _, err := writeLine(&offsets, 100, l); err != nil {
		t.Fatal(err)
	}
	if allocated := allocatedBytes() - before; allocated > uint64(length)/2 {
		t.Errorf("%d bytes were allocated to write %d", allocated, length)
	}
	if last := len(offsets) - 1; last < int(length/(2*pieceSize)) || offsets[last] != 100 || slices.Contains(offsets[:last], 100) {
		t.Errorf("pieces were written at %v, want the prefix at 100, last", offsets)
	}
}

// An offsetFile records the offsets of writes.
type offsetFile []int64

func (f *offsetFile) WriteAt(p []byte, off int64) (int, error) {
	*f = append(*f, off)
	return len(p), nil
}

func allocatedBytes() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func TestRecordWithNewlinesStaysOnItsLine(t *testing.T) {
	c := newContent()
	record, changed := c.set("e:1", json.RawMessage("{\n\t\"n\": 1\r\n}"))
	if want := `{"n":1}`; string(record) != want || !changed {
		t.Errorf("the record is %q, want %q", record, want)
	}
}
