// Package owner finds the processes that hold sockets, and keeps the result up to date at
// low cost: the kernel reports which processes have exited, known holders are verified from
// time to time, and all open files of the host are searched only for sockets without a known
// holder.
package owner

import (
	"cmp"
	"time"

	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/procfs"
)

// A Status is the state of the search for a socket's holders.
type Status uint8

// The values of Status.
const (
	Pending    Status = iota // the search has not ended yet
	Resolved                 // there is at least one holder
	Unreadable               // no process that could be read holds it, but some could not be read
	None                     // no process holds it: all were read
	Exited                   // it was closed during the search
)

// String returns the value of the tag owner.
func (s Status) String() string {
	return [...]string{"pending", "resolved", "unreadable", "none", "exited"}[s]
}

// A Socket is a socket and its known holders. The caller sets the first three fields. The
// Finder that the Socket is added to sets everything else.
type Socket struct {
	Inode     uint64
	Cgroup    string // path of the cgroup in which it was created, or ""
	Candidate int    // process that is searched first, or 0

	Status Status
	// Holders are processes that hold the socket, at most 64, in the order of Compare. They
	// are valid until the next Update.
	Holders []Holder
	// Version changes whenever Status, Holders, their facts or Count change.
	Version uint32

	set     *holderSet    // all holders, if there are more than Holders keeps; else nil
	search  bool          // a search for holders is needed
	since   uint32        // the walk during which it was added or lost its holders; only a later walk can prove that nobody holds it
	removed bool          // by the caller
	retry   time.Time     // when to search again if no holder was found; zero: not at all
	wait    time.Duration // from that retry to the next one
}

// Named returns the holder to name, or nil if there is none: the one that started first,
// managers last, because they hold sockets for the services that they activate.
func (s *Socket) Named() *Process {
	if len(s.Holders) == 0 {
		return nil
	}
	return s.Holders[0].Process
}

// Count returns the number of processes that hold the socket. A process that is counted but
// not in Holders is removed when it exits. If it closes the socket, the next walk removes it.
func (s *Socket) Count() int {
	if s.set != nil {
		return max(s.set.count(), len(s.Holders))
	}
	return len(s.Holders)
}

// Closed records that the socket was closed during the search. The holders that were found
// are dropped: they may hold another socket that has got the same inode.
func (s *Socket) Closed() {
	s.Status, s.Holders, s.set, s.search = Exited, nil, nil, false
	s.Version++
}

// A Holder is a process that holds a socket, and the open file that is the socket.
type Holder struct {
	Process *Process
	file    procfs.File
	walk    uint32 // the last walk that found it
}

// A Process is a process that holds sockets. Its strings are escaped.
type Process struct {
	PID   int
	Start uint64 // in ticks after boot
	Comm  string
	// Exe is the path of its program, "" if it cannot be read. ExeDeleted reports that
	// the file with that path has been deleted or replaced since.
	Exe        string
	ExeDeleted bool
	Cmdline    string // "" unless Options.Cmdline is set
	// Cgroup has no units if the process is a manager, because the sockets that it holds
	// belong to other units. It may also be empty; CgroupRead reports that it was read.
	Cgroup     cgroup.Name
	CgroupRead bool

	slot  int32 // its number in a bitset, unique among known processes
	pidfd int   // -1 if it has none
	// state is what Files reported before the facts were read; zero if that is not known.
	state  procfs.State
	walk   uint32 // the last walk that has read all its files
	read   bool   // its facts are known
	gone   bool   // it has exited
	change bool   // its facts have changed in this Update

	lineage *Lineage // nil until it is asked for
}

// Manager reports whether the process holds sockets for services that it activates: pid 1,
// and every process in an init.scope, such as the systemd of a user or a container.
func (p *Process) Manager() bool { return p.PID == 1 || p.Cgroup.Manager }

// Compare orders processes by which one to name first: managers last, then by start time,
// then by pid.
func Compare(a, b *Process) int {
	return cmp.Or(
		cmp.Compare(btoi(a.Manager()), btoi(b.Manager())),
		cmp.Compare(a.Start, b.Start),
		cmp.Compare(a.PID, b.PID),
	)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
