package owner

import (
	"bytes"
	"context"
	"errors"

	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/escape"
	"sockwatch/inputs/internal/procfs"
)

// processes are the known holders of sockets, each watched for its exit.
type processes struct {
	fs      *procfs.FS
	cmdline int // how many bytes of Process.Cmdline to read
	exits   exits

	byPID     map[int]*Process
	list      []*Process // in the order in which their facts are read again
	unwatched int        // processes of list without a pidfd
	nextPoll  int        // of list, of those
	slots     int32      // in use or free
	free      []int32    // slots

	gone    []*Process // that were not yet taken from their sockets
	changed bool       // the facts of a process have, in this Update
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

// identify returns the Process of an open directory: the one that is known, or a
// new one, without facts, that is watched from here on.
func (ps *processes) identify(proc procfs.Process) (*Process, error) {
	known := ps.byPID[proc.PID]
	pidfd := -1
	if known == nil {
		pidfd = ps.exits.watch(proc.PID)
	}
	// That the directory still answers after the pidfd was opened proves that both
	// are of one process.
	st, err := proc.Stat()
	if err != nil {
		ps.exits.unwatch(pidfd)
		return nil, err
	}
	if known != nil && known.Start == st.Start {
		return known, nil
	}
	if known != nil {
		ps.exited(known) // its pid is another's by now
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

// exited notes that a process has. Its sockets lose it soon.
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

// maxPolls bounds how many processes without a pidfd one Update looks at.
const maxPolls = 4096

// reap learns which processes have exited.
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

// refresh reads the facts of a known process again. One that is not to be seen has
// exited, which reap learns, or is hidden by now.
func (ps *processes) refresh(p *Process) {
	proc, err := ps.fs.Process(p.PID)
	if err != nil {
		return
	}
	defer proc.Close()
	_ = ps.read(proc, p) // what was read before stays
}

// read reads the facts of a process through its open directory. What cannot be read
// is left out.
func (ps *processes) read(proc procfs.Process, p *Process) error {
	st, err := proc.Stat()
	if err != nil {
		return err
	}
	if st.Start != p.Start {
		return procfs.ErrExited
	}
	before := *p
	p.Comm = escape.Name(st.Comm)
	if p.Comm == "" {
		p.Comm = `\x00` // it has emptied its name, and must not look like one unknown
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
		p.Cgroup.Unit, p.Cgroup.UserUnit = "", "" // what it holds, it holds for other units
	}
	p.read = true
	if before.read && *p != before {
		p.change, ps.changed = true, true
	}
	return nil
}

// known reports whether an error of a read, or none, says what there is to know. What
// was read before stays if there was no descriptor to read it again.
func known(err error) bool { return !errors.Is(err, procfs.ErrNoResources) }

// forget forgets the processes that are gone or hold no socket: those whose slots are
// not used. It returns where in the list the process at index next went.
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
