package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
)

// A finder finds the network namespaces of a host: those of processes at each pass,
// and those that only threads, open files or mounts of other mount namespaces hold at
// each lap over all processes.
type finder struct {
	host host.Host
	proc *os.File // the directory Host.Proc
	self int      // this program's pid there
	own  *place
	root *place // the host's, which may be the program's own

	byNumber  map[uint64]*place
	byTable   map[uint64]*place
	processes []process // by pid
	spare     []process
	mounts    mounts
	lap       lap
	refresh   time.Duration
	last      time.Time // of the last pass
}

// A process is what is known of a process. One that is new may be on the way to a
// namespace of its own: it is looked at in several passes.
type process struct {
	pid   int
	looks int
	in    *place // nil if it is not known
}

const looks = 3

func openFinder(h host.Host, refresh time.Duration) (*finder, error) {
	proc, err := os.Open(h.Proc)
	if err != nil {
		return nil, err
	}
	f := &finder{host: h, proc: proc, refresh: refresh, byNumber: make(map[uint64]*place), byTable: make(map[uint64]*place)}
	f.mounts = mounts{host: h, refresh: refresh}
	if self, err := os.Readlink(h.Proc + "/self"); err == nil {
		f.self, _ = strconv.Atoi(self)
	}
	return f, nil
}

func (f *finder) close() error { return errors.Join(f.proc.Close(), f.mounts.close()) }

// know adds a place whose numbers are known.
func (f *finder) know(p *place) {
	if p.number != 0 {
		f.byNumber[p.number] = p
	}
	if p.table != 0 {
		f.byTable[p.table] = p
	}
}

// forget removes a place.
func (f *finder) forget(p *place) {
	if f.byNumber[p.number] == p {
		delete(f.byNumber, p.number)
	}
	if f.byTable[p.table] == p {
		delete(f.byTable, p.table)
	}
}

// pass looks for namespaces, and returns those that are there. If it could not look
// everywhere, partial says so: then what is missing may still be there.
func (f *finder) pass(ctx context.Context, now time.Time) (all []*place, partial error) {
	elapsed := now.Sub(f.last)
	f.last = now
	partial = f.lookAtProcesses(ctx)
	if err := f.mounts.update(ctx, now, f.placeOf); err != nil && partial == nil {
		partial = err
	}
	if err := f.continueLap(ctx, now, elapsed); err != nil && partial == nil {
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
		return &fs.PathError{Op: "readdir", Path: f.host.Proc, Err: err}
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
		p.in, p.looks = f.own, looks
		return nil
	}
	in, err := f.find(p.pid)
	if isExhausted(err) {
		return err
	}
	p.in = in
	p.looks++
	return nil
}

// find returns the namespace of a process or thread; nil if it has ended or is
// hidden.
func (f *finder) find(pid int) (*place, error) {
	link := processRef(pid)
	number, err := link.number(f.host)
	if err == nil {
		if p := f.byNumber[number]; p != nil {
			return p, nil
		}
		table, err := tableNumber(f.host, pid)
		if again, e := link.number(f.host); err != nil || e != nil || again != number {
			return nil, err // it moves: it is new, and looked at again
		}
		p := f.byTable[table]
		if p == nil || p.number != 0 {
			p = &place{host: f.host}
		}
		p.number, p.table = number, table
		f.know(p)
		return p, nil
	}
	if !isRefused(err) {
		return nil, err
	}
	table, err := tableNumber(f.host, pid)
	if err != nil {
		return nil, err
	}
	p := f.byTable[table]
	if p == nil {
		p = &place{host: f.host, table: table}
		f.know(p)
	}
	return p, nil
}

// placeOf returns the namespace of that number, which need not be known.
func (f *finder) placeOf(number uint64) *place {
	p := f.byNumber[number]
	if p == nil {
		p = &place{host: f.host, number: number}
		f.know(p)
	}
	return p
}

// verify finds a process for every namespace, and returns the namespaces that
// something holds.
func (f *finder) verify() []*place {
	places := f.places()
	for _, p := range places {
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
		for c.in != nil && c.in != f.own && !c.in.process.isProcess() {
			if ok, err := c.in.holds(c.pid); err == nil && ok {
				c.in.process = processRef(c.pid)
				break
			}
			before := c.in
			if c.in, _ = f.find(c.pid); c.in == before {
				break
			}
		}
	}
	f.uniteHidden()
	held := places[:0]
	for _, p := range f.places() {
		p.prune()
		if _, ok := p.entry(); ok || p == f.own || p == f.root {
			held = append(held, p)
		}
	}
	return held
}

// uniteHidden looks whether a namespace that is only mounted is one of those whose
// processes hide its number. To learn that takes CAP_SYS_ADMIN: without it none of its
// sockets is listed by the mount.
func (f *finder) uniteHidden() {
	hidden := len(f.places()) > len(f.byNumber)
	for _, p := range f.byNumber {
		if !hidden || p.own || p.table != 0 || p.mount.mount == "" {
			continue
		}
		err := p.enter(func() (err error) {
			p.table, err = ownTable()
			return err
		})
		q := f.byTable[p.table]
		switch {
		case err != nil:
		case q == nil:
			f.know(p)
		case q.number == 0:
			q.number, q.mount, q.name = p.number, p.mount, p.name
			f.know(q)
			f.mounts.adopt(p, q)
		}
	}
}

// forgetOthers forgets the namespaces that are not held: their numbers are given to
// others.
func (f *finder) forgetOthers(held []*place) {
	is := setOf(held)
	for _, p := range f.places() {
		if !is[p] {
			f.forget(p)
		}
	}
}

// findAgain looks for another process in a namespace that the one by which it was
// found has left; false if there is none.
func (f *finder) findAgain(p *place) bool {
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
func (f *finder) replace(p *place) {
	f.forget(p)
	p.process, p.mount, p.others = ref{}, ref{}, nil
	for i := range f.processes {
		if c := &f.processes[i]; c.in == p {
			c.in, _ = f.find(c.pid)
		}
	}
	f.mounts.read = time.Time{}
}

// places returns all namespaces that are known, in no order.
func (f *finder) places() []*place {
	all := make([]*place, 0, len(f.byNumber))
	for _, p := range f.byNumber {
		all = append(all, p)
	}
	for _, p := range f.byTable {
		if p.number == 0 {
			all = append(all, p)
		}
	}
	return all
}

// prune removes what does not lead to the namespace any more. A thread serves as its
// process if there is no other.
func (p *place) prune() {
	p.others = slices.DeleteFunc(p.others, func(r ref) bool {
		if r.isProcess() {
			ok, err := p.holds(r.pid)
			if err == nil && ok && !p.process.isProcess() {
				p.process = r
			}
			return err != nil || !ok
		}
		number, err := r.number(p.host)
		return err != nil || number != p.number
	})
}

// maxOthers bounds what is kept of one namespace.
const maxOthers = 8

func (p *place) keep(r ref) {
	if len(p.others) >= maxOthers {
		p.prune()
	}
	if len(p.others) < maxOthers && !slices.Contains(p.others, r) {
		p.others = append(p.others, r)
	}
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
		for name, rest := nextEntry(buf[:n]); len(name) > 0; name, rest = nextEntry(rest) {
			if number, ok := parseDecimal(name); ok && !visit(number) {
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
