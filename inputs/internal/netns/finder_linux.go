package netns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/dirent"
	"sockwatch/inputs/internal/host"
)

// A finder finds the network namespaces of a host. Each pass finds the namespaces of
// processes. Each lap over all processes finds those that are held only by threads, open
// files, or mounts in other mount namespaces.
type finder struct {
	known     *registry
	root      *location // the host's namespace, which may be the program's own
	proc      *os.File  // the directory Host.Proc
	self      int       // this program's pid there
	processes []process // by pid
	spare     []process
	mounts    mounts
	lap       lap
	last      time.Time // of the last pass
}

// A process is one process and its namespace. A new process may be about to create its own
// namespace, so it is examined in several passes.
type process struct {
	pid   int
	looks int       // how often it was examined
	in    *location // nil if it is not known
}

const maxLooks = 3

func openFinder(h host.Host, own, root *location, refresh time.Duration) (*finder, error) {
	proc, err := os.Open(h.Proc)
	if err != nil {
		return nil, err
	}
	f := &finder{known: newRegistry(h, own), root: root, proc: proc, mounts: mounts{host: h, refresh: refresh}}
	if self, err := os.Readlink(h.Proc + "/self"); err == nil {
		f.self, _ = strconv.Atoi(self)
	}
	f.lap = lap{known: f.known, refresh: refresh, found: f.found}
	return f, nil
}

func (f *finder) close() error { return errors.Join(f.proc.Close(), f.mounts.close()) }

// pass looks for namespaces and returns those that something holds. If it could not look
// everywhere, partial says why, and a namespace that is missing may still exist.
func (f *finder) pass(ctx context.Context, now time.Time) (all []*location, partial error) {
	elapsed := now.Sub(f.last)
	f.last = now
	partial = f.updateProcesses(ctx)
	if err := f.mounts.update(ctx, now, f.known.locationOf); err != nil && partial == nil {
		partial = err
	}
	if err := f.lap.resume(ctx, now, elapsed, f.pids); err != nil && partial == nil {
		partial = err
	}
	return f.verify(), partial
}

// updateProcesses updates the list of processes, and examines those that are new.
func (f *finder) updateProcesses(ctx context.Context) error {
	if _, err := f.proc.Seek(0, 0); err != nil {
		return err
	}
	next, old := f.spare[:0], f.processes
	var failed error
	skipped := 0
	err := numbers(int(f.proc.Fd()), func(pid int) bool {
		if pid == 0 {
			return true
		}
		for len(old) > 0 && old[0].pid < pid {
			old = old[1:]
		}
		p := process{pid: pid}
		if len(old) > 0 && old[0].pid == pid {
			p = old[0]
		}
		switch {
		case p.looks >= maxLooks:
		case ctx.Err() != nil || failed != nil:
			skipped++
		default:
			failed = f.look(&p)
		}
		next = append(next, p)
		return true
	})
	if err != nil {
		return &fs.PathError{Op: "readdir", Path: f.known.host.Proc, Err: err}
	}
	f.processes, f.spare = next, f.processes
	if failed == nil && skipped > 0 {
		failed = fmt.Errorf("stopped by the deadline with %d of %d processes left", skipped, len(next))
	}
	return failed
}

// look finds the namespace of a process. It returns an error only if no process can be
// examined now.
func (f *finder) look(p *process) error {
	if p.pid == f.self {
		p.in, p.looks = f.known.own, maxLooks
		return nil
	}
	in, err := f.known.find(p.pid)
	if isExhausted(err) {
		return err
	}
	p.in = in
	p.looks++
	return nil
}

