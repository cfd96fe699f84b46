package changes

import (
	"cmp"
	"slices"
	"strings"
)

// followRenames gives a new endpoint the state of a missing one if they have a socket in common: its
// namespace or its device was renamed. It returns those that are still missing.
func (l *scan) followRenames(present, absent []*endpoint) (stillAbsent []*endpoint) {
	bySocket := make(map[SocketID]*endpoint)
	for _, e := range absent {
		for i := range e.Sockets {
			bySocket[e.Sockets[i].ID] = e
		}
	}
	if len(bySocket) == 0 {
		return absent
	}
	for _, e := range present {
		if len(e.Sockets) > 0 || !e.Unreported {
			continue
		}
		for _, s := range e.current {
			old := bySocket[s.ID]
			if old == nil || old.Port != e.Port || l.endpoints[old.Endpoint] != old {
				continue
			}
			l.drop(old)
			e.record, e.last, e.dirty = old.record, old.last, true
			break
		}
	}
	return slices.DeleteFunc(absent, func(e *endpoint) bool { return l.endpoints[e.Endpoint] != e })
}

// indexMissing indexes the missing endpoints for origin, and returns them.
func (l *scan) indexMissing(absent []*endpoint) (missing []*endpoint) {
	l.missing = make(map[uint16][]*endpoint)
	for _, e := range absent {
		if l.miss(e) {
			missing = append(missing, e)
			l.missing[e.Port] = append(l.missing[e.Port], e)
		}
	}
	for port, left := range l.missing {
		slices.SortStableFunc(left, func(a, b *endpoint) int {
			return -cmp.Or(cmp.Compare(a.Gone.Mono, b.Gone.Mono), a.Gone.Time.Compare(b.Gone.Time))
		})
		l.missing[port] = left[:min(len(left), maxOrigins)]
	}
	return missing
}

// maxOrigins limits how many missing endpoints of a port are compared with each new one: the
// most recent ones.
const maxOrigins = 256

// origin returns the endpoint that the owner of a new one has moved from: that of a container
// that was recreated, or another address of the port.
func (l *scan) origin(e *endpoint) (from *endpoint, moved bool) {
	best := func(fits func(old *endpoint) bool) (found *endpoint) {
		for _, old := range l.missing[e.Port] { // the most recent one first
			if l.endpoints[old.Endpoint] != old || !old.leftBefore(e, l) || !fits(old) {
				continue
			}
			if e.sameFamily(old) {
				return old
			}
			if found == nil {
				found = old
			}
		}
		return found
	}
	if from = best(func(old *endpoint) bool { return old.isOtherNamespaceOf(e) && e.sameOwners(old, true) }); from != nil {
		return from, true
	}
	from = best(func(old *endpoint) bool { return old.isOtherAddressOf(e) && e.sameOwners(old, false) })
	return from, from != nil
}

// mayHaveMoved reports whether a missing endpoint may turn out to be the origin of one whose
// owner is still being searched for.
func (l *scan) mayHaveMoved(old *endpoint) bool {
	return slices.ContainsFunc(l.arriving[old.Port], func(e *endpoint) bool {
		return (old.isOtherNamespaceOf(e) || old.isOtherAddressOf(e)) && old.leftBefore(e, l)
	})
}

// leftBefore reports whether the endpoint was missing when another one appeared, but not long
// enough to be closed.
func (e *endpoint) leftBefore(next *endpoint, l *scan) bool {
	since := next.Change.Mono - e.Gone.Mono
	return since >= 0 && since <= l.settle(&e.Gone.mark)
}

func (e *endpoint) isOtherAddressOf(next *endpoint) bool {
	return e.Netns == next.Netns && e.Address != next.Address
}

// isOtherNamespaceOf reports whether two endpoints may belong to one container that was
// recreated. A namespace that was named by a person never succeeds another.
func (e *endpoint) isOtherNamespaceOf(next *endpoint) bool {
	return e.Address == next.Address && e.Netns != next.Netns && generatedNetns(e.Netns) && generatedNetns(next.Netns)
}

// sameOwners reports whether, as far as is known, the endpoint has only owners that another
// one had. strictly: all of its owners must be known.
func (e *endpoint) sameOwners(old *endpoint, strictly bool) bool {
	for i := range e.Owners {
		o := e.Owners[i]
		if !slices.ContainsFunc(old.Owners, func(other *owner) bool {
			return (!strictly || o.named() && other.named()) && o.equals(other)
		}) {
			return false
		}
	}
	return true
}

func (e *endpoint) sameFamily(other *endpoint) bool {
	return strings.Contains(e.Address, ":") == strings.Contains(other.Address, ":")
}

// rebind reports that the owner of an endpoint has moved there from another address of the
// port.
func (l *scan) rebind(e, from *endpoint) {
	l.report(e, exposureChanged, e.Change.mark, latest(e.current).shown(),
		previousExposure(from.Exposure.Reported, from.Address)...)
	e.changedAt(e.Change.Time)
	l.drop(from)
	l.remember(from.Endpoint)
}

// moveNamespace reports that a container was recreated in another namespace. After a boot that
// is not reported.
func (l *scan) moveNamespace(e, from *endpoint) {
	if !from.Gone.Boot {
		s, previous := latest(e.current).shown(), from.lastShown()
		l.report(e, restarted, e.Change.mark, s,
			append(previousOwner(previous, &s, false), downSeconds(e.Change.Mono-from.Gone.Last.Mono))...)
	}
	e.FirstSeen, e.Changed, e.Exposure = from.FirstSeen, from.Changed, from.Exposure
	for i := range e.Owners {
		e.Owners[i].FirstSeen = from.FirstSeen
	}
	e.Exposure.Since = nil
	l.drop(from)
}
