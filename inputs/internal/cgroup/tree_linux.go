package cgroup

import (
	"bytes"
	"errors"
	"iter"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/mountinfo"
)

// A Tree maps the numbers of cgroups in the unified hierarchy to their paths. The number of a
// cgroup is the inode of its directory; sock_diag reports it for a socket. A Tree must be
// used by one goroutine at a time.
type Tree struct {
	mount  string
	most   int               // how many cgroups are known at most: maxCgroups
	paths  map[uint64]string // by inode, below mount: "/", "/system.slice/nginx.service"
	walked bool              // since the last Begin
}

// ErrNoTree says that no unified hierarchy is mounted on the host.
var ErrNoTree = errors.New("no cgroup2 file system is mounted")

// OpenTree finds the unified hierarchy among the mounts in the file at path, which is
// /proc/self/mountinfo. It keeps nothing open.
func OpenTree(path string) (*Tree, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	mount := mountPoint(text)
	if mount == "" {
		return nil, ErrNoTree
	}
	return &Tree{mount: mount, most: maxCgroups}, nil
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

// Path returns the path of the cgroup with a number, or false if the cgroup was removed, is
// hidden, or is one of too many. Numbers are not reused, so known paths stay valid.
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
		t.walk()
	}
	p, ok = t.paths[inode]
	return p, ok
}

// lowHalf returns the inode of a cgroup on a 32-bit kernel. There the upper half of the number
// is a generation: kernfs_id_ino.
func lowHalf(number uint64) uint64 { return number & (1<<32 - 1) }

// maxCgroups limits how many cgroups are known. A user can create any number below their own, and
// use up the time of a gather. Those of the host's services are nearer to the root.
const maxCgroups = 1 << 14

// walk adds the cgroups below the root, those nearest to it first. It skips what it cannot read,
// since a cgroup may have been removed meanwhile.
func (t *Tree) walk() {
	for dirs := []string{"/"}; len(dirs) > 0; dirs = dirs[1:] {
		for name := range subdirectories(t.mount + dirs[0]) {
			if len(t.paths) >= t.most {
				return
			}
			var st unix.Stat_t
			below := path.Join(dirs[0], name)
			if unix.Lstat(t.mount+below, &st) == nil {
				t.paths[st.Ino] = below
				dirs = append(dirs, below)
			}
		}
	}
}

// subdirectories returns the names of the directories in a directory, as far as they can be read.
func subdirectories(dir string) iter.Seq[string] {
	return func(yield func(string) bool) {
		file, err := os.Open(dir)
		if err != nil {
			return
		}
		defer file.Close()
		for {
			entries, err := file.ReadDir(256)
			for _, e := range entries {
				if e.IsDir() && !yield(e.Name()) {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
}

// PIDs returns the processes of a cgroup, or none if it was removed or is hidden.
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
