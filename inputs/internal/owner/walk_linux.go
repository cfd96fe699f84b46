package owner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sockwatch/inputs/internal/procfs"
)

// walk searches all processes, from where the last walk ended, until every socket
// that lacks holders has been looked for once around.
func (f *Finder) walk(ctx context.Context, now time.Time, refresh bool) {
	if refresh && f.refresh == 0 {
		f.refresh = f.place + round
	}
	goal := f.refresh
	for _, s := range f.lacking {
		if s.search && s.until == 0 {
			s.until = f.place + round
		}
		if s.search {
			goal = max(goal, s.until)
		}
	}
	start := f.place
	pids, err := f.fs.PIDs(nil)
	if err != nil {
		f.report.Partial = "owners: " + err.Error()
	} else {
		slices.Sort(pids)
		if len(pids) == 0 || pids[0] != 1 { // hidepid, proc(5): what may not be read is not even seen
			f.report.Refused++
			f.refused = start
		}
		f.walkTo(ctx, goal, pids)
	}
	all := f.place-start >= round && f.scanNewcomers(ctx, pids)
	threads := f.scanThreads(ctx, pids, func(s *Socket) bool {
		return len(s.found) == 0 && (all || len(s.Holders) == 0 && s.search && s.until != 0 && f.place >= s.until)
	})
	if all && threads {
		f.settleAll(now, start)
	} else {
		f.settleSome(now, threads)
	}
	if f.refresh != 0 && f.place >= f.refresh {
		f.refreshed, f.refresh = now, 0
	}
}

// walkTo searches processes until the place is reached or ctx is done.
func (f *Finder) walkTo(ctx context.Context, goal place, pids []int) {
	scanned := 0
	for f.place < goal {
		next, _ := slices.BinarySearch(pids, f.place.pid())
		if next == len(pids) {
			f.place = f.place - f.place%round + round
			continue
		}
		pid := pids[next]
		at := f.place - f.place%round + place(pid)
		if at >= goal {
			f.place = goal
			return
		}
		refused := f.report.Refused
		if whole, begun := f.scan(ctx, pid); !whole {
			f.report.Partial = fmt.Sprintf("owners: cut by the deadline after %d of %d processes", scanned, len(pids))
			f.place = at
			if begun && scanned == 0 { // it takes more time than there is, and must not take that of all others
				f.skipped = at
				f.place++
			}
			return
		}
		if f.report.Refused > refused {
			f.refused = at
		}
		scanned++
		f.place = at + 1
	}
}

// settleAll ends a walk that has met every process: what it did not find is not
// held.
func (f *Finder) settleAll(now time.Time, start place) {
	for _, s := range f.sockets {
		if len(s.found) > 0 {
			f.settle(s)
			s.search = false
		} else {
			f.unowned(s, now, start)
		}
	}
	f.refreshed, f.refresh = now, 0
}

// settleSome ends a walk that began or was cut among the processes, or, where the
// threads were not searched to the end, among those.
func (f *Finder) settleSome(now time.Time, threads bool) {
	for _, s := range f.sockets {
		f.merge(s)
		if s.search && s.until != 0 && f.place >= s.until && (threads || len(s.Holders) > 0) {
			if len(s.Holders) == 0 {
				f.unowned(s, now, s.until-round)
			}
			s.search = false
		}
	}
}

// scanNewcomers searches processes that were started while the others were
// searched: a socket may have passed to one of them behind the search.
func (f *Finder) scanNewcomers(ctx context.Context, known []int) (whole bool) {
	missing := func(s *Socket) bool { return (s.search || len(s.Holders) > 0) && len(s.found) == 0 }
	for range 3 {
		if !slices.ContainsFunc(f.sockets, missing) {
			return true
		}
		pids, err := f.fs.PIDs(nil)
		if err != nil {
			return false
		}
		slices.Sort(pids)
		news := false
		for _, pid := range pids {
			if _, ok := slices.BinarySearch(known, pid); ok {
				continue
			}
			news = true
			if whole, _ := f.scan(ctx, pid); !whole {
				f.report.Partial = "owners: cut by the deadline among new processes"
				return false
			}
		}
		if !news {
			return true
		}
		known = pids
	}
	return true
}

