package history

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Whatever happens to the file while it is in use, the next write creates it again.
func TestFileIsRecreatedAfterForeignChanges(t *testing.T) {
	const changed = "WARN history removed, replaced or changed by something else, creating it again"
	write := func(t *testing.T, path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		others func(t *testing.T, path string)
		kept   string // content of a foreign file that was set aside
		log    []string
	}{
		{name: "removed", log: []string{changed}, others: func(t *testing.T, path string) { check(t, os.Remove(path)) }},
		{name: "truncated", log: []string{changed}, others: func(t *testing.T, path string) { check(t, os.Truncate(path, 10)) }},
		{name: "appended to", log: []string{changed}, others: func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			check(t, err)
			defer f.Close()
			_, err = f.WriteString("more\n")
			check(t, err)
		}},
		{name: "replaced by a file", log: []string{changed, "WARN a foreign file in place of the history was renamed"}, kept: "precious", others: func(t *testing.T, path string) {
			check(t, os.Remove(path))
			write(t, path, "precious")
		}},
		{name: "replaced by a link", log: []string{changed}, others: func(t *testing.T, path string) {
			victim := filepath.Join(filepath.Dir(path), "victim")
			write(t, victim, "precious")
			check(t, os.Remove(path))
			check(t, os.Symlink(victim, path))
			t.Cleanup(func() {
				if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
					t.Errorf("the link was followed: %q, %v", text, err)
				}
			})
		}},
		{name: "replaced by a pipe", log: []string{changed}, others: func(t *testing.T, path string) {
			check(t, os.Remove(path))
			check(t, unix.Mkfifo(path, 0o600))
		}},
		{name: "the temporary file is a link", others: func(t *testing.T, path string) {
			victim := filepath.Join(filepath.Dir(path), "victim")
			write(t, victim, "precious")
			check(t, os.Symlink(victim, path+".new"))
			check(t, os.Remove(path))
			t.Cleanup(func() {
				if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
					t.Errorf("the link was followed: %q, %v", text, err)
				}
			})
		}, log: []string{changed}},
		{name: "its directory removed", log: []string{changed}, others: func(t *testing.T, path string) { check(t, os.RemoveAll(filepath.Dir(path))) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			check(t, os.Mkdir(dir, 0o700))
			var l testLog
			s, _ := Open(options(dir, &l))
			path := s.options.Path
			s.Append(Write{Set: set("e:1", `1`), Events: eventsOf(1)})
			wantEvents(t, s, 1)
			tt.others(t, path)
			for n := 2; n <= 3; n++ {
				s.Append(Write{Set: set(fmt.Sprint("e:", n), fmt.Sprint(n)), Events: eventsOf(n)})
				wantEvents(t, s, n)
			}
			kill(s)
			l.want(t, tt.log...)
			if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("the file is %v, %v", info, err)
			}
			aside, err := filepath.Glob(path + ".replaced-*")
			check(t, err)
			kept := ""
			if len(aside) > 0 {
				text, err := os.ReadFile(aside[0])
				check(t, err)
				kept = string(text)
			}
			if kept != tt.kept || len(aside) > 1 {
				t.Errorf("kept of a foreign file: %q in %v, want %q", kept, aside, tt.kept)
			}
			s, records := open(t, dir)
			wantRecords(t, records, "e:1 1", "e:2 2", "e:3 3")
			wantEvents(t, s, 1, 2, 3)
		})
	}
}

// An unreadable file is set aside with its content, and the history starts again.
func TestUnreadableFileIsSetAside(t *testing.T) {
	const setAside = "WARN history set aside, starting with an empty one"
	tests := []struct {
		name  string
		make  func(path string) error
		aside string // content of the file that was set aside
	}{
		{name: "damaged", aside: "damaged\n", make: func(path string) error { return os.WriteFile(path, []byte("damaged\n"), 0o600) }},
		{name: "empty", aside: "", make: func(path string) error { return os.WriteFile(path, nil, 0o600) }},
		{name: "a link", aside: "precious", make: func(path string) error {
			victim := filepath.Join(filepath.Dir(path), "victim")
			if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
				return err
			}
			return os.Symlink(victim, path)
		}},
		{name: "a pipe", make: func(path string) error { return unix.Mkfifo(path, 0o600) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			var l testLog
			o := options(dir, &l)
			if err := tt.make(o.Path); err != nil {
				t.Fatal(err)
			}
			s, records := Open(o)
			wantRecords(t, records)
			s.Append(Write{Set: set("e:1", `1`), Events: eventsOf(1)})
			wantEvents(t, s, 1)
			closeStore(t, s)
			l.want(t, setAside)
			aside, err := filepath.Glob(o.Path + ".damaged-*")
			if err != nil || len(aside) != 1 {
				t.Fatalf("set aside: %v, %v", aside, err)
			}
			if info, err := os.Stat(aside[0]); err == nil && info.Mode().IsRegular() {
				if text, err := os.ReadFile(aside[0]); err != nil || string(text) != tt.aside {
					t.Errorf("set aside: %q, %v, want %q", text, err, tt.aside)
				}
			}
			s, records = open(t, dir)
			wantRecords(t, records, "e:1 1")
			wantEvents(t, s, 1)
		})
	}
}

