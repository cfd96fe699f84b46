package changes

import (
	"time"

	"sockwatch/inputs/internal/inet"
)

// step compares a present endpoint with its record.
func (l *scan) step(e *endpoint) {
	m := &l.match
	switch {
	case l.baseline(e.Netns):
		l.accept(e, m)
		return
	case e.Unreported:
		m.run(e)
		l.arrive(e, m)
	default:
		m.run(e)
		l.compare(e, m)
	}
	if !e.Unreported {
		l.compareExposure(e)
	}
}

// accept records what the scan found, without an event.
func (l *scan) accept(e *endpoint, m *match) {
	if e.Unreported {
		e.FirstSeen = l.importedTime(e)
	}
	e.Unreported, e.Returns, e.Lost, e.Owners, e.Sockets = false, false, nil, nil, nil
	m.run(e)
	e.commit(m, true, e.FirstSeen)
	e.expose()
	e.dirty = true
}

// arrive reports that an endpoint has opened or returned, or that its owner has moved to it.
func (l *scan) arrive(e *endpoint, m *match) {
	m.prune(true)
	e.update(m, true, e.FirstSeen)
	e.expose()
	if m.pending && l.waiting(e.Change.Mono, l.options.OwnerWait) {
		l.arriving[e.Port] = append(l.arriving[e.Port], e)
		return
	}
	switch from, moved := l.origin(e); {
	case moved && from.Netns != e.Netns:
		l.moveNamespace(e, from)
	case moved:
		l.rebind(e, from)
	default:
		l.open(e, e.opener().shown())
	}
	e.Unreported, e.Returns, e.dirty = false, false, true
	e.Change = nil
}

// opener returns the socket that opened the endpoint, if that is known, else the latest.
func (e *endpoint) opener() *Socket {
	for _, s := range e.current {
		if !s.Opened.IsZero() && s.Opened.Equal(e.Change.Time) {
			return s
		}
	}
	return latest(e.current)
}

// open reports that an endpoint has opened or returned.
func (l *scan) open(e *endpoint, s shown) {
	kind := opened
	if e.Returns {
		kind = returned
	}
	l.report(e, kind, e.Change.mark, s)
	e.changedAt(e.Change.Time)
}

// compare reports what has changed at a known endpoint.
func (l *scan) compare(e *endpoint, m *match) {
	booted := e.Gone != nil && e.Gone.Boot
	lost, unknownLost := m.lost()
	another := m.joined || m.moved
	restarts := !m.reported || m.newService
	if another || restarts || m.searching {
		l.differ(e, m)
		if e.event == l.Number { // one per scan; the next scan reports the rest
			l.next.now = true
			e.postpone()
			return
		}
		if m.searching && l.waiting(e.Change.Mono, l.options.OwnerWait) {
			e.postpone()
			return
		}
	}
	switch {
	case another:
		l.changeOwner(e, m, lost, e.Change.mark, e.Change.Down)
		return
	case restarts && !booted:
		l.restart(e, m)
	default:
		e.commit(m, restarts, e.FirstSeen)
	}
	if lost == nil && !unknownLost {
		e.keepLost(nil)
		return
	}
	if e.Lost == nil || lost != nil && !e.Lost.Known {
		since := &loss{mark: l.mark, Known: lost != nil}
		since.Boot = since.Boot || booted
		e.keepLost(since)
	}
	if !l.waiting(e.Lost.Mono, l.settle(&e.Lost.mark)) && e.event != l.Number {
		l.loseOwner(e, m, lost)
	}
}

// differ records since when an endpoint has differed from its record.
func (l *scan) differ(e *endpoint, m *match) {
	if e.Change != nil {
		return
	}
	c := &change{mark: l.markOfKnown()}
	if s := m.newest(e); e.known(s.ID) == nil {
		c.mark = l.markOf(s)
	}
	closed := l.closedAt(e)
	if e.Gone != nil && e.Gone.Window == 0 {
		closed = e.Gone.Time
	}
	switch {
	case m.overlapping:
	case c.Window == 0 && !closed.IsZero():
		c.Down = max(c.Time.Sub(closed), 0)
	case e.Gone != nil:
		c.Down = e.Gone.Last.until(l.Moment)
	default:
		c.Down = l.before.until(l.Moment)
	}
	e.Change, e.dirty = c, true
}

// changeOwner reports that an endpoint has another owner.
func (l *scan) changeOwner(e *endpoint, m *match, lost *owner, at mark, down time.Duration) {
	previous := lost
	if previous == nil {
		previous = m.latestBefore()
	}
	s := m.newest(e).shown()
	l.report(e, ownerChanged, at, s, append(previousOwner(&previous.Shown, &s, true), downSeconds(down))...)
	m.prune(true)
	e.commit(m, true, at.Time.Unix())
	e.Lost = nil
	e.changedAt(at.Time)
}

