package file

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest"
)

func TestConformance(t *testing.T) {
	o := Defaults()
	o.Path = filepath.Join(t.TempDir(), "points.jsonl")
	plugintest.Pusher(t, Plugin, &o)
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		change func(o *Options)
		want   string
	}{
		{func(o *Options) {}, "<nil>"},
		{func(o *Options) { o.DataFormat, o.RotationMaxSize, o.RotationMaxArchives = "influx", 0, 0 }, "<nil>"},
		{func(o *Options) { o.Path = "" }, "path: must be set"},
		{func(o *Options) { o.DataFormat = "csv" }, `data_format: unknown value "csv" (known: json, influx)`},
		{func(o *Options) { o.Path, o.RotationMaxSize, o.RotationMaxArchives = "", -1, -1 },
			"path: must be set\nrotation_max_size: must be at least 64KiB, or 0B for no rotation\nrotation_max_archives: must be at least 0 and at most 1000"},
		{func(o *Options) { o.RotationMaxArchives = 1001 }, "rotation_max_archives: must be at least 0 and at most 1000"},
		{func(o *Options) { o.Path = "/var/log/" }, `path: "/var/log/" is a directory: append a file name`},
		{func(o *Options) { o.Path = "/var/log/.." }, `path: "/var/log/.." is a directory: append a file name`},
		{func(o *Options) { o.Path = "." }, `path: "." is a directory: append a file name`},
		{func(o *Options) { o.Path = " " }, `path: " " begins or ends with a blank`},
		{func(o *Options) { o.RotationMaxSize = 64<<10 - 1 }, "rotation_max_size: must be at least 64KiB, or 0B for no rotation"},
		{func(o *Options) { o.RotationMaxSize = 64 << 10 }, "<nil>"},
		{func(o *Options) { o.Path = "/dev/stdout" }, `path: "/dev/stdout" is a descriptor of the program: use [[outputs.stdout]] instead`},
		{func(o *Options) { o.Path = "/dev/../dev//stderr" }, `path: "/dev/../dev//stderr" is a descriptor of the program: use [[outputs.stdout]] instead`},
		{func(o *Options) { o.Path = "/dev/fd/3" }, `path: "/dev/fd/3" is a descriptor of the program: use [[outputs.stdout]] instead`},
		{func(o *Options) { o.Path = "/proc/self/fd/1" }, `path: "/proc/self/fd/1" is a descriptor of the program: use [[outputs.stdout]] instead`},
		{func(o *Options) { o.Path = "/proc/thread-self/fd/1" }, `path: "/proc/thread-self/fd/1" is a descriptor of the program: use [[outputs.stdout]] instead`},
		{func(o *Options) { o.Path = "/dev/null" }, "<nil>"},
	} {
		o := Defaults()
		tt.change(&o)
		if diff := cmp.Diff(tt.want, fmt.Sprint(o.Validate())); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

func TestExclusive(t *testing.T) {
	a, b := Defaults(), Defaults()
	a.Path, b.Path = "/var/log/x.jsonl", "/var/log/./y/../x.jsonl"
	a.RotationMaxArchives, b.RotationMaxArchives = 2, 2
	want := []string{`path "/var/log/x.jsonl"`, `path "/var/log/x.jsonl.1"`, `path "/var/log/x.jsonl.2"`}
	if diff := cmp.Diff(want, a.Exclusive()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(a.Exclusive(), b.Exclusive()); diff != "" {
		t.Errorf("two spellings (-want +got)\n%s", diff)
	}
	t.Chdir("/var/log")
	b.Path = "x.jsonl"
	if diff := cmp.Diff(a.Exclusive(), b.Exclusive()); diff != "" {
		t.Errorf("a relative path (-want +got)\n%s", diff)
	}
	a.RotationMaxSize = 0
	if diff := cmp.Diff(want[:1], a.Exclusive()); diff != "" {
		t.Errorf("without rotation (-want +got)\n%s", diff)
	}
}

// open returns an output, to a file that does not rotate unless change sets that, and its
// log.
func open(t testing.TB, path string, change func(o *Options)) (*output, *bytes.Buffer) {
	t.Helper()
	o := Defaults()
	o.Path, o.RotationMaxSize = path, 0
	if change != nil {
		change(&o)
	}
	var log bytes.Buffer
	handler := slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	p, err := New(o, plugin.Env{Log: slog.New(handler)})
	if err != nil {
		t.Fatal(err)
	}
	out := p.(*output)
	t.Cleanup(func() { out.Close() })
	return out, &log
}

// push pushes records that must be accepted.
func push(t testing.TB, out *output, records ...string) {
	t.Helper()
	if err := tryPush(t, out, records...); err != nil {
		t.Fatal(err)
	}
}

func tryPush(t testing.TB, out *output, records ...string) error {
	t.Helper()
	var raw [][]byte
	for _, r := range records {
		raw = append(raw, []byte(r))
	}
	return out.Push(t.Context(), raw)
}

// check compares the files of a directory with the expected ones; there must be no
// others.
func check(t testing.TB, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got[e.Name()] = string(b)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got)\n%s", diff)
	}
}