// A directory may contain somebody's data.
func TestDirectoryInThePlaceOfTheFileStays(t *testing.T) {
	dir := t.TempDir()
	var l testLog
	o := options(dir, &l)
	if err := os.Mkdir(o.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	s, _ := Open(o)
	for n := range 3 {
		s.Append(Write{Events: eventsOf(n)})
		wantEvents(t, s, n)
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "file exists") && !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("Close: %v", err)
	}
	l.want(t, "WARN history set aside, starting with an empty one", "WARN cannot write the history: until it recovers, a crash may lose or repeat changes")
	if err := os.Remove(o.Path); err != nil {
		t.Error(err)
	}
}

func TestFilesSetAsideAreBounded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "h")
	seconds := map[string]bool{}
	for n := 0; ; n++ {
		if err := os.WriteFile(path, fmt.Append(nil, n), 0o600); err != nil {
			t.Fatal(err)
		}
		aside, err := setAside(path, "damaged")
		if err != nil {
			if n < maxAside || len(seconds) == 0 {
				t.Errorf("after %d files: %v", n, err)
			}
			break
		}
		seconds[strings.TrimSuffix(aside, filepath.Ext(aside))] = true
		if text, err := os.ReadFile(aside); err != nil || string(text) != fmt.Sprint(n) {
			t.Fatalf("%s holds %q, %v", aside, text, err)
		}
		if n > 100*maxAside {
			t.Fatal("there is no bound")
		}
	}
}

// The file is replaced when its size has doubled, and not more often.
func TestFileIsReplacedWhenItHasDoubled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := open(t, dir)
	var largest, replaced int64
	var last os.FileInfo
	for n := range 300 {
		s.Append(Write{Set: set(fmt.Sprint("e:", n%10), fmt.Sprintf(`"%01000d"`, n))})
		closeWrites(s)
		info, err := os.Stat(s.options.Path)
		if err != nil {
			t.Fatal(err)
		}
		if last != nil && !os.SameFile(last, info) {
			replaced++
		}
		last, largest = info, max(largest, info.Size())
	}
	if replaced < 3 || replaced > 10 || largest > minLimit+2000 {
		t.Errorf("replaced %d times, %d bytes at most", replaced, largest)
	}
	kill(s)
	_, records := open(t, dir)
	want := map[string]string{}
	for n := 290; n < 300; n++ {
		want[fmt.Sprint("e:", n%10)] = fmt.Sprintf(`"%01000d"`, n)
	}
	got := map[string]string{}
	for key, r := range records {
		got[key] = string(r)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// Each line of the file is a JSON object, so that jq and grep can be used on it.
func TestFileIsJSONLines(t *testing.T) {
	s, _ := open(t, t.TempDir())
	s.Append(Write{Set: set("e:1", `{"a":"<x>"}`)})
	wantEvents(t, s)
	closeWrites(s)
	s.Append(Write{Events: eventsOf(1)})
	_, stored := wantEvents(t, s, 1)
	stored()
	closeStore(t, s)
	text, err := os.ReadFile(s.options.Path)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for l := range strings.Lines(string(text)) {
		var object map[string]json.RawMessage
		if err := json.Unmarshal([]byte(l), &object); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"snapshot", "set", "events", "delivered"} {
			if object[key] != nil {
				keys = append(keys, key)
			}
		}
	}
	if diff := cmp.Diff([]string{"snapshot", "events", "delivered"}, keys); diff != "" {
		t.Errorf("lines (-want +got):\n%s\n%s", diff, text)
	}
}
