package buffer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A full disk stores all dead-letter entries of an Add or none: those that failed are written
// once, when there is space again.
func TestDeadLettersOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("sockwatch-test", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d := NewDeadLetters(filepath.Join(dir, "out"))
	a, b := strings.Repeat("a", 30<<10), strings.Repeat("b", 30<<10)
	must(t, addEntry(d, a, "why"))
	filler := filepath.Join(dir, "filler")
	must(t, os.WriteFile(filler, make([]byte, 16<<10), 0o600))
	for range 3 {
		if err := addEntry(d, b, "why"); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("on a full disk: %v", err)
		}
	}
	wantDeadLetters(t, d.path, deadLetterLine{Error: "why", Record: a})
	must(t, os.Remove(filler))
	must(t, addEntry(d, b[:20<<10], "why"))
	wantDeadLetters(t, d.path, deadLetterLine{Error: "why", Record: a}, deadLetterLine{Error: "why", Record: b[:20<<10]})
}

// Add does not wait for a FIFO or socket, and works again after it.
func TestDeadLettersReplaceSpecialFiles(t *testing.T) {
	for _, mode := range []uint32{unix.S_IFIFO, unix.S_IFSOCK} {
		d := NewDeadLetters(filepath.Join(t.TempDir(), "out"))
		must(t, addEntry(d, "before", "why"))
		must(t, os.Remove(d.path))
		must(t, unix.Mknod(d.path, mode|0o600, 0))
		failed := make(chan error, 1)
		go func() { failed <- addEntry(d, "x", "why") }()
		select {
		case err := <-failed:
			want := fmt.Sprintf(`"out" is not a regular file (a symbolic link is not followed): renamed to %q`, d.path+".replaced")
			if err == nil || err.Error() != want {
				t.Errorf("%o: error %v, want %s", mode, err, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%o: waits for a reader", mode)
		}
		must(t, addEntry(d, "y", "why"))
		wantDeadLetters(t, d.path, deadLetterLine{Error: "why", Record: "y"})
	}
}

// The same holds for a FIFO in place of the directory.
func TestDeadLettersReplaceAFileInPlaceOfTheDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "out")
	dir := filepath.Dir(path)
	must(t, unix.Mkfifo(dir, 0o600))
	d := NewDeadLetters(path)
	want := fmt.Sprintf("%q: not a directory (a symbolic link is not followed): renamed to %q", dir, dir+".replaced")
	if err := addEntry(d, "x", "why"); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	must(t, addEntry(d, "y", "why"))
	wantDeadLetters(t, path, deadLetterLine{Error: "why", Record: "y"})
}

// A failingSync is a directory that cannot be synced.
type failingSync struct{}

func (failingSync) Sync() error { return unix.EIO }

// Until the name of the file is durable, the records stay in the queue.
func TestDeadLettersAreTakenBackIfTheirNameIsNotDurable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	if err := appendLines(f, []byte("line\n"), failingSync{}); err != unix.EIO {
		t.Errorf("error %v, want %v", err, unix.EIO)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("%d bytes are left, %v", info.Size(), err)
	}
}
