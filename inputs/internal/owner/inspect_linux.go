package owner

import (
	"errors"

	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/escape"
	"sockwatch/inputs/internal/procfs"
)

// An Inspection is everything that is known about a process, for people who look at it. It
// includes what no Update reads. What cannot be read is zero.
type Inspection struct {
	Process    // without arguments
	UID        uint32
	HasUID     bool
	CgroupPath string
	Netns      uint64 // the number of its network namespace
	Lineage    Lineage
	// Refused reports that some of it may not be read.
	Refused bool
}

// Held makes a process the only known holder of a socket that is not added to a Finder, because
// it has closed already.
func (s *Socket) Held(p Process, from *Lineage) {
	p.lineage = from
	s.Status, s.Holders = Resolved, []Holder{{Process: &p}}
}

// Inspect reads a process. The error is procfs.ErrExited if the process has exited, even if its
// pid is in use again. fs must not be in use by a Finder.
func Inspect(fs *procfs.FS, pid int, start uint64) (*Inspection, error) {
	proc, err := fs.Process(pid)
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	i := &Inspection{Process: Process{PID: pid, Start: start}}
	ps := &processes{fs: fs}
	if err := ps.read(proc, &i.Process, procfs.State{}); err != nil {
		return nil, err
	}
	if uid, err := proc.UID(); err == nil {
		i.UID, i.HasUID = uid, true
	}
	if text, err := proc.Cgroup(); err == nil {
		i.CgroupPath = escape.Name(cgroup.Path(text))
	}
	i.Netns, err = proc.Netns()
	i.Refused = errors.Is(err, procfs.ErrRefused) // then exe is refused, too
	if l := ps.readLineage(&i.Process); l != nil {
		i.Lineage = *l
	}
	return i, nil
}
