package owner

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/procfs"
)

// A walk searches the open files of all processes, in as many Updates as it needs. For a
// socket that was known when the walk began, it proves who holds it, or that no process that
// could be read does.
type walk struct {
	number  uint32
	scanner *scanner
	sockets func(yield func(*Socket) bool) // all sockets
	files   Files                          // nil: read procfs
	lost    error                          // why files is no longer used

	pids    []int         // processes at the start of the walk, then those that started later
	next    int           // index in pids
	cursor  procfs.Cursor // in the files of that process
	laps    int           // how often newcomers were added
	deep    bool          // the files of processes are done; those of threads and io_urings are next
	rings   []ring        // the io_urings to read
	refused int           // number of processes that could not be read
	unknown int           // number of threads and io_urings that could not be read
	failure error         // the last error that is not a refusal
}

// A ring is an io_uring of a process.
type ring struct {
	pid  int
	file procfs.File
}

// errDeadline says that the deadline came before the end of the walk.
var errDeadline = errors.New("stopped by the deadline")

// run continues the walk. It returns nil when the walk has ended, else the reason why not.
func (w *walk) run(ctx context.Context) error {
	if !w.deep {
		if err := w.readFiles(ctx); err != nil {
			return err
		}
		// A socket may have been passed to a process that started after the walk.
		for w.left() && w.laps < 3 {
			found, err := w.addNewcomers()
			if err != nil {
				return err
			}
			if !found {
				break
			}
			if err := w.each(ctx, procfs.Process.Files); err != nil {
				return err
			}
		}
		if !w.left() {
			return nil
		}
		w.deep, w.next = true, 0
	}
	// Few programs have threads with their own files, or close a socket that an io_uring
	// holds, but a program that wants to hide a socket could.
	if err := w.readThreads(ctx); err != nil {
		return err
	}
	return w.readRings(ctx)
}

// readFiles searches the files of all processes.
func (w *walk) readFiles(ctx context.Context) error {
	if w.files == nil || w.next == len(w.pids) {
		return w.each(ctx, procfs.Process.Files)
	}
	if err := w.readAll(ctx); err != nil {
		return w.orProcfs(ctx, err, procfs.Process.Files)
	}
	w.next = len(w.pids)
	return nil
}

// readThreads searches the files of threads that have their own, and finds the io_urings that
// are not known yet.
func (w *walk) readThreads(ctx context.Context) error {
	if w.files == nil {
		return w.each(ctx, procfs.Process.ThreadFiles)
	}
	if w.next == len(w.pids) {
		return nil
	}
	w.rings = w.rings[:0]
	if err := w.files.Rings(ctx, func(file procfs.File, of procfs.State) { w.addRing(of.PID, file) }); err != nil {
		return w.orProcfs(ctx, err, procfs.Process.ThreadFiles)
	}
	w.next = len(w.pids)
	return nil
}

// orProcfs searches procfs instead of w.files after an error, unless it will pass.
func (w *walk) orProcfs(ctx context.Context, err error, look look) error {
	if err, passes := passing(ctx, err); passes {
		return err
	}
	w.files, w.lost = nil, err
	return w.each(ctx, look)
}

// passing reports whether an error of Files is due to the deadline or a lack of resources, and
// returns it in the form that a search reports.
func passing(ctx context.Context, err error) (reported error, passes bool) {
	switch {
	case ctx.Err() != nil:
		return errDeadline, true
	case errors.Is(err, procfs.ErrNoResources):
		return err, true
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%w: %w", procfs.ErrNoResources, err), true
	}
	return err, false
}

// readAll takes the holders of all sockets from w.files, also those of threads. If it has not
// ended, the next call begins again.
func (w *walk) readAll(ctx context.Context) error {
	var process procfs.State
	held, failed := []procfs.File(nil), error(nil)
	unread := make(map[int]bool)
	visitHeld := func(_ procfs.Process, _ *procfs.Cursor, _ func() bool, visit func(procfs.File)) (bool, error) {
		for _, file := range held {
			visit(file)
		}
		return true, nil
	}
	take := func() {
		if len(held) == 0 || failed != nil || w.scanner.knows(process, held) {
			return
		}
		w.scanner.state = process
		_, err := w.scanner.scan(ctx, process.PID, visitHeld, &procfs.Cursor{}, nil)
		switch {
		case errors.Is(err, procfs.ErrNoResources):
			failed = err
		case err != nil && !errors.Is(err, procfs.ErrExited):
			unread[process.PID] = true
			w.countFailure(err)
		}
	}
	defer func() { w.scanner.state = procfs.State{} }()
	w.refused = 0
	err := w.files.Sockets(ctx, func(file procfs.File, of procfs.State) {
		if w.scanner.sockets[file.Inode] == nil {
			return
		}
		if of != process || len(held) == maxHits {
			take()
			process, held = of, held[:0]
		}
		held = append(held, file)
	})
	take()
	if err := errors.Join(failed, err); err != nil {
		return err
	}
	for _, p := range w.scanner.processes.list {
		if !unread[p.PID] {
			p.walk = w.number
		}
	}
	return nil
}