// restart reports that the same owner has other sockets, or another process. It does not
// report restarts of this program itself.
func (l *scan) restart(e *endpoint, m *match) {
	i := newest(e.current)
	if e.current[i].Own {
		e.commit(m, true, e.FirstSeen)
		return
	}
	s, previous := e.current[i].shown(), m.latestBefore()
	if o := m.sockets[i].Owner; o < m.before {
		previous = m.owners[o]
	}
	l.report(e, restarted, e.Change.mark, s,
		append(previousOwner(previous.replaced(e.current), &s, false), downSeconds(e.Change.Down))...)
	e.commit(m, true, e.FirstSeen)
}

// loseOwner reports that an owner, if it was ever known, has had no socket for long enough.
func (l *scan) loseOwner(e *endpoint, m *match, lost *owner) {
	if lost != nil {
		l.changeOwner(e, m, lost, e.Lost.mark, 0)
		return
	}
	m.prune(false)
	e.update(m, false, e.FirstSeen)
	e.keepLost(nil)
}

func (e *endpoint) keepLost(since *loss) {
	if e.Lost != since {
		e.Lost, e.dirty = since, true
	}
}

func (e *endpoint) changedAt(at time.Time) { e.Changed, e.dirty = at.Unix(), true }

// compareExposure reports that the class has changed: to public at once, otherwise after it
// has settled.
func (l *scan) compareExposure(e *endpoint) {
	class, known := e.class()
	switch x := &e.Exposure; {
	case !known:
		return
	case !x.Known || class == x.Reported:
		if !x.Known || x.Since != nil {
			e.expose()
			e.dirty = true
		}
		return
	case x.Since == nil || x.Next != class:
		since := l.markOfKnown()
		x.Next, x.Since = class, &since
		e.dirty = true
	}
	if class != inet.Public && l.waiting(e.Exposure.Since.Mono, l.settle(e.Exposure.Since)) {
		return
	}
	l.report(e, exposureChanged, *e.Exposure.Since, latest(e.current).shown(),
		previousExposure(e.Exposure.Reported, "")...)
	e.changedAt(e.Exposure.Since.Time)
	e.expose()
}

// miss records that an endpoint is missing. It returns false if that must not be reported.
func (l *scan) miss(e *endpoint) bool {
	if _, included := l.Namespaces[e.Netns]; l.baseline(e.Netns) || l.rescoped && !included {
		l.drop(e)
		return false
	}
	if e.Unreported {
		l.open(e, *e.lastShown())
		e.Unreported, e.Returns = false, false
	}
	if e.Gone == nil {
		e.Gone, e.dirty = &absence{mark: l.mark, Last: l.before.Moment}, true
	}
	if at := l.closedAt(e); e.Gone.Window > 0 && !at.IsZero() { // the kernel may report it only after a scan without it
		e.Gone.Time, e.Gone.Window, e.dirty = at, 0, true
	}
	if e.Change != nil || e.Lost != nil || e.Exposure.Since != nil { // these stop waiting
		e.Change, e.Lost, e.Exposure.Since = nil, nil, nil
		e.dirty = true
	}
	return true
}

// stepAbsent reports that a missing endpoint has closed, if it has been missing for long
// enough, and no search is under way for an owner that may have moved from it.
func (l *scan) stepAbsent(e *endpoint) {
	switch {
	case !e.early && l.waiting(e.Gone.Mono, l.settle(&e.Gone.mark)):
	case e.event == l.Number || l.mayHaveMoved(e):
		l.next.now = true
	default:
		l.report(e, closed, e.Gone.mark, *e.lastShown(), ageOf(e.FirstSeen, e.Gone.Time)...)
		l.drop(e)
		l.remember(e.Endpoint)
	}
}

// drop forgets an endpoint.
func (l *scan) drop(e *endpoint) {
	delete(l.endpoints, e.Endpoint)
	l.set[recordKey(e.Endpoint)] = nil
}

// remember remembers an endpoint as closed.
func (l *scan) remember(at Endpoint) { l.set[recordKey(at)] = l.memory.add(at, l.view.Time) }

// waiting reports whether a time since a moment of this boot has not passed yet, and notes
// when it will have.
func (l *scan) waiting(since, wait time.Duration) bool {
	if end := since + wait; l.Moment.Mono < end {
		l.next.atMono(end)
		return true
	}
	return false
}

// settle returns how long a difference first seen at the mark must last.
func (l *scan) settle(since *mark) time.Duration {
	if since.Boot {
		return l.options.SettleBoot
	}
	return l.options.Settle
}
