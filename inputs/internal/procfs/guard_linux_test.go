package procfs

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// makeHangingFile makes a file whose reads hang until what it returns is closed, at the latest
// when the test ends.
func makeHangingFile(t *testing.T, path string) *os.File {
	t.Helper()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { writer.Close() })
	return writer
}

// TestArgumentsThatHangAreNotWaitedFor: those of other processes are read again when the read has
// ended.
func TestArgumentsThatHangAreNotWaitedFor(t *testing.T) {
	f := openTree(t, map[string]string{"stat": btime, "7/stat": "", "8/cmdline": "web\x00-d\x00"})
	f.cmdlineReads.timeout = 10 * time.Millisecond
	writer := makeHangingFile(t, f.Path()+"/7/cmdline")
	arguments := func(pid int) (string, error) {
		t.Helper()
		p, err := f.Process(pid)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		text, err := p.Cmdline(256)
		return string(text), err
	}
	for _, pid := range []int{7, 8} {
		if text, err := arguments(pid); !errors.Is(err, ErrHangs) {
			t.Errorf("process %d: %q, %v, want that it hangs", pid, text, err)
		}
	}
	writer.Close() // the end of the file, for the read that waits
	f.cmdlineReads.timeout = time.Minute
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		text, err := arguments(8)
		if err == nil && text == "web\x00-d\x00" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q, %v, want the arguments", text, err)
		}
	}
}
