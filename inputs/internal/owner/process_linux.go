package owner

import (
	"bytes"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/escape"
	"sockwatch/inputs/internal/procfs"
)

// identify returns the Process of an open directory: the one that is known, or a
// new one that is watched from here on and has just been read.
func (f *Finder) identify(proc procfs.Process) (p *Process, isNew bool, err error) {
	known := f.processes[proc.PID]
	exit := -1
	if known == nil {
		exit = f.watch(proc.PID)
	}
	// That the directory still answers after the pidfd was opened proves that both
	// are of one process.
	st, err := proc.Stat()
	if err != nil {
		f.unwatch(exit)
		return nil, false, err
	}
	if known != nil && known.Start == st.Start {
		return known, false, nil
	}
	if known != nil {
		f.retire(known) // its pid is another's by now
		return f.identify(proc)
	}
	p = &Process{PID: proc.PID, Start: st.Start, exit: exit}
	f.read(proc, st, p)
	if exit < 0 {
		f.blind++
	}
	f.processes[p.PID] = p
	f.order = append(f.order, p)
	f.dirty = true
	return p, true, nil
}

// retire stops watching a process of which something else than its pidfd told
// that it has exited. Its sockets lose it at the end of the Update.
func (f *Finder) retire(p *Process) {
	f.unwatch(p.exit)
	if p.exit >= 0 {
		p.exit = -1
		f.blind++
	}
	delete(f.processes, p.PID)
	p.gone, f.retired = true, true
}

// look reads the facts of a known process anew. Its error is that of a process
// which is gone.
func (f *Finder) look(p *Process) error {
	proc, err := f.fs.Process(p.PID)
	if err != nil {
		return err
	}
	defer proc.Close()
	return f.readAgain(proc, p)
}

// readAgain does so through the open directory of the process.
func (f *Finder) readAgain(proc procfs.Process, p *Process) error {
	st, err := proc.Stat()
	if err != nil {
		return err
	}
	if st.Start != p.Start {
		return procfs.ErrExited
	}
	before := *p
	f.read(proc, st, p)
	if p.Comm != before.Comm || p.Exe != before.Exe || p.Cmdline != before.Cmdline || p.Cgroup != before.Cgroup {
		p.changed, f.changed = true, true
	}
	return nil
}

// read fills in the facts of a process. What cannot be read is left out.
func (f *Finder) read(proc procfs.Process, st procfs.Stat, p *Process) {
	p.Comm = escape.Name(st.Comm)
	if p.Comm == "" {
		p.Comm = `\x00` // it has emptied its name, and must not look like one unknown
	}
	p.Exe, p.Cmdline, p.Cgroup, p.CgroupRead = "", "", cgroup.Name{}, false
	if exe, err := proc.Exe(); err == nil {
		p.Exe = escape.Name(exe)
	}
	if f.options.Cmdline > 0 {
		if args, err := proc.Cmdline(f.options.Cmdline); err == nil {
			args = bytes.ReplaceAll(bytes.TrimRight(args, "\x00"), []byte{0}, []byte{' '})
			p.Cmdline = escape.Cut(args, f.options.Cmdline)
		}
	}
	if text, err := proc.Cgroup(); err == nil {
		p.Cgroup, p.CgroupRead = cgroup.ParseFile(text), true
	}
	if p.PID == 1 {
		p.Cgroup.Unit = "" // what it holds, it holds for other units
	}
}

// watch opens a pidfd, which tells when the process exits; -1 where that is
// refused.
func (f *Finder) watch(pid int) int {
	if f.pidfds <= 0 {
		return -1
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1
	}
	// The event names the process by its pid: while it is watched no other has it.
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(pid)}
	if err := unix.EpollCtl(f.exits, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		unix.Close(fd)
		return -1
	}
	f.pidfds--
	return fd
}

func (f *Finder) unwatch(exit int) {
	if exit >= 0 {
		unix.Close(exit)
		f.pidfds++
	}
}

// forget stops watching a process.
func (f *Finder) forget(p *Process) {
	if p.exit < 0 {
		f.blind--
	}
	f.unwatch(p.exit)
	if f.processes[p.PID] == p {
		delete(f.processes, p.PID)
	}
}

// sweep forgets the sockets that were removed and the processes that hold none
// any more.
func (f *Finder) sweep() {
	f.dirty = false
	f.sweeps++
	f.sockets, f.nextSocket = compact(f.sockets, f.nextSocket, func(s *Socket) bool {
		if !s.removed {
			for _, h := range s.Holders {
				h.Process.sweep = f.sweeps
			}
		}
		return !s.removed
	})
	f.order, f.nextProcess = compact(f.order, f.nextProcess, func(p *Process) bool {
		kept := p.sweep == f.sweeps && !p.gone
		if !kept {
			f.forget(p)
		}
		return kept
	})
}

// compact keeps some of a list, in place, and returns where the element at index
// next, or the one before it, went.
func compact[T any](list []T, next int, keep func(T) bool) ([]T, int) {
	kept, moved := list[:0], 0
	for i, v := range list {
		if keep(v) {
			kept = append(kept, v)
		}
		if i == next {
			moved = max(len(kept)-1, 0)
		}
	}
	clear(list[len(kept):])
	return kept, moved
}
