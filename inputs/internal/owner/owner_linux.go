// Package owner finds out which processes hold which sockets, and keeps that
// knowledge true at little cost: it learns from the kernel who has exited, looks
// at every known open file once in a while, and searches all open files of the
// host only for sockets that it does not know.
package owner

import (
	"cmp"
	"time"

	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/procfs"
)

// A Status says how the search for a socket's holders ended.
type Status uint8

// The values of Status.
const (
	Pending    Status = iota // not searched to the end yet
	Resolved                 // Holders has at least one
	Unreadable               // nobody who was looked at holds it, but not all could be looked at
	None                     // no process holds it: all were looked at
	Exited                   // it was closed while its holders were searched
)

// String returns the status as the tag owner spells it.
func (s Status) String() string {
	return [...]string{"pending", "resolved", "unreadable", "none", "exited"}[s]
}

// A Socket is what a Finder knows of the holders of one socket. The caller sets
// Inode and Cgroup and leaves the rest to the Finder it adds the Socket to.
type Socket struct {
	Inode  uint64
	Cgroup string // the path of the cgroup it was made in, or ""

	Status Status
	// Holders are processes that hold it, in the order of Compare: at most 64, of
	// which the first is the one to be named. They are valid until the next Update.
	Holders []Holder
	// Version changes whenever Status, Holders, their facts or Count do.
	Version uint32

	set     *holderSet    // of more holders than Holders has; nil if there are none
	search  bool          // its holders are to be searched
	since   uint32        // the walk during which it was added or lost a holder; it takes a later one to prove that nobody holds it
	removed bool          // by the caller
	retry   time.Time     // when to search again if nobody was found; zero: not at all
	wait    time.Duration // until the retry after that
}

// Named returns the process that stands for all holders, or nil: the one that
// started first, managers last (they hold the sockets that they activate for others).
func (s *Socket) Named() *Process {
	if len(s.Holders) == 0 {
		return nil
	}
	return s.Holders[0].Process
}

// Count returns the number of processes that hold the socket. Those beyond Holders
// leave it when they exit; that one has closed the socket is seen by the next walk.
func (s *Socket) Count() int {
	if s.set != nil {
		return max(s.set.count(), len(s.Holders))
	}
	return len(s.Holders)
}

// Closed notes that the socket was closed while its holders were searched: who
// was found may hold another one that has its inode by now.
func (s *Socket) Closed() {
	s.Status, s.Holders, s.set, s.search = Exited, nil, nil, false
	s.Version++
}

// A Holder is a process that holds a socket, and the file by which it does.
type Holder struct {
	Process *Process
	file    procfs.File
	walk    uint32 // the last one that found it
}

// A Process holds sockets. Its facts are strings fit to be shown.
type Process struct {
	PID   int
	Start uint64 // in ticks after boot
	Comm  string
	// Exe is the path of its program, "" if it cannot be read. ExeDeleted reports that
	// the file of that path has been deleted or replaced since.
	Exe        string
	ExeDeleted bool
	Cmdline    string // "" unless asked for
	// Cgroup is empty of units if the process is a manager: those of the sockets that
	// it holds are others. CgroupRead reports whether Cgroup is known: it may be empty.
	Cgroup     cgroup.Name
	CgroupRead bool

	slot   int32  // its number in a bitset, which no other known process has
	pidfd  int    // -1 if it is not watched by one
	walk   uint32 // the last one that has looked at all its files
	read   bool   // its facts are known
	gone   bool   // it has exited
	change bool   // its facts have changed in this Update

	lineage *Lineage // nil until it is asked for
}

// Manager reports whether it holds sockets for services that it activates: the first
// process of the host, and all in an init.scope, as systemd of a user or of a container.
func (p *Process) Manager() bool { return p.PID == 1 || p.Cgroup.Manager }

// Compare orders processes as those to be named: managers last, then by start, then
// by pid.
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
