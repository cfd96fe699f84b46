package owner

import "sockwatch/inputs/internal/escape"

// A Lineage says where a process comes from. What cannot be read is zero.
type Lineage struct {
	ParentPID             int // 0 if its parent is not in this procfs
	ParentComm, ParentExe string
	LoginUID              uint32 // the user whose login led to the process, if HasLogin
	HasLogin              bool
}

// Lineage returns where a process comes from. It is read once, at the first call: a parent
// that exits later stays the parent. It is nil if the process has exited or may not be
// read.
func (f *Finder) Lineage(p *Process) *Lineage {
	if p.lineage == nil && !p.gone {
		p.lineage = f.processes.readLineage(p)
	}
	return p.lineage
}

func (ps *processes) readLineage(p *Process) *Lineage {
	proc, err := ps.fs.Process(p.PID)
	if err != nil {
		return nil
	}
	defer proc.Close()
	st, err := proc.Stat()
	if err != nil || st.Start != p.Start {
		return nil
	}
	l := &Lineage{ParentPID: st.Parent}
	if uid, ok, err := proc.LoginUID(); err == nil {
		l.LoginUID, l.HasLogin = uid, ok
	}
	if st.Parent == 0 {
		return l
	}
	parent, err := ps.fs.Process(st.Parent)
	if err != nil {
		return l
	}
	defer parent.Close()
	// A process that started after its child is not the parent: it has the parent's pid by
	// now.
	if of, err := parent.Stat(); err == nil && of.Start <= p.Start {
		l.ParentComm = escape.Name(of.Comm)
		if exe, _, err := parent.Exe(); err == nil {
			l.ParentExe = escape.Name(exe)
		}
	}
	return l
}
