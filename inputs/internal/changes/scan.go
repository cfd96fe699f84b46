package changes

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// A view is what is kept about a scan as a whole.
type view struct {
	Moment                       // of the last scan or listing
	Gathered   Moment            `json:"gathered,omitzero"` // of the last scan; zero: written by an earlier version
	Number     uint64            `json:"number"`
	Began      time.Time         `json:"began,omitzero"` // of the first scan; zero: written by an earlier version
	Scope      string            `json:"scope"`
	Namespaces map[string]nsSeen `json:"namespaces"` // by name
}

// An nsSeen records how a namespace was listed.
type nsSeen struct {
	View   string `json:"view"` // of the last listing that succeeded
	Failed bool   `json:"failed,omitempty"`
	New    bool   `json:"new,omitempty"` // it has appeared, but has not been listed yet
}

// A scan is one call of Observe.
type scan struct {
	*Tracker
	view
	mark     // of everything that this scan is the first to see
	before   view
	baseline func(netns string) bool // nothing in that namespace is an event
	closed   map[uint64]time.Time    // of the snapshot
	failed   map[string]bool         // namespaces that could not be listed
	rescoped bool                    // the options include other namespaces than before
	missing  map[uint16][]*endpoint  // by port: reported endpoints that are missing
	arriving map[uint16][]*endpoint  // by port: those that wait until their owners are found
	events   []*event
	set      map[string]json.RawMessage
	next     due
}

// begin determines the kind of scan: the first ever, the first after a start, a boot or a
// change of options, or an ordinary one.
func (t *Tracker) begin(s *Snapshot) *scan {
	l := &scan{
		Tracker: t, before: t.last, closed: s.Closed, set: make(map[string]json.RawMessage),
		failed: make(map[string]bool), arriving: make(map[uint16][]*endpoint),
	}
	first := t.last.Number == 0
	began := t.last.Began
	if first {
		began = s.Time.Round(0)
	}
	l.view = view{Moment: s.Moment, Gathered: s.Moment, Number: t.last.Number + 1, Began: began, Scope: s.Scope, Namespaces: make(map[string]nsSeen, len(s.Namespaces))}
	l.rescoped = !first && t.last.Scope != s.Scope
	rebooted := !first && t.last.Boot != s.Boot
	baseline := make(map[string]bool)
	for _, ns := range s.Namespaces {
		before, known := t.last.Namespaces[ns.Name]
		if ns.Failed {
			l.failed[ns.Name] = true
			appeared := !known && !first && !l.rescoped
			l.Namespaces[ns.Name] = nsSeen{View: before.View, Failed: true, New: before.New || appeared}
			continue
		}
		l.Namespaces[ns.Name] = nsSeen{View: ns.View}
		baseline[ns.Name] = known && !before.New && (before.Failed || before.View != ns.View) || !known && l.rescoped
	}
	l.baseline = func(netns string) bool { return first || baseline[netns] }
	l.mark = mark{
		Time: s.Time, Mono: s.Mono, Window: t.last.until(s.Moment), Boot: rebooted,
		WhileDown: !first && !t.started,
	}
	if rebooted {
		for _, e := range t.endpoints {
			l.reboot(e)
		}
	}
	return l
}

// markOfKnown returns the mark of a difference in what is known about sockets, such as their
// holders and addresses. Only a scan shows it, no listing.
func (l *scan) markOfKnown() mark {
	m := l.mark
	m.Window = l.before.gathered().until(l.Moment)
	return m
}

func (v *view) gathered() Moment {
	if v.Gathered.Time.IsZero() {
		return v.Moment
	}
	return v.Gathered
}

// until returns the time between two moments, by the best clock that they have in common.
func (m Moment) until(later Moment) time.Duration {
	if m.Boot == later.Boot {
		return max(later.Uptime-m.Uptime, 0)
	}
	return max(later.Time.Sub(m.Time), 0)
}

// reboot records that a boot has ended all sockets and processes.
func (l *scan) reboot(e *endpoint) {
	e.dirty = true
	e.Sockets, e.last, e.Exposure.Since, e.Lost = nil, nil, nil, nil
	for i := range e.Owners {
		e.Owners[i].Shown.Process.Start, e.Owners[i].Reported = 0, nil
	}
	switch {
	case e.Unreported:
		e.Change.Mono = l.Mono
	case e.Gone == nil:
		e.Change = nil
		e.Gone = &absence{mark: l.mark, Last: l.before.Moment}
	default:
		e.Change = nil
		e.Gone.Mono, e.Gone.Boot = l.Mono, true
	}
}

