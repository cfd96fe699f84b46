package owner

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/procfs"
)

// Options say how a Finder works.
type Options struct {
	Verify  time.Duration // every known holder is looked at again once within it
	Refresh time.Duration // further holders of known sockets are searched so often
	Cmdline int           // how many bytes of Process.Cmdline to read
	// Members returns the processes of a cgroup, among whom a socket that was made
	// there is searched first; none where that is of no help.
	Members func(cgroup string) []int
}

// A Finder knows the holders of the sockets that were added to it. It is for one
// goroutine.
type Finder struct {
	fs      *procfs.FS
	options Options

	sockets   []*Socket // in the order in which they are verified
	inodes    map[uint64]*Socket
	processes map[int]*Process
	order     []*Process // of processes, in which their facts are read again
	exits     int        // epoll over the pidfds of processes
	pidfds    int        // how many more may be opened
	blind     int        // processes without one

	nextSocket, nextProcess int       // to be verified
	updated                 time.Time // the last Update
	refreshed               time.Time // the last walk over all processes
	place                   place     // at which the next walk begins
	refresh                 place     // at which the refresh under way ends; 0: none is
	thread                  int       // at whose threads the next search of them begins: a pid
	refused, skipped        place     // at which a process was, last; 0: none was
	dirty                   bool      // sockets or holders changed since the last sweep
	retired                 bool      // a process was, in this Update
	changed                 bool      // the facts of a process have, in this Update
	sweeps                  uint32

	near    []int     // processes that may hold what lost a holder
	tooNear bool      // the last search of those near by was cut
	lacking []*Socket // holders, in this Update
	hits    []hit
	report  Report
}

type hit struct {
	socket *Socket
	tid    int
	fd     int32
}

// A Report says what an Update met.
type Report struct {
	// Walked tells whether open files were searched: a socket that is gone by now
	// may have been taken for another one that had its inode after it.
	Walked bool
	// Refused is the number of processes that may not be read.
	Refused int
	// Partial says why the search did not come to its end, or "".
	Partial string
}

// NewFinder returns a Finder that reads from fs.
func NewFinder(fs *procfs.FS, options Options) (*Finder, error) {
	exits, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create an epoll: %w", err)
	}
	f := &Finder{
		fs: fs, options: options, exits: exits,
		inodes: make(map[uint64]*Socket), processes: make(map[int]*Process),
		place: round,
	}
	// The files that the rest of the program needs must not run out because a
	// host has very many servers: those beyond are watched by their start times.
	var limit unix.Rlimit
	if fs.OwnPIDs() && unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		f.pidfds = int(min(limit.Cur/4, 1<<16))
	}
	return f, nil
}

// Close releases all that the Finder watches.
func (f *Finder) Close() error {
	for _, p := range f.order {
		f.forget(p)
	}
	f.order = nil
	return unix.Close(f.exits)
}

// Add makes the Finder search the holders of a socket from the next Update on.
func (f *Finder) Add(s *Socket) {
	s.lack()
	f.sockets = append(f.sockets, s)
	f.inodes[s.Inode] = s
}

// Remove makes the Finder forget a socket.
func (f *Finder) Remove(s *Socket) {
	s.removed = true
	f.dirty = true
	if f.inodes[s.Inode] == s {
		delete(f.inodes, s.Inode)
	}
}

// Update brings the holders of all sockets up to date. It stops searching when
// ctx is done, with what it has found until then.
func (f *Finder) Update(ctx context.Context, now time.Time) Report {
	f.report = Report{}
	f.near = f.near[:0]
	if f.dirty {
		f.sweep()
	}
	f.reap()
	f.verify(now)
	f.search(ctx, now)
	if f.retired {
		f.retired = false
		f.dropGone()
	}
	if f.changed {
		f.tellChanges()
	}
	if f.dirty {
		f.sweep()
	}
	f.updated = now
	return f.report
}

// reap learns which processes have exited, and takes them from their sockets.
func (f *Finder) reap() {
	gone := false
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(f.exits, events, 0)
		if err == unix.EINTR {
			continue
		}
		for _, e := range events[:max(n, 0)] {
			if p := f.processes[int(e.Fd)]; p != nil {
				unix.EpollCtl(f.exits, unix.EPOLL_CTL_DEL, p.exit, nil)
				p.gone, gone = true, true
			}
		}
		if n < len(events) {
			break
		}
	}
	if f.blind > 0 {
		for _, p := range f.order {
			if p.exit < 0 && !f.alive(p) {
				p.gone, gone = true, true
			}
		}
	}
	if gone {
		f.dirty = true
		f.dropGone()
	}
}

func (f *Finder) alive(p *Process) bool {
	proc, err := f.fs.Process(p.PID)
	if err != nil {
		return false
	}
	defer proc.Close()
	st, err := proc.Stat()
	return err == nil && st.Start == p.Start
}

func (f *Finder) dropGone() {
	for _, s := range f.sockets {
		f.keepHolders(s, func(h Holder) bool { return !h.Process.gone })
	}
}

