package tcplisten

import (
	"context"
	"os"
	"slices"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/changes"
	"sockwatch/inputs/internal/exehash"
	"sockwatch/inputs/internal/expect"
	"sockwatch/inputs/internal/owner"
)

// isObserved reports whether observed is up to date.
func (l *listener) isObserved() bool { return l.observed.Endpoint != changes.Endpoint{} }

// observe builds observed. It reads the ancestry of processes only if there may be events.
func (l *listener) observe(r *readers, lineage bool) {
	s := &l.socket
	l.observed = changes.Socket{
		Endpoint: changes.Endpoint{Netns: l.table.name, Address: l.address(), Port: s.Port},
		ID:       changes.SocketID{Netns: l.table.ns.Inode(), Cookie: s.Cookie, Inode: s.Inode},
		UID:      s.UID,
		Exposure: l.exposure(), ExposureUnknown: l.table.local == nil,
		Status: l.status(),
		Tags:   l.tags,
	}
	l.observed.Own = r.procfs.OwnPIDs() && slices.ContainsFunc(l.owner.Holders, func(h owner.Holder) bool { return h.Process.PID == os.Getpid() })
	for i, h := range l.owner.Holders {
		l.observed.Holders = append(l.observed.Holders, l.holder(r, h.Process, lineage && i == 0))
	}
	if l.listenEvent != nil {
		l.observed.Opened, l.observed.ListenPID = l.opened, l.listenEvent.PID
	}
	l.judged = nil
}

func (l *listener) status() changes.Status {
	switch l.owner.Status {
	case owner.Pending:
		return changes.Pending
	case owner.Resolved:
		return changes.Known
	case owner.None:
		return changes.None
	default:
		return changes.Unknown
	}
}

func (l *listener) holder(r *readers, p *owner.Process, lineage bool) changes.Holder {
	name := l.cgroup
	if p.CgroupRead {
		name = p.Cgroup
	}
	h := changes.Holder{
		PID: p.PID, Start: p.Start, Manager: p.Manager(),
		Key: changes.Key{
			Process: p.Comm, UID: l.socket.UID, Unit: name.Unit, UserUnit: name.UserUnit, InContainer: name.Container != "",
		},
		Facts: changes.Facts{Exe: p.Exe, ExeDeleted: p.ExeDeleted, Start: r.procfs.StartTime(p.Start), Cmdline: p.Cmdline},
	}
	if r.sums != nil {
		h.Facts.ExeSHA256 = r.sums.Sum(exehash.Process{PID: p.PID, Start: p.Start, Exe: p.Exe})
	}
	if !lineage {
		return h
	}
	if from := r.owners.Lineage(p); from != nil {
		h.Facts.Parent = changes.Parent{PID: from.ParentPID, Process: from.ParentComm, Exe: from.ParentExe}
		h.Facts.LoginUID, h.Facts.HasLoginUID = from.LoginUID, from.HasLogin
	}
	return h
}

// forRules returns the listener as rules see it.
func (l *listener) forRules(users userNames) *expect.Listener {
	s := &l.socket
	tag := (&metric.Point{Tags: l.tags}).Tag
	e := &expect.Listener{
		Netns: l.table.name, Address: s.Addr.WithZone(""), Device: l.device(), Port: s.Port,
		Family: s.Family(), Exposure: l.exposure(), ExposureUnknown: l.table.local == nil,
		User: tag("user"), UserPending: users.Pending(s.UID), Unit: l.cgroup.Unit, UserUnit: l.cgroup.UserUnit, Container: l.cgroup.Container, Pod: l.cgroup.Pod,
		OwnerUnknown: l.owner.Status != owner.Resolved && l.owner.Status != owner.None,
		OwnerPending: l.owner.Status == owner.Pending,
		Tags:         l.tags,
	}
	for _, h := range l.owner.Holders {
		p := h.Process
		e.Holders = append(e.Holders, expect.Holder{
			Process: p.Comm, Exe: p.Exe, Manager: p.Manager(), CgroupUnknown: !p.CgroupRead,
			Unit: p.Cgroup.Unit, UserUnit: p.Cgroup.UserUnit, Container: p.Cgroup.Container, Pod: p.Cgroup.Pod,
		})
	}
	observed := l.observed
	e.Facts = func() []metric.Field { return observed.Fields() }
	return e
}

// sumPrograms starts the sums of the named owners' programs, if exe_sha256 is on.
func (in *input) sumPrograms(ctx context.Context, now time.Time) {
	if in.open.sums == nil {
		return
	}
	named := make(map[exehash.Process]bool)
	for _, l := range in.listeners.all {
		if p := l.owner.Named(); p != nil {
			named[exehash.Process{PID: p.PID, Start: p.Start, Exe: p.Exe}] = true
		}
	}
	in.open.sums.Update(ctx, named, now)
}

// hasNewSum reports whether the sum of the named owner's program has become known or changed
// since the listener was last observed.
func (l *listener) hasNewSum(sums *exehash.Sums) bool {
	if sums == nil || len(l.observed.Holders) == 0 {
		return false
	}
	h := &l.observed.Holders[0]
	sum := sums.Sum(exehash.Process{PID: h.PID, Start: h.Start, Exe: h.Facts.Exe})
	return sum != "" && sum != h.Facts.ExeSHA256
}