// verify finds a process in every namespace, and returns the namespaces that something
// holds.
func (f *finder) verify() []*location {
	locations := f.known.all()
	for _, p := range locations {
		if !p.process.isProcess() {
			continue
		}
		if ok, err := p.holds(p.process.pid); err != nil || !ok {
			p.process = ref{}
		} else if p.isReused() {
			f.replace(p)
		}
	}
	for i := range f.processes {
		c := &f.processes[i]
		for c.in != nil && c.in != f.known.own && !c.in.process.isProcess() {
			if ok, err := c.in.holds(c.pid); err == nil && ok {
				c.in.process = processRef(c.pid)
				break
			}
			before := c.in
			if c.in, _ = f.known.find(c.pid); c.in == before {
				break
			}
		}
	}
	f.mergeHidden()
	held := locations[:0]
	for _, p := range f.known.all() {
		p.prune()
		if _, ok := p.entry(); ok || p == f.known.own || p == f.root {
			held = append(held, p)
		}
	}
	return held
}

// mergeHidden finds out whether a namespace that is only mounted is the same as one whose
// number is hidden. It has to enter the namespace for that, which needs CAP_SYS_ADMIN.
// Without it, the mount alone cannot be listed anyway.
func (f *finder) mergeHidden() {
	hidden := len(f.known.all()) > len(f.known.byNumber)
	for _, p := range f.known.byNumber {
		if !hidden || p.own || p.table != 0 || p.mount.mount == "" {
			continue
		}
		err := p.enter(func() (err error) {
			p.table, err = ownTable()
			return err
		})
		q := f.known.byTable[p.table]
		switch {
		case err != nil:
		case q == nil:
			f.known.add(p)
		case q.number == 0:
			q.number, q.mount, q.name = p.number, p.mount, p.name
			f.known.add(q)
			f.mounts.adopt(p, q)
		}
	}
}

// searchAll does a whole lap at once, and returns the namespaces that something holds.
func (f *finder) searchAll(ctx context.Context, now time.Time) ([]*location, error) {
	f.lap = lap{known: f.known, refresh: f.lap.refresh, found: f.found}
	err := f.lap.resume(ctx, now, 0, f.pids)
	return f.verify(), err
}

// pids returns the processes that a lap searches. The program itself is left out: its
// threads and files are in other namespaces only to list them.
func (f *finder) pids() []int {
	all := make([]int, 0, len(f.processes))
	for _, p := range f.processes {
		if p.pid != f.self {
			all = append(all, p.pid)
		}
	}
	return all
}

// found records in which namespace a lap has found a process.
func (f *finder) found(pid int, in *location) {
	i, ok := slices.BinarySearchFunc(f.processes, pid, func(p process, pid int) int { return cmp.Compare(p.pid, pid) })
	if ok {
		f.processes[i].in = in
	}
}

// findAgain looks for another process or ref after the known process has left the
// namespace. It returns false if there is none.
func (f *finder) findAgain(p *location) bool {
	p.process = ref{}
	for i := range f.processes {
		c := &f.processes[i]
		if c.in != p {
			continue
		}
		if ok, err := p.holds(c.pid); err == nil && ok {
			p.process = processRef(c.pid)
			break
		}
		c.in, c.looks = nil, 0 // the next pass examines it again
	}
	p.prune()
	_, ok := p.entry()
	return ok
}

// replace removes a namespace that has ended and whose number was reused.
func (f *finder) replace(p *location) {
	f.known.remove(p)
	p.process, p.mount, p.others = ref{}, ref{}, nil
	for i := range f.processes {
		if c := &f.processes[i]; c.in == p {
			c.in, _ = f.known.find(c.pid)
		}
	}
	f.mounts.read = time.Time{}
}

// numbers calls visit for every name in a directory that is a number, until visit returns
// false.
func numbers(dir int, visit func(n int) bool) error {
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.ReadDirent(dir, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		for name, rest := dirent.Next(buf[:n]); len(name) > 0; name, rest = dirent.Next(rest) {
			if number, ok := dirent.Number(name); ok && !visit(number) {
				return nil
			}
		}
	}
}

// isExhausted reports whether an error says that the program or the host has no file
// descriptors or memory left, so that nothing can be examined.
func isExhausted(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}
