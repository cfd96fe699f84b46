package encode

import (
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sockwatch/agent/calls"
	"sockwatch/agent/metric"
)

var sameSources = cmp.Options{
	cmp.AllowUnexported(liveSource{}), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(liveSource{}, "latest", "ended"),
	cmp.Comparer(func(a, b metric.Value) bool { return a == b }),
}

// hostileSources returns sources with everything that a point may have. All values are zero.
func hostileSources() map[string]liveSource {
	all := []metric.Field{
		{Key: "float", Value: metric.Float(0)}, {Key: "int", Value: metric.Int(0)}, {Key: "uint", Value: metric.Uint(0)},
		{Key: "bool", Value: metric.Bool(false)}, {Key: "string", Value: metric.String("")}, {Key: "a\nb \x00\"", Value: metric.Int(0)},
	}
	return map[string]liveSource{
		"in": {
			descs: []metric.Desc{{Name: "p", Field: "float", Type: metric.Counter, Unit: "seconds", Help: "A <b> & \u2028"}},
			points: []metric.Point{
				{Name: "p", Tags: metric.NewTags("k", "v", "l", "\x01\n\"é\U0001f600"), Fields: all, Start: time.Unix(1, 5).UTC()},
				{Name: "p", Fields: all[:2]},
				{Name: "q\n</script>", Fields: all[:2]},
				{Name: "r", Fields: all[1:2]},
			},
		},
		"other-\x01": {points: []metric.Point{{Name: "s", Fields: all[3:4]}}},
	}
}

func TestSeriesAreReadAsWritten(t *testing.T) {
	want := hostileSources()
	content, err := appendSeries(nil, want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseSeries(content)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, snapshotSeries(got), sameSources); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}

func TestDamagedSeriesAreNotRead(t *testing.T) {
	content, err := appendSeries(nil, hostileSources())
	if err != nil {
		t.Fatal(err)
	}
	for i := range content {
		for _, damaged := range []string{string(content[:i]), string(content[:i]) + string(content[i]^0x20) + string(content[i+1:])} {
			if _, err := parseSeries([]byte(damaged)); err == nil {
				t.Fatalf("byte %d of %d: read in spite of the damage", i, len(content))
			}
		}
	}
	for _, tt := range []struct{ name, body, want string }{
		{name: "not JSON", body: "{", want: "unexpected end of JSON input"},
		{name: "unknown kind", body: `{"in":{"Fields":[[{"Key":"v","Kind":"complex"}]]}}`, want: `source "in": unknown kind "complex"`},
		{name: "no such list of fields", body: `{"in":{"Points":[{"Name":"p","Fields":1}]}}`, want: `source "in": point "p" is not complete`},
		{name: "half a tag", body: `{"in":{"Fields":[[]],"Points":[{"Name":"p","Tags":["k"]}]}}`, want: `source "in": point "p" is not complete`},
		{name: "invalid point", body: `{"in":{"Fields":[[]],"Points":[{"Name":"p"}]}}`, want: `source "in": p{} has no fields`},
	} {
		if _, err := parseSeries([]byte(sealSeries(tt.body))); err == nil || err.Error() != tt.want {
			t.Errorf("%s: error %v, want %s", tt.name, err, tt.want)
		}
	}
}

// sealSeries returns the content of a file with a body.
func sealSeries(body string) string {
	return fmt.Sprintf(seriesHeader, crc32.Checksum([]byte(body), castagnoli)) + body
}

func FuzzSeries(f *testing.F) {
	content, err := appendSeries(nil, hostileSources())
	if err != nil {
		f.Fatal(err)
	}
	_, body, _ := strings.Cut(string(content), "\n")
	f.Add(body)
	f.Add(`{"in":{"Fields":[[{"Key":"v","Kind":"int"}]],"Points":[{"Name":"p","Tags":["k","v"],"Fields":0}]}}`)
	f.Add(`{"in":null}`)
	f.Fuzz(func(t *testing.T, body string) {
		sources, err := parseSeries([]byte(sealSeries(body)))
		if err != nil {
			return
		}
		for name, s := range sources {
			for i := range s.points {
				if err := s.points[i].Check(); err != nil {
					t.Errorf("source %q: invalid point: %v", name, err)
				}
			}
		}
		content, err := appendSeries(nil, snapshotSeries(sources))
		if err != nil {
			t.Fatalf("cannot be written again: %v", err)
		}
		again, err := parseSeries(content)
		if err != nil {
			t.Fatalf("cannot be read again: %v", err)
		}
		if diff := cmp.Diff(snapshotSeries(sources), snapshotSeries(again), sameSources); diff != "" {
			t.Errorf("read again (-first +second):\n%s", diff)
		}
	})
}

