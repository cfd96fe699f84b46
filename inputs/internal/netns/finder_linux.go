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

// A finder finds the network namespaces of a host: those of processes at each pass,
// and those that only threads, open files or mounts of other mount namespaces hold at
// each lap over all processes.
type finder struct {
	known     *registry
	root      *location // the host's, which may be the program's own
	proc      *os.File  // the directory Host.Proc
	self      int       // this program's pid there
	processes []process // by pid
	spare     []process
	mounts    mounts
	lap       lap
	last      time.Time // of the last pass
}

// A process is what is known of a process. One that is new may be on the way to a
// namespace of its own: it is looked at in several passes.
type process struct {
	pid   int
	looks int
	in    *location // nil if it is not known
}

const looks = 3

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

// pass looks for namespaces, and returns those that are there. If it could not look
// everywhere, partial says so: then what is missing may still be there.
func (f *finder) pass(ctx context.Context, now time.Time) (all []*location, partial error) {
	elapsed := now.Sub(f.last)
	f.last = now
	partial = f.lookAtProcesses(ctx)
	if err := f.mounts.update(ctx, now, f.known.locationOf); err != nil && partial == nil {
		partial = err
	}
	if err := f.lap.goOn(ctx, now, elapsed, f.pids); err != nil && partial == nil {
		partial = err
	}
	return f.verify(), partial
}

// lookAtProcesses brings the processes up to date.
func (f *finder) lookAtProcesses(ctx context.Context) error {
	if _, err := f.proc.Seek(0, 0); err != nil {
		return err
	}
	next, old := f.spare[:0], f.processes
	var failed error
	unseen := 0
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
		case p.looks >= looks:
		case ctx.Err() != nil || failed != nil:
			unseen++
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
	if failed == nil && unseen > 0 {
		failed = fmt.Errorf("cut by the deadline before %d of %d processes", unseen, len(next))
	}
	return failed
}

// look finds the namespace of a process. An error says that nothing can be looked at.
func (f *finder) look(p *process) error {
	if p.pid == f.self {
		p.in, p.looks = f.known.own, looks
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

// verify finds a process for every namespace, and returns the namespaces that
// something holds.
func (f *finder) verify() []*location {
	locations := f.known.all()
	for _, p := range locations {
		if !p.process.isProcess() {
			continue
		}
		if ok, err := p.holds(p.process.pid); err != nil || !ok {
			p.process = ref{}
		} else if p.isAnother() {
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
	f.uniteHidden()
	held := locations[:0]
	for _, p := range f.known.all() {
		p.prune()
		if _, ok := p.entry(); ok || p == f.known.own || p == f.root {
			held = append(held, p)
		}
	}
	return held
}

// uniteHidden looks whether a namespace that is only mounted is one of those whose
// processes hide its number. To learn that takes CAP_SYS_ADMIN: without it none of its
// sockets is listed by the mount.
func (f *finder) uniteHidden() {
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
			f.known.know(p)
		case q.number == 0:
			q.number, q.mount, q.name = p.number, p.mount, p.name
			f.known.know(q)
			f.mounts.adopt(p, q)
		}
	}
}

// searchAll does a whole lap at once, and returns the namespaces that are there.
func (f *finder) searchAll(ctx context.Context, now time.Time) ([]*location, error) {
	f.lap = lap{known: f.known, refresh: f.lap.refresh, found: f.found}
	err := f.lap.goOn(ctx, now, 0, f.pids)
	return f.verify(), err
}

// pids returns the processes that a lap searches: the threads and files of the program
// itself are in other namespaces only to list them.
func (f *finder) pids() []int {
	all := make([]int, 0, len(f.processes))
	for _, p := range f.processes {
		if p.pid != f.self {
			all = append(all, p.pid)
		}
	}
	return all
}

// found notes where a lap has found a process.
func (f *finder) found(pid int, in *location) {
	i, ok := slices.BinarySearchFunc(f.processes, pid, func(p process, pid int) int { return cmp.Compare(p.pid, pid) })
	if ok {
		f.processes[i].in = in
	}
}

// findAgain looks for another process in a namespace that the one by which it was
// found has left; false if there is none.
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
		c.in, c.looks = nil, 0 // looked at by the next pass
	}
	p.prune()
	_, ok := p.entry()
	return ok
}

// replace forgets a namespace that has ended: its number is another's.
func (f *finder) replace(p *location) {
	f.known.forget(p)
	p.process, p.mount, p.others = ref{}, ref{}, nil
	for i := range f.processes {
		if c := &f.processes[i]; c.in == p {
			c.in, _ = f.known.find(c.pid)
		}
	}
	f.mounts.read = time.Time{}
}

// numbers calls visit for every name in a directory that is a number, until that
// returns false.
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

// isExhausted reports whether an error says that the program or the host has no
// descriptors or no memory left: then nothing can be looked at.
func isExhausted(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}
