package owner

import (
	"context"
	"slices"
	"time"

	"sockwatch/inputs/internal/procfs"
)

// A scanner searches the open files of one process at a time, and makes the process a holder
// of the sockets that it finds.
type scanner struct {
	fs        *procfs.FS
	processes *processes
	sockets   map[uint64]*Socket // by inode
	limits    limits
	walk      uint32 // the number of the last walk
	hits      []hit
	state     procfs.State // of the process that is scanned, as Files reported it; or zero
}

type hit struct {
	socket *Socket
	file   procfs.File
}

// maxHits limits how many files of a process are kept at once: it may hold a listener by a
// million files.
const maxHits = 1024

// A look reads some of the open files of a process: see procfs.Process.Files.
type look func(p procfs.Process, c *procfs.Cursor, more func() bool, visit func(procfs.File)) (done bool, err error)

// scan searches one process from the cursor on, until ctx is done. It calls ring for each
// io_uring. After an error the cursor is unchanged.
func (sc *scanner) scan(ctx context.Context, pid int, look look, c *procfs.Cursor, ring func(procfs.File)) (done bool, err error) {
	proc, err := sc.fs.Process(pid)
	if err != nil {
		return false, err
	}
	defer proc.Close()
	sc.hits = sc.hits[:0]
	before := *c
	var failed error
	done, err = look(proc, c, func() bool { return more(ctx) }, func(file procfs.File) {
		if file.Ring && file.Inode == 0 {
			ring(file)
		} else if s := sc.sockets[file.Inode]; s != nil && failed == nil {
			sc.hits = append(sc.hits, hit{s, file})
			if len(sc.hits) == maxHits {
				failed = sc.take(proc)
			}
		}
	})
	if failed == nil {
		failed = sc.take(proc)
	}
	if failed != nil {
		err = failed
	}
	if err != nil {
		*c = before
	}
	return done && err == nil, err
}

// knows reports whether a process is known, with its facts as they are now, as a holder of all
// of its files that are sockets in question. Then it records that they were found again.
func (sc *scanner) knows(of procfs.State, files []procfs.File) bool {
	p := sc.processes.byPID[of.PID]
	if p == nil || p.Start != procfs.Ticks(of.Start) || p.read && p.state != of {
		return false
	}
	for _, file := range files {
		if s := sc.sockets[file.Inode]; s != nil && !s.find(Holder{p, file, sc.walk}, sc.limits) {
			return false
		}
	}
	return true
}

// take makes the process a holder of the sockets among the hits.
func (sc *scanner) take(proc procfs.Process) error {
	if len(sc.hits) == 0 {
		return nil
	}
	defer func() { sc.hits = sc.hits[:0] }()
	p, err := sc.processes.identify(proc)
	if err != nil {
		return err
	}
	holder := func(h hit) Holder { return Holder{p, h.file, sc.walk} }
	sc.hits = slices.DeleteFunc(sc.hits, func(h hit) bool { return h.socket.find(holder(h), sc.limits) })
	// Read the facts if the process will be kept in Holders. If they were read before,
	// read them again: the process may have become another program.
	if slices.ContainsFunc(sc.hits, func(h hit) bool { return p.read || h.socket.keeps(p, sc.limits) }) {
		if err := sc.processes.read(proc, p, sc.state); err != nil {
			return err
		}
	}
	for _, h := range sc.hits {
		if h.socket.find(holder(h), sc.limits) { // added by an earlier hit
			continue
		}
		// The facts belong to a holder only if it still holds the socket after they were
		// read: it may have become another program meanwhile.
		held, err := proc.Holds(h.file)
		if err != nil {
			return err
		}
		if held {
			h.socket.add(holder(h), sc.limits)
		}
	}
	return nil
}

// more reports whether there is time left.
func more(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	deadline, ok := ctx.Deadline()
	return !ok || time.Now().Before(deadline)
}
