package tcplisten

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/escape"
	"sockwatch/inputs/internal/inet"
)

// listAll calls each for every listening socket of every space. A namespace that
// ends meanwhile is listed without sockets.
func (in *input) listAll(ctx context.Context, each seer) error {
	for _, sp := range in.spaces {
		err := in.listListeners(ctx, sp, each)
		for tries := 0; err != nil && tries < 3 && sp != in.host && in.findAgain(sp); tries++ {
			err = in.listListeners(ctx, sp, each)
		}
		if err != nil && (sp == in.host || sp.isThere()) {
			return err
		}
	}
	return nil
}

// findAgain looks for another process in a namespace that the one by which it was
// found has left; false where there is none, or that one is still there.
func (in *input) findAgain(sp *space) bool {
	if sp.process == "" || in.netnsOf(sp.process) == sp.inode {
		return false
	}
	pids, err := in.fs.PIDs(nil)
	if err != nil {
		return false
	}
	mounted := sp.door != in.doorOf(sp.process)
	sp.process = ""
	for _, pid := range pids {
		if p := strconv.Itoa(pid); in.netnsOf(p) == sp.inode {
			sp.process = p
			break
		}
	}
	if !mounted {
		sp.door = in.doorOf(sp.process)
	}
	return mounted || sp.process != ""
}

// doorOf returns the file by which the namespace of a process is entered.
func (in *input) doorOf(process string) string { return in.fs.Path() + "/" + process + "/ns/net" }

// netnsOf returns the number of the namespace of a process; 0 where it is not seen.
func (in *input) netnsOf(process string) uint64 {
	pid, err := strconv.Atoi(process)
	if err != nil {
		return 0
	}
	inode, err := in.fs.NetNS(pid)
	if err != nil {
		return 0
	}
	return inode
}

// listListeners lists the listeners of one space. Where some have come or gone, the
// kernel may have passed over others: then it is asked again until nothing is new.
func (in *input) listListeners(ctx context.Context, sp *space, each seer) error {
	wildcard := false
	l := listing{
		begin: func() { sp.stamp, sp.seen = sp.stamp+1, 0 },
		each: func(s *inet.Socket) {
			wildcard = wildcard || s.Device != 0 || s.Addr.Unmap().IsUnspecified()
			each(sp, s)
		},
	}
	l.begin() // also where the listing cannot begin
	for known, calm := len(sp.listeners), false; !calm && l.pass < 4; l.pass++ {
		seen := sp.seen
		if err := in.listSpace(ctx, sp, l); err != nil {
			return err
		}
		calm = sp.seen == seen
		if l.pass == 0 {
			calm = sp.seen == known && len(sp.listeners) == known
			l.begin = func() {} // what any pass has seen is there
		}
	}
	if !wildcard {
		return nil
	}
	return in.readInterfaces(sp)
}

// findSpaces brings the spaces in line with the network namespaces that there are:
// those of processes, and those that are mounted under /run/netns.
func (in *input) findSpaces() error {
	if !in.options.Namespaces {
		return nil
	}
	host := in.hostInode()
	found := make(map[uint64]space)
	pids, err := in.fs.PIDs(nil)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		inode, err := in.fs.NetNS(pid)
		if _, known := found[inode]; err != nil || known || inode == host {
			continue
		}
		p := strconv.Itoa(pid)
		found[inode] = space{name: strconv.FormatUint(inode, 10), process: p, door: in.doorOf(p)}
	}
	in.findMounts(found, host)
	in.keepSpaces(found)
	return nil
}

// hostInode returns the number of the host's namespace; 0 where that is hidden,
// as then are those of its processes.
func (in *input) hostInode() uint64 {
	door := in.host.door
	if door == "" {
		door = "/proc/thread-self/ns/net"
	}
	var st unix.Stat_t
	if unix.Stat(door, &st) != nil {
		return 0
	}
	return st.Ino
}

// findMounts adds the namespaces that have a name, and the names of those known.
func (in *input) findMounts(found map[uint64]space, host uint64) {
	dir := "/run/netns"
	if in.fs.Path() != "/proc" {
		dir = filepath.Join(in.fs.Path(), "1/root", dir)
	}
	entries, err := os.ReadDir(dir) // sorted: of two names the first counts
	if err != nil {
		return
	}
	named := make(map[uint64]bool)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		var fs unix.Statfs_t
		if unix.Stat(path, &st) != nil || unix.Statfs(path, &fs) != nil || fs.Type != unix.NSFS_MAGIC {
			continue
		}
		if st.Ino == host || named[st.Ino] {
			continue
		}
		named[st.Ino] = true
		sp := found[st.Ino]
		sp.name, sp.door = escape.Name([]byte(e.Name())), path
		found[st.Ino] = sp
	}
}

// keepSpaces takes over what was found. A space that is gone stays for one
// listing more, by which its listeners are seen to be gone.
func (in *input) keepSpaces(found map[uint64]space) {
	kept := in.spaces[:0]
	for _, sp := range in.spaces {
		now, ok := found[sp.inode]
		switch {
		case sp == in.host:
		case !ok && len(sp.listeners) == 0:
			continue
		case ok:
			if sp.name != now.name {
				sp.name = now.name
				sp.local++
			}
			sp.door, sp.process = now.door, now.process
			delete(found, sp.inode)
		}
		kept = append(kept, sp)
	}
	for inode, now := range found {
		sp := newSpace()
		sp.inode, sp.name, sp.door, sp.process = inode, now.name, now.door, now.process
		kept = append(kept, sp)
	}
	clear(in.spaces[min(len(kept), len(in.spaces)):])
	in.spaces = kept
	slices.SortFunc(in.spaces, func(a, b *space) int { return cmp.Compare(a.inode, b.inode) })
}