// assign assigns the sockets to their endpoints. It returns those that are present and the
// others, in an order that makes the choice of origins deterministic.
func (l *scan) assign(sockets []Socket) (present, absent []*endpoint) {
	for i := range sockets {
		s := &sockets[i]
		if l.failed[s.Netns] {
			continue
		}
		e := l.endpoints[s.Endpoint]
		if e == nil {
			e = l.add(s.Endpoint, l.markOf(s))
		} else if at := l.markOf(s); e.Unreported && e.Change.Mono == l.mark.Mono && at.Time.Before(e.Change.Time) {
			e.Change.mark, e.FirstSeen = at, at.Time.Unix() // this scan is the first to see the endpoint
		}
		e.current, e.brief = append(e.current, s), false
	}
	for _, e := range l.endpoints {
		switch {
		case l.failed[e.Netns]:
		case len(e.current) > 0:
			e.sortCurrent()
			present = append(present, e)
		default:
			absent = append(absent, e)
		}
	}
	if slices.ContainsFunc(present, func(e *endpoint) bool { return e.Unreported }) {
		slices.SortFunc(present, compareEndpoints)
	}
	slices.SortFunc(absent, compareEndpoints)
	return present, absent
}

func (e *endpoint) sortCurrent() {
	slices.SortFunc(e.current, func(a, b *Socket) int { return compareIDs(a.ID, b.ID) })
}

// markOf returns the mark of a socket that this scan is the first to see: exact if it is known
// when the socket opened, which may be after the scan's own time.
func (l *scan) markOf(s *Socket) mark {
	m := l.mark
	if s.Opened.After(l.before.Time) {
		m.Time, m.Window = s.Opened, 0
	}
	return m
}

// closedAt returns when the last socket of an endpoint closed, or the zero time if that is not
// known exactly.
func (l *scan) closedAt(e *endpoint) (last time.Time) {
	for _, id := range e.lastSockets() {
		at, known := l.closed[id.Cookie]
		if !known {
			return time.Time{}
		}
		if at.After(last) {
			last = at
		}
	}
	return last
}

// add adds a new endpoint, first seen at the mark.
func (l *scan) add(at Endpoint, m mark) *endpoint {
	returns := l.memory.remove(at, l.forgotten())
	e := &endpoint{Endpoint: at, record: record{
		Unreported: true, Returns: returns, FirstSeen: m.Time.Unix(), Change: &change{mark: m},
	}, dirty: true}
	l.endpoints[at] = e
	return e
}

// end keeps what the scan found, and returns its events and the records to write.
func (l *scan) end() Result {
	t := l.Tracker
	for at, e := range t.endpoints {
		clear(e.current) // the snapshot belongs to the caller
		e.current = e.current[:0]
		if e.Changed != 0 && l.view.Time.Unix() < e.Changed+changedFor {
			l.next.atWall(e.Changed + changedFor)
		}
		if e.dirty {
			l.set[recordKey(at)] = encode(&e.record)
			e.dirty = false
		}
	}
	t.memory.forget(l)
	points := l.points()
	if len(points) > 0 {
		l.set[totalsKey] = encode(t.totals.counts)
	}
	if len(l.set) > 0 || !t.started || !maps.Equal(l.Namespaces, l.before.Namespaces) || l.rescoped {
		l.set[viewKey] = encode(&l.view)
	}
	clear(t.match.latest[:cap(t.match.latest)]) // these belong to the snapshot, too
	t.last, t.due, t.started, t.imported = l.view, l.next, true, nil
	return Result{Events: points, Set: l.set}
}

func compareEndpoints(a, b *endpoint) int { return a.Endpoint.compare(b.Endpoint) }

// compare orders endpoints by namespace, port and address.
func (at Endpoint) compare(other Endpoint) int {
	if at == other {
		return 0
	}
	if c := cmp.Or(cmp.Compare(at.Netns, other.Netns), cmp.Compare(at.Port, other.Port)); c != 0 {
		return c
	}
	return cmp.Or(at.addr().Compare(other.addr()), cmp.Compare(at.Address, other.Address))
}
