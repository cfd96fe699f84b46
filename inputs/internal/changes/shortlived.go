package changes

import (
	"cmp"
	"slices"
	"time"
)

// reportShortLived reports sockets that were seen only between the last scan and this one. It is too
// late to search for their owners. Sockets of one endpoint that were seen at the same time are
// matched together, since there may be thousands.
func (l *scan) reportShortLived(all []ShortLived) {
	type instant struct {
		Endpoint
		nano int64
	}
	type group struct {
		first   *ShortLived
		sockets []*Socket
	}
	var groups []*group
	at := make(map[instant]*group)
	for i := range all {
		seen := &all[i]
		if l.failed[seen.Netns] || l.baseline(seen.Netns) {
			continue
		}
		key := instant{seen.Endpoint, seen.Time.UnixNano()}
		g := at[key]
		if g == nil {
			g = &group{first: seen}
			at[key], groups = g, append(groups, g)
		}
		s := seen.Socket
		if s.Status == Pending {
			s.Status = Unknown
		}
		g.sockets = append(g.sockets, &s)
	}
	now := l.mark
	for _, g := range groups {
		l.mark = now
		if l.mark.Time = g.first.Time; !g.first.Opened.IsZero() {
			l.mark.Window = 0
		}
		l.reportTogether(g.first.Endpoint, g.sockets)
	}
	l.mark = now
}

// reportTogether reports the sockets of an endpoint that were seen at the same time.
func (l *scan) reportTogether(at Endpoint, sockets []*Socket) {
	e := l.endpoints[at]
	if e == nil {
		e = l.add(at, l.mark)
		e.brief = true
	}
	e.current = sockets
	if e.Gone == nil { // as far as is known, the others are present
		seen := make(map[SocketID]bool, len(sockets))
		for _, s := range sockets {
			seen[s.ID] = true
		}
		for i := range e.Sockets {
			if id := e.Sockets[i].ID; !seen[id] && !l.closedBefore(id, l.mark.Time) {
				e.current = append(e.current, &Socket{Endpoint: at, ID: id, Status: Unknown, ExposureUnknown: true})
			}
		}
	}
	e.sortCurrent()
	defer func() { e.current = nil }()
	l.match.run(e)
	if e.Unreported {
		l.arrive(e, &l.match)
	} else {
		l.compare(e, &l.match)
	}
}

// maxBrief is how many endpoints that no scan has found wait for settle. It bounds the memory for
// programs that open and close sockets faster than settle passes.
const maxBrief = 10_000

// limitBrief lets the first of the missing endpoints that no scan has found close now, if there are
// too many.
func (l *scan) limitBrief(missing []*endpoint) {
	var brief []*endpoint
	for _, e := range missing {
		if e.early = false; e.brief {
			brief = append(brief, e)
		}
	}
	if len(brief) <= maxBrief {
		return
	}
	slices.SortStableFunc(brief, func(a, b *endpoint) int {
		return cmp.Or(cmp.Compare(a.Gone.Mono, b.Gone.Mono), a.Gone.Time.Compare(b.Gone.Time))
	})
	for _, e := range brief[:len(brief)-maxBrief] {
		e.early = true
	}
}

// closedBefore reports whether a socket is known to have closed before a time.
func (l *scan) closedBefore(id SocketID, at time.Time) bool {
	closed, known := l.closed[id.Cookie]
	return known && !closed.After(at)
}