func TestAppends(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	for _, records := range [][]string{{"one", "two"}, {"three"}} {
		out, _ := open(t, path, nil)
		push(t, out, records...)
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
	check(t, dir, map[string]string{"log": "one\ntwo\nthree\n"})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode&0o037 != 0 {
		t.Errorf("mode %v lets others in", mode)
	}
}

func TestRotationBySize(t *testing.T) {
	for _, tt := range []struct {
		name     string
		size     plugin.Size
		archives int
		pushes   [][]string
		want     map[string]string
	}{
		{name: "none yet", size: 12, archives: 2, pushes: [][]string{{"one", "two"}, {"six"}}, want: map[string]string{"log": "one\ntwo\nsix\n"}},
		{name: "in the middle of a push", size: 12, archives: 2, pushes: [][]string{{"one", "two", "six", "ten"}},
			want: map[string]string{"log.1": "one\ntwo\nsix\n", "log": "ten\n"}},
		{name: "the oldest goes", size: 4, archives: 2, pushes: [][]string{{"one"}, {"two"}, {"six"}, {"ten"}},
			want: map[string]string{"log.2": "two\n", "log.1": "six\n", "log": "ten\n"}},
		{name: "no archives", size: 4, archives: 0, pushes: [][]string{{"one"}, {"two"}}, want: map[string]string{"log": "two\n"}},
		{name: "a line that is larger than a file", size: 4, archives: 1, pushes: [][]string{{"one", "eleven", "two"}},
			want: map[string]string{"log.1": "eleven\n", "log": "two\n"}},
		{name: "without bound", size: 0, archives: 2, pushes: [][]string{{"one"}, {"two"}}, want: map[string]string{"log": "one\ntwo\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			out, log := open(t, filepath.Join(dir, "log"), func(o *Options) {
				o.RotationMaxSize, o.RotationMaxArchives = tt.size, tt.archives
			})
			for _, records := range tt.pushes {
				push(t, out, records...)
			}
			check(t, dir, tt.want)
			if log.Len() > 0 {
				t.Errorf("logged %s", log)
			}
		})
	}
}

// TestRotationImpossible: the file is still written, and one warning says so.
func TestRotationImpossible(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	if err := os.Mkdir(path+".1", 0o700); err != nil {
		t.Fatal(err)
	}
	out, log := open(t, path, func(o *Options) { o.RotationMaxSize, o.RotationMaxArchives = 4, 1 })
	push(t, out, "one", "two")
	push(t, out, "six")
	if got, err := os.ReadFile(path); err != nil || string(got) != "one\ntwo\nsix\n" {
		t.Errorf("%q, %v", got, err)
	}
	want := fmt.Sprintf("level=WARN msg=\"cannot rotate the file, it keeps growing\" error=\"rename %s %s.1: file exists\"\n", path, path)
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("log (-want +got)\n%s", diff)
	}
	if err := os.Remove(path + ".1"); err != nil {
		t.Fatal(err)
	}
	push(t, out, "ten")
	check(t, dir, map[string]string{"log.1": "one\ntwo\nsix\n", "log": "ten\n"})
}

