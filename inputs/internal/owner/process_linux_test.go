package owner

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKnownArgumentsStayWhileTheirReadHangs replaces the file by a pipe, which is read like the
// memory of a process that waits for a stalled file system.
func TestKnownArgumentsStayWhileTheirReadHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for two seconds")
	}
	t.Parallel()
	h := newFakeHost(t)
	h.process(70, 100, "/web.service", 7)
	h.write("70/cmdline", "web\x00-d\x00")
	s := &Socket{Inode: 7}
	f := h.finder(Options{Verify: time.Second, Refresh: time.Hour, Cmdline: 64}, s)
	now := time.Now()
	f.Update(t.Context(), now)
	h.remove("70/cmdline")
	pipe := filepath.Join(h.path, "70/cmdline")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	f.Update(t.Context(), now.Add(time.Minute))
	if p := s.Named(); p == nil || p.Cmdline != "web -d" {
		t.Errorf("the holder is %+v, want the arguments web -d", p)
	}
}
