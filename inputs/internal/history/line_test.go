package history

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/soak"
)

var samePoints = cmp.Comparer(func(a, b metric.Value) bool { return a == b })

// A memoryFile is a file in memory.
type memoryFile []byte

func (f *memoryFile) WriteAt(p []byte, off int64) (int, error) {
	if missing := int(off) + len(p) - len(*f); missing > 0 {
		*f = append(*f, make([]byte, missing)...)
	}
	return copy((*f)[off:], p), nil
}

// appendLine appends a line, including its newline.
func appendLine(dst []byte, l line) ([]byte, error) {
	f := memoryFile(dst)
	_, err := writeLine(&f, int64(len(dst)), l)
	return f, err
}

// contentText describes a content for comparison.
func contentText(c *content) string {
	l := c.line(&pending{}, true)
	text, err := appendLine(nil, line{Snapshot: l.Snapshot})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// extremeEvent returns a valid event with a field of each type, at its extremes.
func extremeEvent() metric.Point {
	return metric.Point{
		Name: "tcp_listen_event", Tags: metric.NewTags("a", "\x00\x1b<&>\u2028\"\\", "b", "é"), Time: time.Date(2026, 11, 26, 3, 12, 0, 123456789, time.UTC),
		Fields: []metric.Field{
			{Key: "z", Value: metric.Int(math.MinInt64)}, {Key: "u", Value: metric.Uint(math.MaxUint64)}, {Key: "t", Value: metric.Bool(true)},
			{Key: "f", Value: metric.Bool(false)}, {Key: "empty", Value: metric.String("")}, {Key: "s", Value: metric.String("\x00\n\u2029\\")},
			{Key: "inf", Value: metric.Float(math.Inf(-1))}, {Key: "tiny", Value: metric.Float(math.SmallestNonzeroFloat64)}, {Key: "a", Value: metric.Float(math.Copysign(0, -1))},
		},
	}
}

func TestEventsAreReadAsTheyWere(t *testing.T) {
	c := newContent()
	e, err := c.stamp(extremeEvent(), 0)
	if err != nil {
		t.Fatal(err)
	}
	text, err := appendLine(nil, c.line(&pending{events: []*event{e}}, true))
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e.point, got.waiting[0].point, samePoints); diff != "" {
		t.Errorf("the event (-written +read):\n%s", diff)
	}
}

// A file with three writes that is truncated anywhere contains the complete writes.
func TestFileCutAtEachOffset(t *testing.T) {
	t.Parallel()
	c := newContent()
	c.set("e:1", json.RawMessage(`{"n":1}`))
	text, err := appendLine(nil, line{Snapshot: c.line(&pending{}, true).Snapshot})
	if err != nil {
		t.Fatal(err)
	}
	ends, states := []int{len(text)}, []string{contentText(&c)}
	for n := range 3 {
		var changed pending
		e, err := c.stamp(extremeEvent(), 0)
		if err != nil {
			t.Fatal(err)
		}
		record := json.RawMessage(fmt.Sprintf(`{"n":%d}`, n+2))
		c.set("e:1", record)
		changed.set("e:1", record)
		changed.events = append(changed.events, e)
		if n == 1 { // the first event is delivered
			changed.finish(c.finish(c.waiting[:1]))
		}
		c.written(changed.events)
		if text, err = appendLine(text, c.line(&changed, false)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, len(text))
		c.remember(nil)
		whole, err := read(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, contentText(whole))
	}
	for cut := 0; cut <= len(text); cut += soak.Step(7) {
		got, err := read(bytes.NewReader(text[:cut]))
		if cut < ends[0] {
			if err == nil {
				t.Errorf("cut at %d, inside of the snapshot: no error", cut)
			}
			continue
		}
		whole := 0
		for whole+1 < len(ends) && ends[whole+1] <= cut {
			whole++
		}
		if err != nil {
			t.Errorf("cut at %d, behind %d writes: %v", cut, whole, err)
		} else if diff := cmp.Diff(states[whole], contentText(got)); diff != "" {
			t.Errorf("cut at %d, behind %d writes (-want +got):\n%s", cut, whole, diff)
		}
		holed := append(bytes.Clone(text[:cut]), 0, 0, 0, '\n') // a power failure
		if got, err := read(bytes.NewReader(holed)); err != nil {
			t.Errorf("cut at %d with a hole: %v", cut, err)
		} else if diff := cmp.Diff(states[whole], contentText(got)); diff != "" && cut != ends[whole] {
			t.Errorf("cut at %d with a hole (-want +got):\n%s", cut, diff)
		}
	}
	last := len(states) - 2
	for cut := ends[last] + prefixLen; cut <= len(text); cut++ { // the prefix of the last line is not written yet
		unfinished := bytes.Clone(text[:cut])
		clear(unfinished[ends[last] : ends[last]+prefixLen])
		if got, err := read(bytes.NewReader(unfinished)); err != nil {
			t.Errorf("cut at %d, without the last prefix: %v", cut, err)
		} else if diff := cmp.Diff(states[last], contentText(got)); diff != "" {
			t.Errorf("cut at %d, without the last prefix (-want +got):\n%s", cut, diff)
		}
	}
	for i := range text {
		flipped := bytes.Clone(text)
		flipped[i] ^= 1
		if got, err := read(bytes.NewReader(flipped)); err == nil && i < ends[len(ends)-2] {
			t.Fatalf("a flipped bit at %d of %q went unnoticed: %s", i, text, contentText(got))
		} else if err == nil && i != len(text)-1 { // without its newline the last line is torn
			t.Errorf("a flipped bit at %d, in the last line, went unnoticed", i)
		}
	}
}

