package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestForeignChanges: something changes the files and the directory of an open
// queue, on a real file system.
func TestForeignChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("tries many changes on a real disk")
	}
	inPlace := func(put func(path string) error) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			must(t, os.RemoveAll(path))
			must(t, put(path))
		}
	}
	operations := []struct {
		name string
		do   func(t *testing.T, path string)
	}{
		{"removed", inPlace(func(string) error { return nil })},
		{"moved", func(t *testing.T, path string) { must(t, os.Rename(path, path+".moved")) }},
		{"truncated", func(t *testing.T, path string) {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				must(t, os.Truncate(path, 0))
			}
		}},
		{"replaced by a file", inPlace(func(path string) error { return os.WriteFile(path, []byte("file"), 0o600) })},
		{"replaced by a directory", inPlace(func(path string) error { return os.Mkdir(path, 0o700) })},
		{"replaced by a FIFO", inPlace(func(path string) error { return unix.Mkfifo(path, 0o600) })},
		{"replaced by a link", inPlace(func(path string) error { return os.Symlink("nowhere", path) })},
		{"moved, with a link to it", func(t *testing.T, path string) {
			must(t, os.Rename(path, path+".moved"))
			must(t, os.Symlink(filepath.Base(path)+".moved", path))
		}},
	}
	targets := []struct {
		name string
		path func(dir string) string
	}{
		{"the active segment", func(dir string) string { return filepath.Join(dir, segment1) }},
		{"the acks", func(dir string) string { return filepath.Join(dir, acksName) }},
		{"the reserve", func(dir string) string { return filepath.Join(dir, reserveName) }},
		{"the directory", func(dir string) string { return dir }},
		{"its parent", func(dir string) string { return filepath.Dir(dir) }},
	}
	for _, target := range targets {
		for _, op := range operations {
			t.Run(target.name+" "+op.name, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "state", "q")
				must(t, os.Mkdir(filepath.Dir(dir), 0o700))
				q, err := OpenDisk(dir, 1<<20, discard())
				must(t, err)
				wantAppend(t, q, 0, "a")
				wantAppend(t, q, 0, "b")
				op.do(t, target.path(dir))

				for _, r := range []string{"c", "d", "e"} {
					wantAppend(t, q, 0, r)
				}
				got := takeAll(t, q)
				if want := "cde"; !strings.HasSuffix(got, want) || len(got)+q.Stats().Damaged != 5 {
					t.Errorf("delivered %q with %d damaged, want all that was queued after it: %q", got, q.Stats().Damaged, want)
				}

				// Records queued and acked now stay so for the next process.
				wantAppend(t, q, 0, "f", "g")
				wantPeek(t, q, 1, 100, "f")
				must(t, q.Ack(1))
				must(t, q.Close())
				q, err = OpenDisk(dir, 1<<20, discard())
				must(t, err)
				if got := takeAll(t, q); got != "g" {
					t.Errorf("after a restart %q, want g", got)
				}
				must(t, q.Close())
			})
		}
	}
}

// TestSetAsideKeepsWhatWasSetAsideBefore: a second file in the place of the directory,
// the acks or the dead-letter file does not replace the first.
func TestSetAsideKeepsWhatWasSetAsideBefore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "q")
	acks := filepath.Join(dir, acksName)
	letters := NewDeadLetters(filepath.Join(filepath.Dir(dir), "rejected"))
	q, err := OpenDisk(dir, 1<<20, discard())
	must(t, err)
	replace := func(path, content string) {
		t.Helper()
		must(t, os.RemoveAll(path))
		must(t, os.WriteFile(path, []byte(content), 0o600))
	}
	contents := []string{"one", "two", "three"}
	for _, content := range contents {
		replace(dir, content)
		wantAppend(t, q, 0, "a")

		must(t, os.RemoveAll(letters.path))
		must(t, os.Symlink(content, letters.path))
		if err := addEntry(letters, "x", "why"); !errors.Is(err, errSetAside) {
			t.Errorf("error %v", err)
		}
	}
	for _, content := range contents { // in the directory that was made last
		must(t, os.RemoveAll(acks))
		must(t, os.Symlink(content, acks))
		wantAppend(t, q, 0, "b")
		if got := takeAll(t, q); !strings.HasSuffix(got, "b") {
			t.Errorf("delivered %q", got)
		}
	}
	must(t, q.Close())
	for i, suffix := range []string{".replaced", ".replaced.1", ".replaced.2"} {
		if got, err := os.ReadFile(dir + suffix); err != nil || string(got) != contents[i] {
			t.Errorf("%s: %q, %v, want %q", suffix, got, err, contents[i])
		}
		for _, path := range []string{letters.path, acks} {
			if got, err := os.Readlink(path + suffix); err != nil || got != contents[i] {
				t.Errorf("%s: %q, %v, want %q", path+suffix, got, err, contents[i])
			}
		}
	}
}

