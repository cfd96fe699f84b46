package agent

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A full disk takes whole entries or none: what could not be kept is written once,
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
	entry := func(c byte, n int) []deadLetter {
		return []deadLetter{{bytes.Repeat([]byte{c}, n), errors.New("why")}}
	}
	if err := d.add(entry('a', 30<<10)); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 16<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := d.add(entry('b', 30<<10)); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("on a full disk: %v", err)
		}
	}
	if entries := readDeadLetters(t, d.path); len(entries) != 1 {
		t.Errorf("%d entries on the full disk, want the one before", len(entries))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := d.add(entry('b', 20<<10)); err != nil {
		t.Fatal(err)
	}
	if entries := readDeadLetters(t, d.path); len(entries) != 2 || entries[1].Record != string(entry('b', 20<<10)[0].record) {
		t.Errorf("%d entries in the end", len(entries))
	}
}
