// Package host identifies the host that a procfs shows: this one, or the host of a container
// that has the host's /proc mounted at another path.
package host

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Host says where to read the state of a host. It is plain data.
type Host struct {
	// Proc is the mount point of its procfs.
	Proc string
	// Root is its root directory: "/", or Proc/1/root for another host's procfs. Opening
	// files below the latter needs the same permissions as tracing pid 1.
	Root string
	// OwnPIDs reports that its pids are also the pids that this program's system calls use.
	OwnPIDs bool
	// OwnNetNS reports that this program is in the host's network namespace. Otherwise the
	// host's is that of its pid 1.
	OwnNetNS bool
}

// Find returns the host whose procfs is mounted at path.
func Find(path string) Host {
	path = filepath.Clean(path)
	h := Host{Proc: path, Root: "/", OwnNetNS: true}
	self, err := os.Readlink(path + "/self")
	h.OwnPIDs = err == nil && self == strconv.Itoa(os.Getpid())
	if path == "/proc" {
		return h
	}
	h.Root = path + "/1/root"
	// The file net/tcp of a network namespace has the same inode in every mount of procfs.
	// Unlike ns/net of pid 1, every program may stat it.
	var theirs, own unix.Stat_t
	h.OwnNetNS = unix.Stat(path+"/1/net/tcp", &theirs) == nil &&
		unix.Stat("/proc/thread-self/net/tcp", &own) == nil && theirs.Ino == own.Ino
	return h
}

// MachineID returns the id that distinguishes this host from others of the same image:
// machine-id(5); "" if it cannot be read.
func (h Host) MachineID() string { return readID(filepath.Join(h.Root, "etc/machine-id")) }

// BootID returns the id of the current boot: random(4); "" if it cannot be read, as in a
// procfs mounted with subset=pid.
func (h Host) BootID() string { return readID(h.Proc + "/sys/kernel/random/boot_id") }

// readID returns the first line of a regular file that holds an id.
func readID(path string) string {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer file.Close()
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		return ""
	}
	text := make([]byte, 64)
	n, err := io.ReadFull(file, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return ""
	}
	id, _, _ := strings.Cut(string(text[:n]), "\n")
	return strings.TrimSpace(id)
}
