package owner

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"sockwatch/inputs/internal/procfs"
)

// Options are the options of a Finder.
type Options struct {
	Verify  time.Duration // period within which every known holder is verified once
	Refresh time.Duration // how often to search for additional holders of known sockets
	Cmdline int           // how many bytes of Process.Cmdline to read
	// Files, if not nil, is searched instead of the files in procfs. It needs the numbers that
	// system calls use for processes: FS.OwnPIDs.
	Files Files
	// Members returns the processes of a cgroup. They are searched first for a socket that
	// was created in that cgroup. It may return none.
	Members func(cgroup string) []int
}

// Files lists files of all processes at once. An error ends the use of Files. Files that are
// opened or closed meanwhile may be missing.
type Files interface {
	// Sockets calls visit for each file that is a listening TCP socket, in any thread with a
	// table of files of its own. It visits the files of a process one after the other.
	Sockets(ctx context.Context, visit func(file procfs.File, of procfs.State)) error
	// Rings calls visit for each file that is an io_uring.
	Rings(ctx context.Context, visit func(file procfs.File, of procfs.State)) error
	// Verify calls visit for files that are still open, by their index. The files are sockets,
	// in ascending order of their threads. It may leave out some that are open.
	Verify(ctx context.Context, files []procfs.File, visit func(i int, of procfs.State)) error
}

// A Finder finds the holders of the sockets that were added to it. It must be used by one
// goroutine.
type Finder struct {
	fs        *procfs.FS
	options   Options
	sockets   []*Socket
	processes *processes
	// Each known holder and the facts of each known process are verified once within
	// Options.Verify: a process that lives may have closed the socket, or become another
	// program.
	holders   verifier[*Socket]
	facts     verifier[*Process]
	atOnce    schedule // of verifyAll
	scanner   scanner
	walk      *walk     // the walk in progress, or nil
	refreshed time.Time // the end of the last walk
	// candidates are processes that lost a socket: they may still hold it by another file.
	candidates []int
	tooSlow    bool // the last searchCandidates did not finish in time
	dirty      bool // sockets, or perhaps holders, were removed
	report     Report
}