// TestSetAsideIsBounded: if every name is taken, nothing is replaced.
func TestSetAsideIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "q")
	must(t, os.WriteFile(path, []byte("mine"), 0o600))
	must(t, os.WriteFile(path+".replaced", nil, 0o600))
	for n := 1; n < maxAside; n++ {
		must(t, os.WriteFile(fmt.Sprintf("%s.replaced.%d", path, n), nil, 0o600))
	}
	err := setAside(path, errNotDirectory)
	want := fmt.Sprintf("not a directory (a symbolic link is not followed)\n100 files named %q and so on exist: remove them", path+".replaced")
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "mine" {
		t.Errorf("%q, %v", got, err)
	}
	must(t, os.Remove(path+".replaced.99"))
	err = setAside(path, errNotDirectory)
	if want := fmt.Sprintf("not a directory (a symbolic link is not followed): renamed to %q", path+".replaced.99"); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// takeAll reads and acks everything, and returns it in one string.
func takeAll(t *testing.T, q Queue) (all string) {
	t.Helper()
	for range 100 {
		records, err := q.Peek(1, 100)
		must(t, err)
		if len(records) == 0 {
			return all
		}
		all += string(records[0])
		if err := q.Ack(1); err != nil {
			t.Log(err)
		}
	}
	t.Fatalf("does not end: %q", all)
	return ""
}

// The log says once what was removed, and how many points were lost.
func TestRemovedSegmentIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	dir := filepath.Join(t.TempDir(), "q")
	q, err := OpenDisk(dir, 1<<20, slog.New(slog.NewTextHandler(&log, nil)))
	must(t, err)
	wantAppend(t, q, 0, "a", "b")
	must(t, os.Remove(filepath.Join(dir, segment1)))
	for range 3 {
		wantAppend(t, q, 0, "c")
	}
	wantPeek(t, q, 10, 100, "c", "c", "c")
	wantAck(t, q, 3)
	must(t, q.Close())
	for _, want := range []string{
		`level=ERROR msg="queue file or directory was removed or replaced, creating it again"`,
		`level=ERROR msg="queue segment is missing, its points are lost"`,
		"points_lost=2\n",
	} {
		if n := strings.Count(log.String(), want); n != 1 {
			t.Errorf("%d times %q in the log:\n%s", n, want, log.String())
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}

// TestQueueDirectoryOfOthersIsRefused: its files may be planted.
func TestQueueDirectoryOfOthersIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("chown needs root")
	}
	tests := []struct {
		mode os.FileMode
		uid  int
		want string
	}{
		{0o777, 0, "others may write to it (mode 0777)"},
		{0o700, 12345, "belongs to user 12345, not to this user (0) or root"},
	}
	for _, tt := range tests {
		dir := filepath.Join(t.TempDir(), "q")
		must(t, os.Mkdir(dir, 0o700))
		must(t, os.Chmod(dir, tt.mode))
		must(t, os.Chown(dir, tt.uid, 0))
		_, err := OpenDisk(dir, 1<<20, discard())
		if want := fmt.Sprintf("queue %q: %s", dir, tt.want); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
