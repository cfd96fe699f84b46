package buffer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// readDeadLetters returns the lines of a dead-letter file without their times, which must be
// present.
func readDeadLetters(t *testing.T, path string) (lines []deadLetterLine) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var l deadLetterLine
		must(t, json.Unmarshal([]byte(line), &l))
		if l.Time.IsZero() {
			t.Errorf("no time in %s", line)
		}
		l.Time = time.Time{}
		lines = append(lines, l)
	}
	return lines
}

func wantDeadLetters(t *testing.T, path string, want ...deadLetterLine) {
	t.Helper()
	if diff := cmp.Diff(want, readDeadLetters(t, path)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// addEntry adds one record.
func addEntry(d *DeadLetters, record, reason string) error {
	return d.Add([]DeadLetter{{Record: []byte(record), Reason: errors.New(reason)}})
}

func TestEachDeadLetterHasItsOwnReason(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "out.rejected.jsonl")
	d := NewDeadLetters(path)
	must(t, d.Add([]DeadLetter{
		{Record: []byte("one"), Reason: errors.New("too old")},
		{Record: []byte{0xff, 0xfe}, Reason: errors.New("not text")},
	}))
	must(t, addEntry(d, "three", "too new"))
	wantDeadLetters(t, path,
		deadLetterLine{Error: "too old", Record: "one"},
		deadLetterLine{Error: "not text", Binary: []byte{0xff, 0xfe}},
		deadLetterLine{Error: "too new", Record: "three"})
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got := d.Path(); got != path {
		t.Errorf("path %q, want %q", got, path)
	}
}

func TestDeadLettersWithoutAFileAreNotKept(t *testing.T) {
	var d DeadLetters
	must(t, addEntry(&d, "one", "why"))
	if d.Path() != "" {
		t.Errorf("path %q", d.Path())
	}
}

func TestDeadLettersRotateAndRepairTornLines(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 25 MB")
	}
	t.Parallel()
	dir := t.TempDir()
	d := NewDeadLetters(filepath.Join(dir, "out"))
	must(t, addEntry(d, "good", "why"))
	f, err := os.OpenFile(d.path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	fmt.Fprintf(f, `{"time":"torn`)
	must(t, f.Close())
	must(t, addEntry(d, "next", "why"))
	text, err := os.ReadFile(d.path)
	must(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 3 || lines[1] != `{"time":"torn` || !strings.Contains(lines[2], `"record":"next"`) {
		t.Errorf("dead letters:\n%s", text)
	}
	for range 5 {
		must(t, addEntry(d, strings.Repeat("x", 5<<20), "why"))
	}
	info, err := os.Stat(d.path)
	if err != nil || info.Size() > maxDeadLetters {
		t.Errorf("after the rotation: %v, %v", info.Size(), err)
	}
	if info, err = os.Stat(d.path + ".1"); err != nil || info.Size() > maxDeadLetters {
		t.Errorf("the older generation: %v, %v", info.Size(), err)
	}
}

func TestDeadLettersFollowNoSymlink(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	d := NewDeadLetters(filepath.Join(dir, "out"))
	if err := os.Symlink(target, d.path); err != nil {
		t.Skip(err)
	}
	err := addEntry(d, "x", "why")
	want := fmt.Sprintf(`"out" is not a regular file (a symbolic link is not followed): renamed to %q`, d.path+".replaced")
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if _, err := os.Stat(target); !errors.Is(err, os.ErrNotExist) {
		t.Error("the link's target was made")
	}
	must(t, addEntry(d, "y", "why"))
	wantDeadLetters(t, d.path, deadLetterLine{Error: "why", Record: "y"})
}

// A directory in place of the file may be somebody's data: it stays.
func TestDeadLettersLeaveADirectoryAlone(t *testing.T) {
	dir := t.TempDir()
	d := NewDeadLetters(filepath.Join(dir, "out"))
	must(t, os.Mkdir(d.path, 0o700))
	for range 2 {
		err := addEntry(d, "x", "why")
		if want := `"out" is not a regular file (a symbolic link is not followed)`; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	must(t, os.Remove(d.path))
	must(t, addEntry(d, "x", "why"))
	wantDeadLetters(t, d.path, deadLetterLine{Error: "why", Record: "x"})
}

// The next Add creates a removed file again.
func TestDeadLettersRecreateRemovedFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "out")
	d := NewDeadLetters(path)
	for _, removed := range []string{path, filepath.Dir(path)} {
		must(t, addEntry(d, "x", "why"))
		must(t, os.RemoveAll(removed))
		must(t, addEntry(d, "y", "why"))
		wantDeadLetters(t, path, deadLetterLine{Error: "why", Record: "y"})
	}
}