// newSeriesFile returns a file in a new directory, and its log.
func newSeriesFile(t *testing.T) (*seriesFile, *strings.Builder) {
	var text strings.Builder
	log := slog.New(slog.NewTextHandler(&text, nil))
	path := filepath.Join(t.TempDir(), "out.series.json")
	return &seriesFile{path: path, title: "outputs.out", calls: &calls.Pending{Log: log}, log: log}, &text
}

func TestSeriesFileIsIgnoredAfterALongStop(t *testing.T) {
	f, _ := newSeriesFile(t)
	want := hostileSources()
	sources := map[string]*liveSource{}
	for name, s := range want {
		sources[name] = &s
	}
	f.writeLast(sources, true)
	for _, tt := range []struct {
		age  time.Duration
		want map[string]liveSource
	}{
		{age: 0, want: want},
		{age: 4 * time.Minute, want: want},
		{age: 6 * time.Minute},
		{age: -6 * time.Minute}, // the clock was set back
	} {
		modified := time.Now().Add(-tt.age)
		if err := os.Chtimes(f.path, modified, modified); err != nil {
			t.Fatal(err)
		}
		got, err := f.load()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, snapshotSeries(got), sameSources); diff != "" {
			t.Errorf("after %v (-want +got):\n%s", tt.age, diff)
		}
		for name, s := range got {
			if !s.latest.Equal(modified) {
				t.Errorf("after %v: the last sample of %q was at %v, want %v", tt.age, name, s.latest, modified)
			}
		}
	}
}

// The file is written once a minute: in full if the series have changed or the last write
// failed, else it only gets a new time.
func TestSeriesFileIsWrittenIfNeeded(t *testing.T) {
	f, log := newSeriesFile(t)
	sources := map[string]*liveSource{"in": {points: []metric.Point{pointOf("a", 0)}}}
	write := func(changed bool) (written bool, at time.Time) {
		t.Helper()
		written = f.write(sources, changed)
		f.writing.Lock() // wait for it
		defer f.writing.Unlock()
		info, err := os.Stat(f.path)
		if err != nil {
			return written, time.Time{}
		}
		return written, info.ModTime()
	}
	content := func() string {
		text, err := os.ReadFile(f.path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if written, _ := write(true); !written || !strings.Contains(content(), `"a"`) {
		t.Fatal("not written at first")
	}
	sources = maps.Clone(sources)
	sources["in"] = &liveSource{points: []metric.Point{pointOf("b", 0)}}
	if written, _ := write(true); written {
		t.Error("written twice within a minute")
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(f.path, old, old); err != nil {
		t.Fatal(err)
	}
	f.last = old
	if written, at := write(false); !written || time.Since(at) > time.Minute || !strings.Contains(content(), `"a"`) {
		t.Errorf("with unchanged series: written %v, time %v, content %s", written, at, content())
	}
	f.last = old
	if written, _ := write(true); !written || !strings.Contains(content(), `"b"`) {
		t.Errorf("with changed series: written %v, content %s", written, content())
	}

	dir := filepath.Dir(f.path)
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sources["in"] = &liveSource{points: []metric.Point{pointOf("c", 0)}}
	f.last = old
	write(true)
	if !strings.Contains(log.String(), "cannot save which series are live") {
		t.Errorf("the log:\n%s", log)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+".gone", dir); err != nil {
		t.Fatal(err)
	}
	f.last = old
	if write(false); !strings.Contains(content(), `"c"`) {
		t.Errorf("after the failure: %s", content())
	}
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	f.last = old
	if write(false); !strings.Contains(content(), `"c"`) {
		t.Errorf("after its removal: %s", content())
	}
}
