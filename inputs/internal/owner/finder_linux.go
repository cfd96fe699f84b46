package owner

import (
	"context"
	"errors"
	"slices"
	"time"

	"sockwatch/inputs/internal/procfs"
)

// Options say how a Finder works.
type Options struct {
	Verify  time.Duration // every known holder is looked at again once within it
	Refresh time.Duration // further holders of known sockets are searched so often
	Cmdline int           // how many bytes of Process.Cmdline to read
	// Members returns the processes of a cgroup, among whom a socket that was made
	// there is searched first; none if that is of no help.
	Members func(cgroup string) []int
}

// A Finder knows the holders of the sockets that were added to it. It is for one
// goroutine.
type Finder struct {
	fs        *procfs.FS
	options   Options
	sockets   []*Socket
	processes *processes
	// Each known holder, and the facts of each known process, are looked at again once
	// within Options.Verify: one that lives may have closed the socket, or become another
	// program.
	holders   verifier[*Socket]
	facts     verifier[*Process]
	scanner   scanner
	walk      *walk     // under way, or nil
	refreshed time.Time // the end of the last walk
	near      []int     // processes that may hold what lost a holder
	nearCut   bool      // the last search of those near by was
	dirty     bool      // sockets were removed, or holders may have been
	report    Report
}

// A Report says what an Update met.
type Report struct {
	// Walked reports whether open files were searched: a socket that is gone by now
	// may have been taken for another one that had its inode after it.
	Walked bool
	// Refused is the number of processes that could not be looked at.
	Refused int
	// Partial says why the search did not come to its end, or "".
	Partial string
	// OutOfResources is not nil if the search could not continue for want of file
	// descriptors or memory, and names which. What is known stays.
	OutOfResources error
	// Hidden says why there may be processes that were not even seen, if that made a
	// socket Unreadable in this Update; else "".
	Hidden string
}

// NewFinder returns a Finder that reads from fs.
func NewFinder(fs *procfs.FS, options Options) (*Finder, error) {
	ps, err := newProcesses(fs, options.Cmdline)
	if err != nil {
		return nil, err
	}
	return &Finder{
		fs: fs, options: options, processes: ps,
		holders: verifier[*Socket]{period: options.Verify},
		facts:   verifier[*Process]{period: options.Verify},
		scanner: scanner{fs: fs, processes: ps, sockets: make(map[uint64]*Socket)},
	}, nil
}

// Close releases all that the Finder watches.
func (f *Finder) Close() error { return f.processes.close() }

// Add makes the Finder search the holders of a socket from the next Update on.
func (f *Finder) Add(s *Socket) {
	s.search, s.since = true, f.scanner.walk
	f.sockets = append(f.sockets, s)
	f.scanner.sockets[s.Inode] = s
}

// Remove makes the Finder forget a socket.
func (f *Finder) Remove(s *Socket) {
	s.removed, f.dirty = true, true
	if f.scanner.sockets[s.Inode] == s {
		delete(f.scanner.sockets, s.Inode)
	}
}

// Update brings the holders of all sockets up to date. It stops when ctx is done,
// with what it has found until then.
func (f *Finder) Update(ctx context.Context, now time.Time) Report {
	f.report = Report{}
	f.near = f.near[:0]
	f.sweep()
	f.scanner.limits = limitsOf(len(f.sockets))
	f.processes.reap(ctx)
	f.dropGone()
	f.verify(ctx, now)
	f.search(ctx, now)
	f.dropGone()
	f.bumpVersions()
	f.sweep()
	return f.report
}

// dropGone takes the processes that have exited from their sockets.
func (f *Finder) dropGone() {
	if len(f.processes.gone) == 0 {
		return
	}
	var gone bitset
	for _, p := range f.processes.gone {
		gone.set(p.slot)
	}
	for _, s := range f.sockets {
		s.removeGone(f.scanner.walk, gone)
	}
	f.processes.gone, f.dirty = nil, true
}

// verify looks at a share of the known holders.
func (f *Finder) verify(ctx context.Context, now time.Time) {
	f.holders.visit(ctx, now, f.sockets, func(s *Socket) {
		f.drop(s, func(h Holder) bool { return !stillHolds(f.fs, h) })
	})
	f.facts.visit(ctx, now, f.processes.list, func(p *Process) {
		if p.read && !p.gone {
			f.processes.refresh(p)
		}
	})
	f.dropGone()
	if f.processes.changed { // of what it has become, it may not be a holder any more
		for i, s := range f.sockets {
			if i%64 == 63 && !more(ctx) {
				break
			}
			f.drop(s, func(h Holder) bool { return h.Process.change && !stillHolds(f.fs, h) })
		}
	}
}

// drop removes the holders that have closed the socket, or passed it on to
// another thread or file.
func (f *Finder) drop(s *Socket, closed func(Holder) bool) {
	if s.remove(f.scanner.walk, func(h Holder) bool {
		if !closed(h) {
			return false
		}
		f.near = append(f.near, h.Process.PID)
		return true
	}) {
		f.dirty = true
	}
}

// bumpVersions gives a new version to the sockets of the processes whose facts
// have changed.
func (f *Finder) bumpVersions() {
	if !f.processes.changed {
		return
	}
	for _, s := range f.sockets {
		if slices.ContainsFunc(s.Holders, func(h Holder) bool { return h.Process.change }) {
			s.sort()
			s.Version++
		}
	}
	for _, p := range f.processes.list {
		p.change = false
	}
	f.processes.changed = false
}