// each searches the processes that are left.
func (w *walk) each(ctx context.Context, look look) error {
	for ; w.next < len(w.pids); w.next++ {
		if !more(ctx) {
			return errDeadline
		}
		pid := w.pids[w.next]
		done, err := w.scanner.scan(ctx, pid, look, &w.cursor, func(file procfs.File) { w.addRing(pid, file) })
		switch {
		case err == nil && !done:
			return errDeadline
		case err == nil:
			if p := w.scanner.processes.byPID[pid]; p != nil && !w.deep {
				p.walk = w.number
			}
		case errors.Is(err, procfs.ErrNoResources):
			return err
		case errors.Is(err, procfs.ErrExited):
		default:
			w.countFailure(err)
		}
		w.cursor = procfs.Cursor{}
	}
	return nil
}

// countFailure records that a process, or some of its files, could not be read.
func (w *walk) countFailure(err error) {
	if w.deep {
		w.unknown++
	} else {
		w.refused++
	}
	if !errors.Is(err, procfs.ErrRefused) {
		w.failure = err
	}
}

// addNewcomers adds the processes that have started since.
func (w *walk) addNewcomers() (found bool, err error) {
	pids, err := w.scanner.fs.PIDs(nil)
	if err != nil {
		return false, err
	}
	w.laps++
	known := slices.Sorted(slices.Values(w.pids))
	for _, pid := range pids {
		if _, ok := slices.BinarySearch(known, pid); !ok {
			w.pids = append(w.pids, pid)
			found = true
		}
	}
	return found, nil
}

// covers reports whether the walk can prove who holds the socket.
func (w *walk) covers(s *Socket) bool { return s.since < w.number }

// left reports whether there is a socket for which the walk has found no holder, and of
// which no known holder stays.
func (w *walk) left() bool {
	for s := range w.sockets {
		if w.covers(s) && !slices.ContainsFunc(s.Holders, func(h Holder) bool { return w.stays(h) }) {
			return true
		}
	}
	return false
}

// stays reports whether a known holder stays: the walk has found it, or it still holds the
// socket by a file of a thread or an io_uring, or it cannot be read.
func (w *walk) stays(h Holder) bool {
	return h.walk == w.number || stillHolds(w.scanner.fs, h)
}

// stillHolds reports whether a known holder still holds the socket. If it cannot be read, it
// counts as a holder.
func stillHolds(fs *procfs.FS, h Holder) bool {
	held, err := fs.Holds(h.file)
	return held || err != nil
}

// maxRings limits how many io_urings a walk reads.
const maxRings = 1 << 16

func (w *walk) addRing(pid int, file procfs.File) {
	if len(w.rings) == maxRings {
		w.unknown++
		return
	}
	w.rings = append(w.rings, ring{pid, file})
}

// readRings reads the sockets that io_urings hold.
func (w *walk) readRings(ctx context.Context) error {
	for ; len(w.rings) > 0; w.rings = w.rings[1:] {
		if !more(ctx) {
			return errDeadline
		}
		r, known := w.rings[0], true
		_, err := w.scanner.scan(ctx, r.pid, func(p procfs.Process, _ *procfs.Cursor, _ func() bool, visit func(procfs.File)) (done bool, err error) {
			known, err = p.RingSockets(r.file, visit)
			return true, err
		}, &procfs.Cursor{}, nil)
		switch {
		case errors.Is(err, procfs.ErrNoResources):
			return err
		case errors.Is(err, procfs.ErrExited):
		case err != nil:
			w.countFailure(err)
		case !known:
			w.unknown++
		}
	}
	return nil
}

// partial returns why the walk has not ended.
func (w *walk) partial(err error) string {
	if !errors.Is(err, errDeadline) {
		return "owners: " + err.Error()
	}
	if w.deep {
		return "owners: stopped by the deadline among the files of threads"
	}
	return fmt.Sprintf("owners: stopped by the deadline after %d of %d processes", w.next, len(w.pids))
}
