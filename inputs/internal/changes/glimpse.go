package changes

// glimpse reports a socket that was seen only between the last look and this one. Its
// owner is not searched any more.
func (l *look) glimpse(g *Glimpse) {
	if l.failed[g.Netns] || l.baseline(g.Netns) {
		return
	}
	now := l.mark
	l.mark.Time = g.Time
	defer func() { l.mark = now }()
	s := g.Socket
	if s.Status == Pending {
		s.Status = Unknown
	}
	e := l.endpoints[s.Endpoint]
	if e == nil {
		e = l.add(s.Endpoint, l.mark)
	}
	e.current = []*Socket{&s}
	if e.Gone == nil { // the others are there, as far as is known
		for i := range e.Sockets {
			if id := e.Sockets[i].ID; id != s.ID {
				e.current = append(e.current, &Socket{Endpoint: e.Endpoint, ID: id, Status: Unknown, ExposureUnknown: true})
			}
		}
		e.sortCurrent()
	}
	defer func() { e.current = nil }()
	l.match.run(e)
	if e.Unreported {
		l.arrive(e, &l.match)
	} else {
		l.compare(e, &l.match)
	}
}
