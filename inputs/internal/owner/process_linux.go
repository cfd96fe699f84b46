package owner

import (
	"bytes"
	"context"
	"errors"

	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/escape"
	"sockwatch/inputs/internal/procfs"
)

// processes are the known processes that hold sockets. Each is watched for its exit.
type processes struct {
	fs      *procfs.FS
	cmdline int // how many bytes of Process.Cmdline to read
	exits   exits

	byPID     map[int]*Process
	list      []*Process // in the order in which their facts are read again
	unwatched int        // number of processes in list without a pidfd
	nextPoll  int        // index in list of the next one to check for its exit
	slots     int32      // number of slots, in use or free
	free      []int32    // free slots

	gone    []*Process // have exited, but are not yet removed from their sockets
	changed bool       // facts of a process have changed in this Update
}

func newProcesses(fs *procfs.FS, cmdline int) (*processes, error) {
	exits, err := newExits(fs.OwnPIDs())
	if err != nil {
		return nil, err
	}
	return &processes{fs: fs, cmdline: cmdline, exits: exits, byPID: make(map[int]*Process)}, nil
}

func (ps *processes) close() error {
	for _, p := range ps.list {
		ps.exits.unwatch(p.pidfd)
	}
	return ps.exits.close()
}

// identify returns the Process for an open directory: the known one, or a new one without
// facts, which is watched from now on.
func (ps *processes) identify(proc procfs.Process) (*Process, error) {
	known := ps.byPID[proc.PID]
	pidfd := -1
	if known == nil {
		pidfd = ps.exits.watch(proc.PID)
	}
	// If the directory can still be read after the pidfd was opened, both belong to the
	// same process.
	st, err := proc.Stat()
	if err != nil {
		ps.exits.unwatch(pidfd)
		return nil, err
	}
	if known != nil && known.Start == st.Start {
		return known, nil
	}
	if known != nil {
		ps.exited(known) // its pid was reused
		return ps.identify(proc)
	}
	p := &Process{PID: proc.PID, Start: st.Start, pidfd: pidfd, slot: ps.slots}
	if n := len(ps.free); n > 0 {
		p.slot, ps.free = ps.free[n-1], ps.free[:n-1]
	} else {
		ps.slots++
	}
	if pidfd < 0 {
		ps.unwatched++
	}
	ps.byPID[p.PID] = p
	ps.list = append(ps.list, p)
	return p, nil
}

// exited records that a process has exited. Finder.dropGone removes it from its sockets.
func (ps *processes) exited(p *Process) {
	if p.gone {
		return
	}
	ps.exits.unwatch(p.pidfd)
	if p.pidfd >= 0 {
		p.pidfd = -1
		ps.unwatched++
	}
	if ps.byPID[p.PID] == p {
		delete(ps.byPID, p.PID)
	}
	p.gone = true
	ps.gone = append(ps.gone, p)
}

// maxPolls limits how many processes without a pidfd one Update checks.
const maxPolls = 4096

// reap finds the processes that have exited.
func (ps *processes) reap(ctx context.Context) {
	ps.exits.each(func(pid int) {
		if p := ps.byPID[pid]; p != nil {
			ps.exited(p)
		}
	})
	if ps.unwatched == 0 {
		return
	}
	for polls, n := 0, len(ps.list); n > 0 && polls < maxPolls; n-- {
		ps.nextPoll = (ps.nextPoll + 1) % len(ps.list)
		p := ps.list[ps.nextPoll]
		if p.pidfd >= 0 || p.gone {
			continue
		}
		if polls++; polls%64 == 0 && !more(ctx) {
			return
		}
		if start, err := ps.fs.Start(p.PID); errors.Is(err, procfs.ErrExited) || err == nil && start != p.Start {
			ps.exited(p)
		}
	}
}

// observe reads the facts of a known process again if its state has changed since.
func (ps *processes) observe(p *Process, state procfs.State) {
	if p.read && !p.gone && p.state != state {
		ps.refresh(p, state)
	}
}

// verify reads the facts of a known process again, unless they are known to be the same.
func (ps *processes) verify(p *Process) {
	if p.read && !p.gone && !ps.unchanged(p) {
		ps.refresh(p, p.state)
	}
}

// unchanged reports whether the facts of a process are the same as long as its state is: its
// arguments are not among them, and its program has the same path.
func (ps *processes) unchanged(p *Process) bool {
	if p.state == (procfs.State{}) || ps.cmdline > 0 || p.ExeDeleted {
		return false
	}
	exe, err := ps.fs.ExeLink(p.PID)
	return err == nil && escape.Name(exe) == p.Exe
}

// refresh reads the facts of a known process again. If the process cannot be opened, it is
// now hidden or has exited, which reap will find. state is as in read.
func (ps *processes) refresh(p *Process, state procfs.State) {
	proc, err := ps.fs.Process(p.PID)
	if err != nil {
		return
	}
	defer proc.Close()
	_ = ps.read(proc, p, state) // after an error the known facts stay
}

// read reads the facts of a process through its open directory. It leaves out facts that
// cannot be read. state is the state of the process before, or zero if that is not known.
func (ps *processes) read(proc procfs.Process, p *Process, state procfs.State) error {
	st, err := proc.Stat()
	if err != nil {
		return err
	}
	if st.Start != p.Start {
		return procfs.ErrExited
	}
	p.state = procfs.State{} // until all facts are read
	before := *p
	complete := true
	// known reports whether a read has given a final result, even if that is an error. If
	// there was no descriptor for it, or it hangs, the known fact stays.
	known := func(err error) bool {
		final := !errors.Is(err, procfs.ErrNoResources) && !errors.Is(err, procfs.ErrHangs)
		complete = complete && final
		return final
	}
	p.Comm = escape.Name(st.Comm)
	if p.Comm == "" {
		p.Comm = `\x00` // the process has an empty name, which must not look unknown
	}
	if exe, deleted, err := proc.Exe(); known(err) {
		p.Exe, p.ExeDeleted = escape.Name(exe), deleted
	}
	if ps.cmdline > 0 {
		if args, err := proc.Cmdline(ps.cmdline); known(err) {
			args = bytes.ReplaceAll(bytes.TrimRight(args, "\x00"), []byte{0}, []byte{' '})
			p.Cmdline = escape.Cut(args, ps.cmdline)
		}
	}
	if text, err := proc.Cgroup(); known(err) {
		p.Cgroup, p.CgroupRead = cgroup.ParseFile(text), err == nil
	}
	if p.Manager() {
		p.Cgroup.Unit, p.Cgroup.UserUnit = "", "" // it holds its sockets for other units
	}
	p.read = true
	if before.read && *p != before {
		p.change, ps.changed = true, true
	}
	if complete && procfs.Ticks(state.Start) == p.Start {
		p.state = state
	}
	return nil
}

// forget removes the processes that are gone, and those that hold no socket. used has the
// slots of the processes that hold one. forget returns the new index of the process at index
// next in the list.
func (ps *processes) forget(used bitset, next int) int {
	var moved int
	ps.list, moved = compact(ps.list, next, func(p *Process) bool {
		if used.has(p.slot) && !p.gone {
			return true
		}
		if p.pidfd < 0 {
			ps.unwatched--
		}
		ps.exits.unwatch(p.pidfd)
		if ps.byPID[p.PID] == p {
			delete(ps.byPID, p.PID)
		}
		ps.free = append(ps.free, p.slot)
		return false
	})
	return moved
}
