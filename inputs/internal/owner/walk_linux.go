package owner

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sockwatch/inputs/internal/procfs"
)

// A walk searches the open files of all processes, over as many Updates as it takes.
// It proves of sockets that were known when it began who holds them, or that nobody
// does who could be looked at.
type walk struct {
	number  uint32
	scanner *scanner
	sockets func(yield func(*Socket) bool) // all

	pids    []int         // of its beginning, then those that were started meanwhile
	next    int           // of pids
	cursor  procfs.Cursor // in the files of that process
	laps    int           // through newcomers
	deep    bool          // files of processes are done, those of threads and io_urings are next
	rings   []ring        // to be read then
	refused int           // processes that could not be looked at
	unknown int           // threads and io_urings that could not be looked at
	failure error         // the last one that is not a refusal
}

// A ring is an io_uring that a process has.
type ring struct {
	pid  int
	file procfs.File
}

// errCut says that the time was over before the walk was.
var errCut = errors.New("cut by the deadline")

// run continues the walk until it has ended, or returns why it could not.
func (w *walk) run(ctx context.Context) error {
	if !w.deep {
		if err := w.each(ctx, procfs.Process.Files); err != nil {
			return err
		}
		// A socket may have passed to a process that was started behind the walk.
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
	// Few programs have files that their threads do not share, or close what an io_uring
	// holds; but one that is to be hidden could.
	if err := w.each(ctx, procfs.Process.ThreadFiles); err != nil {
		return err
	}
	return w.readRings(ctx)
}

// each looks at the processes that are left.
func (w *walk) each(ctx context.Context, look look) error {
	for ; w.next < len(w.pids); w.next++ {
		if !more(ctx) {
			return errCut
		}
		pid := w.pids[w.next]
		done, err := w.scanner.scan(ctx, pid, look, &w.cursor, func(file procfs.File) { w.addRing(pid, file) })
		switch {
		case err == nil && !done:
			return errCut
		case err == nil:
			if p := w.scanner.processes.byPID[pid]; p != nil && !w.deep {
				p.walk = w.number
			}
		case errors.Is(err, procfs.ErrNoResources):
			return err
		case errors.Is(err, procfs.ErrExited):
		default:
			w.refuse(err)
		}
		w.cursor = procfs.Cursor{}
	}
	return nil
}

// refuse notes that a process, or some files of it, could not be looked at.
func (w *walk) refuse(err error) {
	if w.deep {
		w.unknown++
	} else {
		w.refused++
	}
	if !errors.Is(err, procfs.ErrRefused) {
		w.failure = err
	}
}

// addNewcomers adds the processes that the walk has not met.
func (w *walk) addNewcomers() (found bool, err error) {
	pids, err := w.scanner.fs.PIDs(nil)
	if err != nil {
		return false, err
	}
	w.laps++
	met := slices.Sorted(slices.Values(w.pids))
	for _, pid := range pids {
		if _, known := slices.BinarySearch(met, pid); !known {
			w.pids = append(w.pids, pid)
			found = true
		}
	}
	return found, nil
}

// covers reports whether the walk can prove who holds the socket.
func (w *walk) covers(s *Socket) bool { return s.since < w.number }

// left reports whether there is a socket that the walk has not found, and that nobody
// holds as far as is known without it.
func (w *walk) left() bool {
	for s := range w.sockets {
		if w.covers(s) && !slices.ContainsFunc(s.Holders, func(h Holder) bool { return w.stays(h) }) {
			return true
		}
	}
	return false
}

// stays reports whether a known holder is one still: found, or seen to hold the socket
// by a file that only a search of threads or io_urings finds, or not to be looked at.
func (w *walk) stays(h Holder) bool {
	return h.walk == w.number || stillHolds(w.scanner.fs, h)
}

// stillHolds reports whether a known holder still is one, as far as can be told.
func stillHolds(fs *procfs.FS, h Holder) bool {
	held, err := fs.Holds(h.file)
	return held || err != nil
}

// maxRings bounds how many io_urings are noted.
const maxRings = 1 << 16

func (w *walk) addRing(pid int, file procfs.File) {
	if len(w.rings) == maxRings {
		w.unknown++
		return
	}
	w.rings = append(w.rings, ring{pid, file})
}

// readRings looks at the sockets that io_urings hold.
func (w *walk) readRings(ctx context.Context) error {
	for ; len(w.rings) > 0; w.rings = w.rings[1:] {
		if !more(ctx) {
			return errCut
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
			w.refuse(err)
		case !known:
			w.unknown++
		}
	}
	return nil
}

// partial says why the walk has not come to its end.
func (w *walk) partial(err error) string {
	if !errors.Is(err, errCut) {
		return "owners: " + err.Error()
	}
	if w.deep {
		return "owners: cut by the deadline among the files of threads"
	}
	return fmt.Sprintf("owners: cut by the deadline after %d of %d processes", w.next, len(w.pids))
}