func TestDamagedFiles(t *testing.T) {
	c := newContent()
	first, err := appendLine(nil, line{Snapshot: c.line(&pending{}, true).Snapshot})
	if err != nil {
		t.Fatal(err)
	}
	other, err := appendLine(nil, line{ID: "x", Delivered: [][2]int64{{1, 2}}})
	if err != nil {
		t.Fatal(err)
	}
	newer, err := appendLine(nil, line{Snapshot: &snapshot{Version: 2}})
	if err != nil {
		t.Fatal(err)
	}
	noValue := []byte(`"events":[{"sequence":7,"name":"e","fields":[{"key":"f"}]}]}`)
	noValue = slices.Concat(appendPrefix(nil, crc32.Checksum(noValue, castagnoli)), noValue, []byte("\n"))
	tests := []struct{ name, text, want string }{
		{name: "empty", text: "", want: "is empty"},
		{name: "a snapshot that is cut off", text: string(first[:len(first)-1]), want: "line 1: has no end"},
		{name: "no snapshot", text: string(other), want: "line 1: is out of place"},
		{name: "two snapshots", text: string(first) + string(first), want: "line 2: is out of place"},
		{name: "of a later version", text: string(newer), want: "line 1: version 2, this program has 1"},
		{name: "something else", text: "[agent]\n  interval = \"10s\"\n", want: "line 1: is not a line of a history"},
		{name: "a damaged line in the middle", text: string(first) + "x" + string(other) + string(other), want: "line 2: is not a line of a history"},
		{name: "a damaged last line", text: string(first) + strings.Replace(string(other), "[1,2]", "[1,3]", 1), want: "line 2: its checksum does not match"},
		{name: "an event without a value", text: string(first) + string(noValue), want: `line 2: event 7: field "f" has no value`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := read(strings.NewReader(tt.text)); err == nil || err.Error() != tt.want {
				t.Errorf("read: %v, want %s", err, tt.want)
			}
		})
	}
}

// A file of zeros, or of one endless line, does not use more memory than the limit.
func TestEndlessLineIsNotRead(t *testing.T) {
	soak.Only(t, "reads 512 MiB")
	_, err := read(endless{})
	if want := "has a line that is too long"; err == nil || err.Error() != want {
		t.Errorf("read: %v, want %s", err, want)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

// FuzzRead: any bytes result in a history or an error, and a history is unchanged after it
// was written and read again. The input is also tried with correct checksums on its lines,
// since the fuzzer could not get past the checksums otherwise.
func FuzzRead(f *testing.F) {
	c := newContent()
	c.id = "6f1d2c3b4a596877"
	c.set("e:1", json.RawMessage(`{"n":1}`))
	e, err := c.stamp(extremeEvent(), 0)
	if err != nil {
		f.Fatal(err)
	}
	text, err := appendLine(nil, line{Snapshot: c.line(&pending{}, true).Snapshot})
	if err == nil {
		text, err = appendLine(text, c.line(&pending{events: []*event{e}, finished: []int64{1}}, false))
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"snapshot":{"version":1,"history":"x","recent":[{"sequence":1,"time":"2026-11-26T03:12:00Z","name":"e","fields":[{"key":"f","float":"NaN"}]}]}}` + "\n"))
	f.Add([]byte(`{"snapshot":{"version":1}}` + "\n" + `{"set":{"a":1,"b":null},"delivered":[[-9223372036854775808,9223372036854775807]]}` + "\n" + "torn"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, text := range [][]byte{text, withChecksums(text)} {
			c, err := read(bytes.NewReader(text))
			if err != nil {
				continue
			}
			again, err := read(strings.NewReader(contentText(c)))
			if err != nil {
				t.Fatalf("what is written cannot be read: %v\n%s", err, contentText(c))
			}
			if diff := cmp.Diff(contentText(c), contentText(again)); diff != "" {
				t.Errorf("written and read again (-first +second):\n%s", diff)
			}
		}
	})
}

// withChecksums adds checksums to the lines of text that are JSON objects.
func withChecksums(text []byte) []byte {
	var lines []byte
	for l := range bytes.Lines(text) {
		var parsed line
		body := bytes.TrimRight(l, "\n")
		if i := bytes.IndexByte(body, ','); i >= 0 && bytes.HasPrefix(body, []byte(linePrefix)) {
			body = append([]byte{'{'}, body[i+1:]...)
		}
		if json.Unmarshal(body, &parsed) != nil {
			lines = append(lines, l...)
			continue
		}
		if checked, err := appendLine(nil, parsed); err == nil {
			lines = append(lines, checked...)
		}
	}
	return lines
}