// A Report is the outcome of an Update.
type Report struct {
	// Walked reports that open files were searched. A socket that has closed since may
	// have been mistaken for another one that got its inode.
	Walked bool
	// Refused is the number of processes that could not be read.
	Refused int
	// Partial is the reason why the search did not finish, or "".
	Partial string
	// OutOfResources is the error if the search stopped because no file descriptor or
	// memory was left. Known holders stay.
	OutOfResources error
	// FilesLost is the error that ended the use of Options.Files, if that was in this Update.
	FilesLost error
	// Hidden is the reason why there may be processes that are not visible at all, if that
	// made a socket Unreadable in this Update; else "".
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

// Use sets Options.Files. A search in progress begins again.
func (f *Finder) Use(files Files) { f.options.Files, f.walk = files, nil }

// Close closes the pidfds of all known processes.
func (f *Finder) Close() error { return f.processes.close() }

// Add adds a socket. The next Update searches for its holders.
func (f *Finder) Add(s *Socket) {
	s.search, s.since = true, f.scanner.walk
	f.sockets = append(f.sockets, s)
	f.scanner.sockets[s.Inode] = s
}

// Remove removes a socket.
func (f *Finder) Remove(s *Socket) {
	s.removed, f.dirty = true, true
	if f.scanner.sockets[s.Inode] == s {
		delete(f.scanner.sockets, s.Inode)
	}
}

// Update updates the holders of all sockets. When ctx is done it stops and keeps what it has
// found.
func (f *Finder) Update(ctx context.Context, now time.Time) Report {
	f.report = Report{}
	f.candidates = f.candidates[:0]
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

// dropGone removes processes that have exited from their sockets.
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

// verify verifies the known holders that are due.
func (f *Finder) verify(ctx context.Context, now time.Time) {
	if f.options.Files != nil {
		f.verifyAll(ctx, now)
	}
	if f.options.Files == nil {
		f.holders.visit(ctx, now, f.sockets, func(s *Socket) {
			f.drop(s, func(h Holder) bool { return !stillHolds(f.fs, h) })
		})
	}
	f.facts.visit(ctx, now, f.processes.list, f.processes.verify)
	f.dropGone()
	if f.processes.changed { // a process that has become another program may no longer be a holder
		for i, s := range f.sockets {
			if i%64 == 63 && !more(ctx) {
				break
			}
			f.drop(s, func(h Holder) bool { return h.Process.change && !stillHolds(f.fs, h) })
		}
	}
}

// verifyAll verifies all known holders by Options.Files once within Options.Verify, and the
// facts of those processes that have changed. Only what Files does not confirm is looked up in
// procfs.
func (f *Finder) verifyAll(ctx context.Context, now time.Time) {
	if !f.atOnce.due(now, f.options.Verify) {
		return
	}
	checks := f.checks()
	if len(checks) == 0 {
		f.atOnce.finish(now)
		return
	}
	files, states := make([]procfs.File, len(checks)), make(map[*Process]procfs.State)
	for i := range checks {
		files[i] = checks[i].file
	}
	err := f.options.Files.Verify(ctx, files, func(i int, of procfs.State) {
		checks[i].confirmed = true
		states[checks[i].Process] = of
	})
	if err != nil {
		if err, passes := passing(ctx, err); !passes {
			f.options.Files, f.report.FilesLost = nil, err
		}
		return
	}
	f.atOnce.finish(now)
	for i := range checks {
		if i%64 == 63 && !more(ctx) {
			return
		}
		if c := &checks[i]; !c.confirmed {
			f.drop(c.socket, func(h Holder) bool { return h == c.Holder && !stillHolds(f.fs, h) })
		}
	}
	for i, p := range f.processes.list {
		if i%64 == 63 && !more(ctx) {
			return
		}
		if state, confirmed := states[p]; confirmed {
			f.processes.observe(p, state)
		} else {
			p.state = procfs.State{} // its facts are read again when they are due
		}
	}
}

// A check is a known holder that is to be verified.
type check struct {
	Holder
	socket    *Socket
	confirmed bool
}

// checks returns all known holders, in the order that Files.Verify wants.
func (f *Finder) checks() []check {
	checks := make([]check, 0, len(f.sockets))
	for _, s := range f.sockets {
		for _, h := range s.Holders {
			checks = append(checks, check{Holder: h, socket: s})
		}
	}
	slices.SortFunc(checks, func(a, b check) int { return cmp.Compare(a.file.TID, b.file.TID) })
	return checks
}

// drop removes the holders of a socket for which closed returns true. They may still hold
// it by another thread or file, so they become candidates.
func (f *Finder) drop(s *Socket, closed func(Holder) bool) {
	if s.remove(f.scanner.walk, func(h Holder) bool {
		if !closed(h) {
			return false
		}
		f.candidates = append(f.candidates, h.Process.PID)
		return true
	}) {
		f.dirty = true
	}
}

// bumpVersions increases the version of the sockets whose holders' facts have changed.
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

// sweep forgets the sockets that were removed and the processes that no longer hold any.
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

// search searches for holders of sockets that are new or have lost a holder and, every
// Options.Refresh, for additional holders of all sockets.
func (f *Finder) search(ctx context.Context, now time.Time) {
	for _, s := range f.sockets {
		s.search = s.search || !s.retry.IsZero() && !now.Before(s.retry)
	}
	wanted := f.wanted()
	refresh := len(f.sockets) > 0 && now.Sub(f.refreshed) >= f.options.Refresh
	if len(wanted) > 0 && (!refresh || f.walk != nil) { // else a new walk finds all of them anyway
		f.searchCandidates(ctx, wanted)
	}
	// The second walk is for sockets that were added after the first one began.
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

// wanted returns the sockets that need a search for holders.
func (f *Finder) wanted() (wanted []*Socket) {
	for _, s := range f.sockets {
		if s.search {
			wanted = append(wanted, s)
		}
	}
	return wanted
}

// searchCandidates searches the candidates or the processes in the sockets' cgroups. If it
// does not finish in time, the next Update skips it, so that the walk gets the time.
func (f *Finder) searchCandidates(ctx context.Context, wanted []*Socket) {
	if f.tooSlow {
		f.tooSlow = false
		return
	}
	pids := slices.Clone(f.candidates)
	asked := make(map[string]bool)
	for _, s := range wanted {
		if s.Candidate != 0 {
			pids = append(pids, s.Candidate)
			s.Candidate = 0
			continue // its cgroup may have very many processes
		}
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
			f.tooSlow = true
			return
		}
	}
	f.dirty = true
}

// continueWalk continues the walk in progress, or starts one. It returns an error if the
// walk has not ended.
func (f *Finder) continueWalk(ctx context.Context) error {
	if f.walk == nil {
		pids, err := f.fs.PIDs(nil)
		if err != nil {
			return err
		}
		slices.Sort(pids)
		f.scanner.walk++
		f.walk = &walk{number: f.scanner.walk, scanner: &f.scanner, sockets: f.all, files: f.options.Files, pids: pids}
		for _, s := range f.sockets {
			s.begin()
		}
	}
	f.report.Walked, f.dirty = true, true
	refused := f.walk.refused
	err := f.walk.run(ctx)
	f.report.Refused += max(0, f.walk.refused-refused)
	if f.walk.lost != nil && f.options.Files != nil {
		f.options.Files, f.report.FilesLost = nil, f.walk.lost
	}
	return err
}

// all calls yield for every socket.
func (f *Finder) all(yield func(*Socket) bool) { slices.Values(f.sockets)(yield) }

// fail reports why the search did not finish.
func (f *Finder) fail(err error) {
	f.report.Partial = "owners: " + err.Error()
	if f.walk != nil {
		f.report.Partial = f.walk.partial(err)
	}
	if errors.Is(err, procfs.ErrNoResources) {
		f.report.OutOfResources = err
	}
}

// commit ends the walk: the holders that it found become the holders of the sockets that it
// covers.
func (f *Finder) commit(ctx context.Context, now time.Time) {
	w := f.walk
	f.walk, f.refreshed = nil, now
	f.processes.reap(ctx)
	f.dropGone()
	if w.failure != nil {
		f.report.Partial = "owners: " + w.failure.Error()
	}
	var unread bitset // processes whose files the walk could not read
	for _, p := range f.processes.list {
		if p.walk != w.number {
			unread.set(p.slot)
		}
	}
	unowned := false
	for _, s := range f.sockets {
		if w.covers(s) && !s.commit(w, unread) {
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

// commitUnowned sets the status of the sockets for which the walk has found no holder. A
// file that is being passed between two processes is held by neither, so the search is
// repeated soon, and then less and less often.
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
