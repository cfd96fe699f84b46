package tcplisten

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/ifaces"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/procfs"
	"sockwatch/inputs/internal/sockdiag"
)

// A space is one network namespace.
type space struct {
	inode uint64 // its number; 0 of the host's
	name  string // the tag netns; "" of the host's
	// door is the file by which the namespace is entered: /proc/PID/ns/net or a
	// mount of it; "" where the program is in it already.
	door string
	// process is a directory of /proc whose net is the namespace's; "" where it is
	// only mounted.
	process string

	listeners map[uint64]*listener // by cookie
	stamp     uint64               // of the last listing
	seen      int                  // how many of the listeners that has seen
	procfs    bool                 // it is listed from there: netlink is refused
	diag      *sockdiag.Conn       // nil where the namespace has to be entered anew
	watch     *ifaces.Watch        // likewise
	ifaces    ifaces.Table
	unread    bool   // a change of the interfaces has been announced that ifaces has not
	local     uint32 // the version of ifaces and of name
}

func newSpace() *space { return &space{listeners: make(map[uint64]*listener)} }

// close releases what is kept open. A connection keeps its namespace alive, so
// that only those of the program's own are kept from gather to gather.
func (sp *space) close() {
	if sp.diag != nil {
		sp.diag.Close()
		sp.diag = nil
	}
	if sp.watch != nil {
		sp.watch.Close()
		sp.watch = nil
	}
}

// A seer takes note of a socket that is in a space.
type seer func(*space, *inet.Socket)

// A listing says what is to be listed of a space, and who takes note of it.
type listing struct {
	established bool               // connections, not listeners
	pass        int                // over the same sockets: see sockdiag.Conn.Dump
	begin       func()             // called first, also where it has to begin again
	each        func(*inet.Socket) // called for every socket, perhaps twice for one
}

// listSpace lists the sockets of a space.
func (in *input) listSpace(ctx context.Context, sp *space, l listing) error {
	if in.options.Backend == backendProcfs || sp.procfs {
		return in.listProcfs(sp, l)
	}
	err := in.listNetlink(ctx, sp, l)
	if err == nil || in.options.Backend == backendNetlink || !refused(err) || !sp.isThere() {
		return err
	}
	const how = "listeners come from /proc/PID/net/tcp: without backlog limits, devices and cgroups"
	switch {
	case sp.door == "" && !in.told.netlink:
		in.told.netlink = true
		in.env.Log.Warn("netlink is refused, "+how, "reason", err)
	case sp.door != "" && !in.told.namespaces:
		in.told.namespaces = true
		in.env.Log.Warn("network namespaces may not be entered without CAP_SYS_ADMIN, their "+how, "reason", err)
	}
	sp.procfs = true
	return in.listProcfs(sp, l)
}

// isThere tells whether a namespace may still exist where it was found.
func (sp *space) isThere() bool {
	if sp.door == "" {
		return true
	}
	var st unix.Stat_t
	err := unix.Stat(sp.door, &st)
	return err == nil && (sp.inode == 0 || st.Ino == sp.inode) || err != nil && err != unix.ENOENT && err != unix.ESRCH
}

func (in *input) listNetlink(ctx context.Context, sp *space, l listing) error {
	states := sockdiag.Listen
	if l.established {
		states = sockdiag.Established
	}
	if sp.door == "" {
		if sp.diag == nil {
			diag, err := sockdiag.Dial(0)
			if err != nil {
				return err
			}
			sp.diag = diag
		}
		return sp.diag.Dump(ctx, states, l.pass, l.begin, l.each)
	}
	return sp.enter(func(netns int) error {
		diag, err := sockdiag.Dial(netns)
		if err != nil {
			return err
		}
		defer diag.Close()
		return diag.Dump(ctx, states, l.pass, l.begin, l.each)
	})
}

// errMoved says that what led to a namespace leads to another one by now.
var errMoved = errors.New("its process has moved to another network namespace")

// enter calls do with a descriptor of the namespace.
func (sp *space) enter(do func(netns int) error) error {
	door, err := os.Open(sp.door)
	if err != nil {
		return err
	}
	defer door.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(door.Fd()), &st); err != nil {
		return err
	}
	if sp.inode != 0 && st.Ino != sp.inode {
		return errMoved
	}
	return do(int(door.Fd()))
}

