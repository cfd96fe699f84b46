package owner

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/procfs"
)

// A fakeHost is a directory that looks like the procfs of a whole host, with its
// first process and kthreadd.
type fakeHost struct {
	t    *testing.T
	path string
}

func newFakeHost(t *testing.T) fakeHost {
	h := fakeHost{t, fastDir(t)}
	h.write("stat", "btime 1700000000\n")
	h.process(1, 1, "/init.scope")
	h.write("2/stat", "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 24 0 0\n")
	h.write("2/fd/", "")
	return h
}

// write writes a file, or creates a directory if its name ends in "/".
func (h fakeHost) write(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.path, name)
	dir := filepath.Dir(path)
	if name[len(name)-1] == '/' {
		dir = path
	}
	err := os.MkdirAll(dir, 0o700)
	if err == nil && dir != path {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// process creates a process of one thread that has sockets open.
func (h fakeHost) process(pid int, start uint64, cgroup string, inodes ...uint64) {
	h.t.Helper()
	h.write(fmt.Sprintf("%d/stat", pid), fmt.Sprintf("%d (p%d) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0\n", pid, pid, start))
	h.write(fmt.Sprintf("%d/cgroup", pid), "0::"+cgroup+"\n")
	h.write(fmt.Sprintf("%d/task/%d/", pid, pid), "")
	h.write(fmt.Sprintf("%d/fd/", pid), "")
	for fd, inode := range inodes {
		h.link(pid, fd, fmt.Sprintf("socket:[%d]", inode))
	}
}

func (h fakeHost) link(pid, fd int, target string) {
	h.t.Helper()
	if err := os.Symlink(target, filepath.Join(h.path, strconv.Itoa(pid), "fd", strconv.Itoa(fd))); err != nil {
		h.t.Fatal(err)
	}
}

// remove removes a file, or everything of a process.
func (h fakeHost) remove(name string) {
	h.t.Helper()
	if err := os.RemoveAll(filepath.Join(h.path, name)); err != nil {
		h.t.Fatal(err)
	}
}

// finder returns a Finder of the host that knows sockets.
func (h fakeHost) finder(options Options, sockets ...*Socket) *Finder {
	h.t.Helper()
	fs, err := procfs.Open(host.Find(h.path))
	if err != nil {
		h.t.Fatal(err)
	}
	f, err := NewFinder(fs, options)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := f.Close(); err != nil {
			h.t.Error(err)
		}
		fs.Close()
	})
	for _, s := range sockets {
		f.Add(s)
	}
	return f
}
