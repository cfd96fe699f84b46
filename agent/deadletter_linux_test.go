package agent

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A full disk takes whole letters or none: what could not be kept is written once,
// when there is space again.
func TestS8DeadLettersOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("sockwatch-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d := newDeadLetters(dir, "out")
	record := func(c byte, n int) [][]byte { return [][]byte{bytes.Repeat([]byte{c}, n)} }
	if err := d.add(record('a', 30<<10), errors.New("why")); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 16<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := d.add(record('b', 30<<10), errors.New("why")); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("on a full disk: %v", err)
		}
	}
	if letters := readLetters(t, d.path); len(letters) != 1 {
		t.Errorf("%d letters on the full disk, want the one before", len(letters))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := d.add(record('b', 20<<10), errors.New("why")); err != nil {
		t.Fatal(err)
	}
	if letters := readLetters(t, d.path); len(letters) != 2 || letters[1].Record != string(record('b', 20<<10)[0]) {
		t.Errorf("%d letters in the end", len(letters))
	}
}