// keepHolders takes the other holders from a socket, which is then searched.
func (f *Finder) keepHolders(s *Socket, keep func(Holder) bool) {
	if !slices.ContainsFunc(s.Holders, func(h Holder) bool { return !keep(h) }) {
		return
	}
	s.Holders = slices.DeleteFunc(slices.Clone(s.Holders), func(h Holder) bool { return !keep(h) })
	s.Version++
	s.lack()
	f.dirty = true
	if len(s.Holders) == 0 {
		s.Status = Pending
	}
}

// verify looks at a share of the known holders, so that each of them is looked
// at once within Options.Verify: a process that lives may have closed the socket,
// or become another program.
func (f *Finder) verify(now time.Time) {
	elapsed := now.Sub(f.updated)
	for range share(len(f.sockets), elapsed, f.options.Verify) {
		f.nextSocket = (f.nextSocket + 1) % len(f.sockets)
		s := f.sockets[f.nextSocket]
		f.keepHolders(s, func(h Holder) bool { return f.holds(h, s) })
	}
	gone := false
	for range share(len(f.order), elapsed, f.options.Verify) {
		f.nextProcess = (f.nextProcess + 1) % len(f.order)
		p := f.order[f.nextProcess]
		if err := f.look(p); err != nil {
			p.gone, gone = true, true
		}
	}
	if gone {
		f.dropGone()
	}
	if f.changed { // of what it has become, it may not be a holder any more
		for _, s := range f.sockets {
			f.keepHolders(s, func(h Holder) bool { return !h.Process.changed || f.holds(h, s) })
		}
	}
}

// holds tells whether a known holder still is one.
func (f *Finder) holds(h Holder, s *Socket) bool {
	if f.fs.HoldsSocket(h.tid, h.fd, s.Inode) {
		return true
	}
	f.near = append(f.near, h.Process.PID)
	return false
}

// share returns how many of n are due when a round over all of them takes a
// period and the last share was taken that long ago.
func share(n int, elapsed, period time.Duration) int {
	if elapsed <= 0 {
		return 0
	}
	rounds := max(int(period/elapsed), 1)
	return (n + rounds - 1) / rounds
}

// tellChanges gives a new version to the sockets of the processes whose facts
// have changed.
func (f *Finder) tellChanges() {
	for _, s := range f.sockets {
		if slices.ContainsFunc(s.Holders, func(h Holder) bool { return h.Process.changed }) {
			s.Version++
		}
	}
	for _, p := range f.order {
		p.changed = false
	}
	f.changed = false
}

// search finds the holders of the sockets that lack some, and now and then further
// holders of all.
func (f *Finder) search(ctx context.Context, now time.Time) {
	f.lacking = f.lacking[:0]
	for _, s := range f.sockets {
		if !s.search && !s.retry.IsZero() && !now.Before(s.retry) {
			s.lack()
		}
		if s.search {
			f.lacking = append(f.lacking, s)
		}
	}
	refresh := len(f.sockets) > 0 && now.Sub(f.refreshed) >= f.options.Refresh
	if len(f.lacking) > 0 && (!refresh || f.refresh != 0) { // not where a walk finds all of them anyway
		f.searchNear(ctx)
	}
	if refresh || slices.ContainsFunc(f.lacking, (*Socket).lacks) {
		f.walk(ctx, now, refresh)
	}
}

// searchNear searches the processes that held what lost a holder, and those of
// the sockets' cgroups. Where they take more time than there is, the next Update has
// its time for all others.
func (f *Finder) searchNear(ctx context.Context) {
	if f.tooNear {
		f.tooNear = false
		return
	}
	pids := slices.Clone(f.near)
	asked := make(map[string]bool)
	for _, s := range f.lacking {
		if s.Cgroup != "" && !asked[s.Cgroup] {
			asked[s.Cgroup] = true
			pids = append(pids, f.options.Members(s.Cgroup)...)
		}
	}
	slices.Sort(pids)
	for _, pid := range slices.Compact(pids) {
		if whole, _ := f.scan(ctx, pid); !whole {
			f.tooNear = true
			break
		}
	}
	for _, s := range f.sockets {
		f.merge(s)
	}
}

// merge adds the holders found to those known. One that is pid 1's alone stays to
// be searched: its owner in earnest may live elsewhere.
func (f *Finder) merge(s *Socket) {
	if len(s.found) == 0 {
		return
	}
	s.found = sortHolders(s.found)
	found := s.found
	for _, h := range s.Holders {
		if !h.Process.gone && !h.Process.isAmong(found) {
			s.found = append(s.found, h)
		}
	}
	f.settle(s)
	if s.Named().PID != 1 {
		s.search = false
	}
}

// settle makes the holders found those of the socket.
func (f *Finder) settle(s *Socket) {
	s.found = sortHolders(s.found)
	same := slices.EqualFunc(s.found, s.Holders, func(a, b Holder) bool { return a.Process == b.Process })
	if !same || s.Status != Resolved {
		s.Version++
		f.dirty = true
	}
	s.Holders = slices.Clone(s.found)
	s.found = s.found[:0]
	s.Status, s.retry, s.wait = Resolved, time.Time{}, 0
}
