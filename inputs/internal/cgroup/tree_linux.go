package cgroup

import (
	"bytes"
	"errors"
	"os"
	"path"
	"sockwatch/inputs/internal/mountinfo"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Tree holds the paths of the cgroups of the unified hierarchy by their numbers. The
// number of a cgroup is the inode of its directory, and what sock_diag reports of a
// socket. A Tree is used by one goroutine at a time.
type Tree struct {
	mount  string
	paths  map[uint64]string // by inode, below mount: "/", "/system.slice/nginx.service"
	walked bool              // since the last Begin
}

// ErrNoTree is the error of a host on which no unified hierarchy is mounted.
var ErrNoTree = errors.New("no cgroup2 file system is mounted")

// OpenTree finds the unified hierarchy among the mounts that are listed in the file
// at path, /proc/self/mountinfo. It keeps nothing open.
func OpenTree(path string) (*Tree, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	mount := mountPoint(text)
	if mount == "" {
		return nil, ErrNoTree
	}
	return &Tree{mount: mount}, nil
}

// mountPoint returns the mount point of the first cgroup2 file system, or "".
//
//	31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw
func mountPoint(text []byte) string {
	for line := range bytes.Lines(text) {
		mount, super, ok := strings.Cut(string(line), " - ")
		fields := strings.Fields(mount)
		if ok && len(fields) >= 5 && strings.HasPrefix(super, "cgroup2 ") {
			return mountinfo.Unescape([]byte(fields[4]))
		}
	}
	return ""
}

// Mount returns the mount point of the hierarchy.
func (t *Tree) Mount() string { return t.mount }

// Begin allows the next Path of an unknown number to read the tree again.
func (t *Tree) Begin() { t.walked = false }

// Path returns the path of the cgroup with a number, and false if it is removed or
// hidden. Numbers are not reused, so known paths stay valid.
func (t *Tree) Path(number uint64) (string, bool) {
	inode := number
	if strconv.IntSize == 32 {
		inode = lowHalf(number)
	}
	p, ok := t.paths[inode]
	if ok || t.walked {
		return p, ok
	}
	t.walked = true
	t.paths = make(map[uint64]string)
	var st unix.Stat_t
	if unix.Stat(t.mount, &st) == nil {
		t.paths[st.Ino] = "/"
		t.walk("/")
	}
	p, ok = t.paths[inode]
	return p, ok
}

// lowHalf returns what a 32-bit kernel has as the inode of a cgroup. The other half of
// the number is a generation there, and 0 on other kernels: kernfs_id_ino.
func lowHalf(number uint64) uint64 { return number & (1<<32 - 1) }

// walk adds the cgroups below one. It skips what cannot be read: the cgroup may be
// removed by now.
func (t *Tree) walk(dir string) {
	entries, err := os.ReadDir(t.mount + dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		var st unix.Stat_t
		below := path.Join(dir, e.Name())
		if unix.Lstat(t.mount+below, &st) == nil {
			t.paths[st.Ino] = below
			t.walk(below)
		}
	}
}

// PIDs returns the processes of a cgroup; none if it is removed or hidden.
func (t *Tree) PIDs(cgroup string) []int {
	text, err := os.ReadFile(t.mount + cgroup + "/cgroup.procs")
	if err != nil {
		return nil
	}
	var pids []int
	for line := range bytes.Lines(text) {
		if pid, err := strconv.Atoi(string(bytes.TrimSpace(line))); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}