func (in *input) listProcfs(sp *space, l listing) error {
	l.begin()
	if sp.process == "" {
		if !in.told.empty {
			in.told.empty = true
			in.env.Log.Warn("a network namespace without a process is left out: to enter it takes netlink and CAP_SYS_ADMIN", "netns", sp.name)
		}
		return nil
	}
	var found []inet.Socket
	each := l.each
	if !l.established {
		each = func(s *inet.Socket) { found = append(found, *s) }
	}
	if err := in.fs.TCP(sp.process, l.established, l.pass, each); err != nil {
		return err
	}
	if sp.inode != 0 && in.netnsOf(sp.process) != sp.inode { // while it was read, or before
		return errMoved
	}
	if l.established {
		return nil
	}
	if err := in.guessV6Only(sp, found); err != nil {
		return err
	}
	for i := range found {
		l.each(&found[i])
	}
	return nil
}

// guessV6Only tells sockets of both families from those of IPv6 alone. Of other
// namespaces than the program's own nobody can read the default; it is 0.
func (in *input) guessV6Only(sp *space, found []inet.Socket) error {
	v6only := false
	if sp.door == "" {
		var err error
		if v6only, err = in.fs.BindV6Only(); err != nil {
			return err
		}
	}
	inet.GuessV6Only(found, v6only)
	return nil
}

// refused tells whether the kernel, or a filter before it, does not answer to
// netlink at all, or does not let the program into a namespace.
func refused(err error) bool {
	return slices.ContainsFunc([]error{
		unix.EPERM, unix.EACCES, unix.ENOSYS, unix.ENOENT, unix.EINVAL,
		unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.EOPNOTSUPP,
	}, func(e error) bool { return errors.Is(err, e) })
}

// readInterfaces reads the interfaces of a namespace where they have changed, or
// may have.
func (in *input) readInterfaces(sp *space) error {
	if sp.door == "" && sp.process == ownProcess {
		if sp.watch == nil {
			sp.watch, _ = ifaces.NewWatch() // before the first Read: no change is missed
		} else if !sp.watch.Changed() && !sp.unread {
			return nil
		}
	}
	sp.unread = true
	t, err := in.interfaces(sp)
	if err != nil {
		return fmt.Errorf("interfaces: %w", err)
	}
	sp.unread = false
	if !maps.Equal(t.Names, sp.ifaces.Names) || !slices.Equal(t.Addresses, sp.ifaces.Addresses) {
		sp.ifaces = t
		sp.local++
	}
	return nil
}

func (in *input) interfaces(sp *space) (t ifaces.Table, err error) {
	if !sp.procfs && in.options.Backend != backendProcfs {
		if sp.door == "" {
			t, err = ifaces.Read(0)
		} else {
			err = sp.enter(func(netns int) error {
				t, err = ifaces.Read(netns)
				return err
			})
		}
		if err == nil || !refused(err) || sp.process == "" {
			return t, err
		}
	}
	t.Addresses, err = in.fs.LocalAddresses(sp.process)
	return t, err
}

// ownProcess is the directory of /proc of whichever thread reads it. That of the
// process is its first thread's, which another input may have taken into another
// namespace for a moment.
const ownProcess = "thread-self"

// hostSpace returns the namespace of the host that proc shows: the program's own,
// or with another host's /proc that of its pid 1.
func hostSpace(fs *procfs.FS) *space {
	sp := newSpace()
	sp.process = ownProcess
	if fs.Path() == "/proc" {
		return sp
	}
	// Every mount of procfs gives the tables of a namespace the same inode, which
	// anybody may read, unlike ns/net of pid 1.
	var host, own unix.Stat_t
	if unix.Stat(fs.Path()+"/1/net/tcp", &host) == nil && unix.Stat("/proc/thread-self/net/tcp", &own) == nil && host.Ino == own.Ino {
		return sp
	}
	sp.process, sp.door = "1", fs.Path()+"/1/ns/net"
	return sp
}