// TestHalfLineAtStart cuts off the bytes that a crash of the program or the host has left
// after the last newline, and logs that, but keeps text that may belong to somebody else.
func TestHalfLineAtStart(t *testing.T) {
	const record = "m v=1i 1795341600000000000"
	for _, tt := range []struct {
		name, format string
		whole, half  string
		want         string
		cut          int  // bytes
		zeros        bool // and no others are cut off
	}{
		{name: "none", whole: "one\n", want: "one\nnew\n"},
		{name: "empty", want: "new\n"},
		{name: "half a record", whole: "one\n", half: `{"name":"m","ta`, want: "one\nnew\n", cut: 15},
		{name: "hardly begun", whole: "one\n", half: `{"n`, want: "one\nnew\n", cut: 3},
		{name: "only half a record", half: `{"name":"m"`, want: "new\n", cut: 11},
		{name: "a record without its newline", half: `{"name":"m"}`, want: "{\"name\":\"m\"}\nnew\n"},
		{name: "another's text", whole: "one\n", half: "precious", want: "one\nprecious\nnew\n"},
		{name: "another's JSON", half: `{"time":"now"`, want: "{\"time\":\"now\"\nnew\n"},
		{name: "blocks that were never written", whole: "one\n", half: strings.Repeat("\x00", 4096), want: "one\nnew\n", cut: 4096, zeros: true},
		{name: "more unwritten blocks than are looked at at once", whole: "one\n", half: strings.Repeat("\x00", 3*maxHalfLine+5), want: "one\nnew\n", cut: 3*maxHalfLine + 5, zeros: true},
		{name: "only unwritten blocks", half: strings.Repeat("\x00", 2*maxHalfLine), want: "new\n", cut: 2 * maxHalfLine, zeros: true},
		{name: "half a record and unwritten blocks", whole: "one\n", half: `{"name":"m","ta` + strings.Repeat("\x00", 2*maxHalfLine), want: "one\nnew\n", cut: 15 + 2*maxHalfLine},
		{name: "a record without its newline and unwritten blocks", half: `{"name":"m"}` + strings.Repeat("\x00", 2*maxHalfLine), want: "{\"name\":\"m\"}\nnew\n", cut: 2 * maxHalfLine, zeros: true},
		{name: "another's text and zeros", whole: "one\n", half: "precious\x00\x00", want: "one\nprecious\x00\x00\nnew\n"},
		{name: "half a record of line protocol and unwritten blocks", format: "influx", whole: record + "\n", half: record[:20] + strings.Repeat("\x00", 2*maxHalfLine), want: record + "\nnew\n", cut: 20 + 2*maxHalfLine},
		{name: "a long line", whole: strings.Repeat("x", 100_000) + "\n", half: `{"name":"`, want: strings.Repeat("x", 100_000) + "\nnew\n", cut: 9},
		{name: "half a record behind another", format: "influx", whole: record + "\n", half: record[:20], want: record + "\nnew\n", cut: 20},
		{name: "a record of line protocol without its newline", format: "influx", whole: record + "\n", half: record, want: record + "\n" + record + "\nnew\n"},
		{name: "text in a file for line protocol", format: "influx", whole: "one\n", half: "precious", want: "one\nprecious\nnew\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "log")
			if err := os.WriteFile(path, []byte(tt.whole+tt.half), 0o600); err != nil {
				t.Fatal(err)
			}
			out, log := open(t, path, func(o *Options) {
				if tt.format != "" {
					o.DataFormat = tt.format
				}
			})
			push(t, out, "new")
			check(t, dir, map[string]string{"log": tt.want})
			want := ""
			if tt.cut > 0 {
				event := "removed half a line from the end of the file"
				if tt.zeros {
					event = "removed zero bytes from the end of the file"
				}
				want = fmt.Sprintf("level=WARN msg=%q file=%s bytes=%d\n", event, path, tt.cut)
			}
			if diff := cmp.Diff(want, log.String()); diff != "" {
				t.Errorf("log (-want +got)\n%s", diff)
			}
		})
	}
}

// TestNoFileOfLines does not touch a file that is not the output's own.
func TestNoFileOfLines(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	image := strings.Repeat("x", 100_000) + strings.Repeat("\x00", 100_000)
	if err := os.WriteFile(path, []byte(image), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := open(t, path, nil)
	want := fmt.Sprintf("%q is not a file of lines: no newline in its last 65536 bytes", path)
	if diff := cmp.Diff(want, fmt.Sprint(tryPush(t, out, "new"))); diff != "" {
		t.Errorf("error (-want +got)\n%s", diff)
	}
	check(t, dir, map[string]string{"image": image})
}

// TestNoPlaceToWrite keeps the records until the directory exists.
func TestNoPlaceToWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "missing", "log")
	out, _ := open(t, path, nil)
	if diff := cmp.Diff("open "+path+": no such file or directory", fmt.Sprint(tryPush(t, out, "one"))); diff != "" {
		t.Errorf("error (-want +got)\n%s", diff)
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	push(t, out, "one")
	check(t, filepath.Dir(path), map[string]string{"log": "one\n"})

	out, _ = open(t, dir, nil)
	if diff := cmp.Diff("open "+dir+": is a directory", fmt.Sprint(tryPush(t, out, "one"))); diff != "" {
		t.Errorf("error (-want +got)\n%s", diff)
	}
}
