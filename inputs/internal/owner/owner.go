// Package owner finds out which processes hold which sockets, and keeps that
// knowledge true at little cost: it learns from the kernel who has exited, looks
// at every known open file once in a while, and searches all open files of the
// host only for sockets that it does not know.
package owner

import (
	"cmp"
	"slices"
	"time"

	"sockwatch/inputs/internal/cgroup"
)

// A Status says how the search for a socket's holders ended.
type Status uint8

// The values of Status.
const (
	Pending    Status = iota // not searched to the end yet
	Resolved                 // Holders has at least one
	Unreadable               // nobody who may be read holds it, but not all may be read
	None                     // no visible process holds it
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
	// Holders are the processes that hold it, the one to be named first.
	Holders []Holder
	// Version changes whenever what is told of the holders does.
	Version uint32

	search  bool          // its holders are to be searched
	until   place         // where a walk has looked for it everywhere; 0: none looks yet
	removed bool          // by the caller
	retry   time.Time     // when to search again for one that nobody holds
	wait    time.Duration // until the retry after that
	found   []Holder      // by the search under way
}

// Named returns the process that stands for all holders, or nil: the one that
// started first, pid 1 last (it holds the sockets that it activates for others).
func (s *Socket) Named() *Process {
	if len(s.Holders) == 0 {
		return nil
	}
	return s.Holders[0].Process
}

// A Holder is a process that holds a socket, and the thread and file by which it
// does: the first thread may have ended, or another have files of its own.
type Holder struct {
	Process *Process
	tid     int
	fd      int32
}

// A Process holds sockets. Its facts are strings fit to be shown.
type Process struct {
	PID     int
	Start   uint64 // in ticks after boot
	Comm    string
	Exe     string // "" where it cannot be read
	Cmdline string // "" where it is not asked for
	Cgroup  cgroup.Name
	// CgroupRead tells whether Cgroup is known: it may be empty.
	CgroupRead bool

	exit    int    // the pidfd, or -1 where there is none
	sweep   uint32 // the last sweep in which it held a socket
	gone    bool   // it has exited
	changed bool   // its facts have, since sockets were told
}

// Compare orders processes as those to be named: pid 1 last, then by start, then
// by pid.
func Compare(a, b *Process) int {
	if last := cmp.Compare(btoi(a.PID == 1), btoi(b.PID == 1)); last != 0 {
		return last
	}
	return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.PID, b.PID))
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// isAmong tells whether sorted holders include the process.
func (p *Process) isAmong(sorted []Holder) bool {
	i, ok := slices.BinarySearchFunc(sorted, p, func(h Holder, p *Process) int { return Compare(h.Process, p) })
	return ok && sorted[i].Process == p
}

// sortHolders sorts holders, of which each process is one, by however many files of
// its threads it was found.
func sortHolders(h []Holder) []Holder {
	slices.SortStableFunc(h, func(a, b Holder) int { return Compare(a.Process, b.Process) })
	return slices.CompactFunc(h, func(a, b Holder) bool { return a.Process == b.Process })
}

// lack makes the socket one whose holders are searched.
func (s *Socket) lack() { s.search, s.until = true, 0 }

func (s *Socket) lacks() bool { return s.search }

// A place is how far the search through all processes has come: the rounds that
// it has made, from one on, and the pid that is next. It goes on where its deadline
// cut it.
type place uint64

const round place = 1 << 32

func (p place) pid() int { return int(p % round) }

// Closed notes that the socket was closed while its holders were searched: who
// was found may hold another one that has its inode by now.
func (s *Socket) Closed() {
	s.Status, s.Holders, s.search = Exited, nil, false
	s.Version++
}