// scanThreads searches the files that threads do not share with their process
// (unshare(2), CLONE_FILES), where a socket would be left without an owner: few
// programs do so, but one that is to be hidden could.
func (f *Finder) scanThreads(ctx context.Context, pids []int, left func(*Socket) bool) (whole bool) {
	if !slices.ContainsFunc(f.sockets, left) {
		return true
	}
	from, _ := slices.BinarySearch(pids, f.thread)
	for i, pid := range pids[from:] {
		whole, err := f.scanProcess(ctx, pid, procfs.Process.EachThreadSocket)
		if err == nil && !whole {
			f.report.Partial = "owners: cut by the deadline among the files of threads"
			f.thread = pid
			if i == 0 { // as in walkTo
				f.skipped = f.place - 1
				f.thread++
			}
			return false
		}
	}
	f.thread = 0
	return true
}

// unowned notes that nobody was found since the search was at start. A file on its
// way between two processes is held by neither, so the search is soon repeated, and
// then less and less often.
func (f *Finder) unowned(s *Socket, now time.Time, start place) {
	status := None
	switch {
	case f.skipped >= start:
		status = Pending
		f.report.Partial = "owners: one process has more open files, or threads, than there was time for"
	case f.refused >= start || f.report.Refused > 0:
		status = Unreadable
	}
	if s.Status != status || len(s.Holders) > 0 {
		s.Version++
		f.dirty = true
	}
	s.retry = now.Add(s.wait)
	if s.search {
		s.wait = min(max(2*s.wait, f.options.Verify), f.options.Refresh)
	}
	s.Status, s.Holders, s.search = status, nil, false
}

// scan searches one process. It is not whole where ctx was done before its end,
// and not begun where it was done before.
func (f *Finder) scan(ctx context.Context, pid int) (whole, begun bool) {
	if !more(ctx) {
		return false, false
	}
	f.report.Walked = true
	whole, err := f.scanProcess(ctx, pid, procfs.Process.EachSocket)
	switch {
	case err == nil:
		return whole, true
	case errors.Is(err, procfs.ErrExited):
	case errors.Is(err, procfs.ErrRefused):
		f.report.Refused++
	default:
		f.report.Refused++
		f.report.Partial = "owners: " + err.Error()
	}
	return true, true
}

// more tells whether there is time left.
func more(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	deadline, ok := ctx.Deadline()
	return !ok || time.Now().Before(deadline)
}

// An eacher calls each for open files of a process that are sockets: see
// procfs.Process.EachSocket.
type eacher func(p procfs.Process, more func() bool, each func(tid int, fd int32, inode uint64)) (whole bool, err error)

// scanProcess searches some of the open files of one process. It is not whole where
// ctx was done before their end.
func (f *Finder) scanProcess(ctx context.Context, pid int, eachSocket eacher) (whole bool, err error) {
	proc, err := f.fs.Process(pid)
	if err != nil {
		return false, err
	}
	defer proc.Close()
	f.hits = f.hits[:0]
	var failed error
	whole, err = eachSocket(proc, func() bool { return more(ctx) }, func(tid int, fd int32, inode uint64) {
		if s := f.inodes[inode]; s != nil && failed == nil {
			f.hits = append(f.hits, hit{s, tid, fd})
			if len(f.hits) == maxHits {
				failed = f.take(proc)
			}
		}
	})
	if failed == nil && err == nil {
		failed = f.take(proc)
	}
	return whole, errors.Join(err, failed)
}

// maxHits bounds what is kept of one process: it may hold a listener by a million
// files.
const maxHits = 1024

// take makes the hits holders.
func (f *Finder) take(proc procfs.Process) error {
	defer func() { f.hits = f.hits[:0] }()
	f.hits = slices.DeleteFunc(f.hits, func(h hit) bool { return h.socket.foundIn(proc.PID) })
	if len(f.hits) == 0 {
		return nil
	}
	p, isNew, err := f.identify(proc)
	if err != nil {
		return err
	}
	if !isNew && f.hitsNew(p) {
		if err := f.readAgain(proc, p); err != nil {
			return err
		}
	}
	for _, h := range f.hits {
		// The facts are those of a holder only if it still held the socket after
		// they were read: it may have become another program meanwhile.
		if !h.socket.foundIn(proc.PID) && proc.HoldsSocket(h.tid, h.fd, h.socket.Inode) {
			h.socket.found = append(h.socket.found, Holder{p, h.tid, h.fd})
		}
	}
	return nil
}

// hitsNew tells whether among the hits is a socket that the process is not known to
// hold: its facts, which were read before, may be those of what it was then.
func (f *Finder) hitsNew(p *Process) bool {
	return slices.ContainsFunc(f.hits, func(h hit) bool { return !p.isAmong(h.socket.Holders) })
}

// foundIn tells whether the search has found the process that it is at to hold
// the socket, by another file.
func (s *Socket) foundIn(pid int) bool {
	n := len(s.found)
	return n > 0 && s.found[n-1].Process.PID == pid
}
