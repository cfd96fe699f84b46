package owner

import (
	"errors"
	"testing"

	"sockwatch/inputs/internal/procfs"
)

// TestScanIsRepeatedAfterAnError leaves the cursor unchanged: the files seen so far were
// not recorded.
func TestScanIsRepeatedAfterAnError(t *testing.T) {
	h := newFakeHost(t)
	inodes := make([]uint64, 3000)
	for i := range inodes {
		inodes[i] = uint64(100 + i)
	}
	h.process(10, 1, "/a.service", inodes...)
	last := &Socket{Inode: inodes[2999]}
	f := h.finder(rarely())
	for _, inode := range inodes[:2999] {
		f.Add(&Socket{Inode: inode})
	}
	f.Add(last)
	f.scanner.limits = limitsOf(len(inodes))
	var c procfs.Cursor
	none := func(procfs.File) {}
	scan := func(budget int) (bool, error) {
		return f.scanner.scan(&limited{t.Context(), budget}, 10, procfs.Process.Files, &c, none)
	}
	stat := "10 (p10) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0\n"
	h.remove("10/stat") // as if there were no descriptor for it
	if done, err := scan(0); done || !errors.Is(err, procfs.ErrExited) || c != (procfs.Cursor{}) {
		t.Errorf("done %v, %v, %+v, want an error and no change", done, err, c)
	}
	h.write("10/stat", stat)
	if done, err := scan(0); done || err != nil || c == (procfs.Cursor{}) {
		t.Errorf("done %v, %v, %+v: it was not cut", done, err, c)
	}
	if done, err := scan(1000); !done || err != nil {
		t.Errorf("done %v, %v", done, err)
	}
	for _, s := range f.sockets {
		if s.Count() != 1 {
			t.Fatalf("socket %d: %d holders, want 1", s.Inode, s.Count())
		}
	}
}
