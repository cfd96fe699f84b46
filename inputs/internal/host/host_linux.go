// Package host names the host that a procfs shows: this one, or the one around a
// container that has the host's /proc mounted elsewhere.
package host

import (
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Host says where the facts of a host are found. It is plain data.
type Host struct {
	// Proc is where its procfs is mounted.
	Proc string
	// Root is its root directory: "/", or Proc/1/root for another host's procfs.
	// Opening files below the latter takes the same rights as tracing pid 1.
	Root string
	// OwnPIDs reports that its pids mean the same processes to this program's system
	// calls.
	OwnPIDs bool
	// OwnNetNS reports that its network namespace is this program's own. Otherwise it
	// is that of its pid 1.
	OwnNetNS bool
}

// Find looks at the procfs that is mounted at path.
func Find(path string) Host {
	path = filepath.Clean(path)
	h := Host{Proc: path, Root: "/", OwnNetNS: true}
	self, err := os.Readlink(path + "/self")
	h.OwnPIDs = err == nil && self == strconv.Itoa(os.Getpid())
	if path == "/proc" {
		return h
	}
	h.Root = path + "/1/root"
	// The tables of a network namespace have the same inode in every mount of procfs,
	// and anybody may stat them, unlike ns/net of pid 1.
	var theirs, own unix.Stat_t
	h.OwnNetNS = unix.Stat(path+"/1/net/tcp", &theirs) == nil &&
		unix.Stat("/proc/thread-self/net/tcp", &own) == nil && theirs.Ino == own.Ino
	return h
}