// sweep forgets the sockets that were removed and the processes that hold none
// any more.
func (f *Finder) sweep() {
	if !f.dirty {
		return
	}
	f.dirty = false
	var used bitset
	f.sockets, f.holders.next = compact(f.sockets, f.holders.next, func(s *Socket) bool {
		if s.removed {
			return false
		}
		for _, h := range s.Holders {
			used.set(h.Process.slot)
		}
		if s.set != nil {
			used.add(s.set.all)
		}
		return true
	})
	f.facts.next = f.processes.forget(used, f.facts.next)
}

// search finds the holders of the sockets that lost or never had some, and now and then
// further holders of all.
func (f *Finder) search(ctx context.Context, now time.Time) {
	for _, s := range f.sockets {
		s.search = s.search || !s.retry.IsZero() && !now.Before(s.retry)
	}
	wanted := f.wanted()
	refresh := len(f.sockets) > 0 && now.Sub(f.refreshed) >= f.options.Refresh
	if len(wanted) > 0 && (!refresh || f.walk != nil) { // unless a walk finds all of them anyway
		f.searchNear(ctx, wanted)
	}
	// A second walk is for sockets that the one under way began without.
	for range 2 {
		if f.walk == nil && !refresh && len(f.wanted()) == 0 {
			return
		}
		refresh = false
		if err := f.continueWalk(ctx); err != nil {
			f.fail(err)
			return
		}
		f.commit(ctx, now)
	}
}

// wanted returns the sockets whose holders are to be searched.
func (f *Finder) wanted() (wanted []*Socket) {
	for _, s := range f.sockets {
		if s.search {
			wanted = append(wanted, s)
		}
	}
	return wanted
}

// searchNear searches the processes that held what lost a holder, and those of the
// sockets' cgroups. If they take more time than there is, the next Update has its time
// for the walk.
func (f *Finder) searchNear(ctx context.Context, wanted []*Socket) {
	if f.nearCut {
		f.nearCut = false
		return
	}
	pids := slices.Clone(f.near)
	asked := make(map[string]bool)
	for _, s := range wanted {
		if s.Cgroup != "" && !asked[s.Cgroup] {
			asked[s.Cgroup] = true
			pids = append(pids, f.options.Members(s.Cgroup)...)
		}
	}
	slices.Sort(pids)
	for _, pid := range slices.Compact(pids) {
		done := false
		var err error
		if more(ctx) {
			f.report.Walked = true
			done, err = f.scanner.scan(ctx, pid, procfs.Process.Files, &procfs.Cursor{}, func(procfs.File) {})
		}
		switch {
		case errors.Is(err, procfs.ErrNoResources):
			f.fail(err)
			return
		case err == nil && !done:
			f.nearCut = true
			return
		}
	}
	f.dirty = true
}

// continueWalk runs the walk under way, or a new one. Its error says why that has not
// ended.
func (f *Finder) continueWalk(ctx context.Context) error {
	if f.walk == nil {
		pids, err := f.fs.PIDs(nil)
		if err != nil {
			return err
		}
		slices.Sort(pids)
		f.scanner.walk++
		f.walk = &walk{number: f.scanner.walk, scanner: &f.scanner, sockets: f.all, pids: pids}
		for _, s := range f.sockets {
			s.begin()
		}
	}
	f.report.Walked, f.dirty = true, true
	refused := f.walk.refused
	err := f.walk.run(ctx)
	f.report.Refused += f.walk.refused - refused
	return err
}

// all calls yield for every socket.
func (f *Finder) all(yield func(*Socket) bool) { slices.Values(f.sockets)(yield) }

// fail notes why the search did not come to its end.
func (f *Finder) fail(err error) {
	f.report.Partial = "owners: " + err.Error()
	if f.walk != nil {
		f.report.Partial = f.walk.partial(err)
	}
	if errors.Is(err, procfs.ErrNoResources) {
		f.report.OutOfResources = err
	}
}

// commit ends the walk: what it has found becomes what is known of the sockets that
// it covers.
func (f *Finder) commit(ctx context.Context, now time.Time) {
	w := f.walk
	f.walk, f.refreshed = nil, now
	f.processes.reap(ctx)
	f.dropGone()
	if w.failure != nil {
		f.report.Partial = "owners: " + w.failure.Error()
	}
	var unlooked bitset
	for _, p := range f.processes.list {
		if p.walk != w.number {
			unlooked.set(p.slot)
		}
	}
	unowned := false
	for _, s := range f.sockets {
		if w.covers(s) && !s.commit(w, unlooked) {
			unowned = true
		}
	}
	if unowned {
		f.commitUnowned(w, now)
	}
	for _, s := range f.sockets {
		s.search = s.search && !w.covers(s)
	}
}

// commitUnowned notes of which sockets the walk has found nobody. A file on its way
// between two processes is held by neither, so the search is soon repeated, and then
// less and less often.
func (f *Finder) commitUnowned(w *walk, now time.Time) {
	status := None
	f.report.Hidden = f.fs.Visibility().Hidden()
	if f.report.Hidden != "" || w.refused+w.unknown > 0 {
		status = Unreadable
	}
	for _, s := range f.sockets {
		if !w.covers(s) || len(s.Holders) > 0 {
			continue
		}
		if s.Status != status {
			s.Status = status
			s.Version++
		}
		s.retry = now.Add(s.wait)
		if s.search {
			s.wait = min(max(2*s.wait, f.options.Verify), f.options.Refresh)
		}
	}
}
