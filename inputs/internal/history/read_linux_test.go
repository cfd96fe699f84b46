package history

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A reader sees what has been written while the writing store has the file locked, and
// changes nothing.
func TestReadBesideTheStoreThatWrites(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	defer closeStore(t, s)
	path := filepath.Join(dir, "tcp_listen.history.jsonl")
	for n := 1; n <= 3; n++ {
		s.Append(Write{Events: eventsOf(n)})
		_, stored := wantEvents(t, s, n)
		if n == 1 {
			stored()
		}
	}
	s.Append(Write{Set: set("e:1", "{}")})
	s.Events(wait)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	events, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{1, 2, 3}, numbers(events)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	after, err := os.ReadFile(path)
	if err != nil || len(after) < len(before) || string(after[:len(before)]) != string(before) {
		t.Errorf("the file has changed: %v", err)
	}
	wantFiles(t, dir, "tcp_listen.history.jsonl")
}

// A line that is still being written is ignored.
func TestReadIgnoresALineWithoutAnEnd(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	s.Append(Write{Events: eventsOf(1)})
	wantEvents(t, s, 1)
	closeStore(t, s)
	path := filepath.Join(dir, "tcp_listen.history.jsonl")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"crc":"01234567","history":`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	events, err := Read(path)
	if diff := cmp.Diff([]int{1}, numbers(events)); diff != "" || err != nil {
		t.Errorf("%v, events (-want +got):\n%s", err, diff)
	}
}

func TestReadOfWhatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tcp_listen.history.jsonl")
	if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	if err := os.WriteFile(path, []byte("damaged\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Read(path)
	if want := path + ": line 1: is not a line of a history"; err == nil || err.Error() != want {
		t.Errorf("damaged: %v, want %s", err, want)
	}
	wantFiles(t, dir, "tcp_listen.history.jsonl")
}

// wantFiles checks which files a directory contains.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}
