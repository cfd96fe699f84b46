package changes

import (
	"cmp"
	"slices"
)

// A socket is what is known of one of an endpoint's sockets.
type socket struct {
	ID    SocketID `json:"i"`
	Owner int      `json:"o"` // index into endpoint.owners
	// Processes begin with the one that made Owner its owner; none if that is assumed. Those
	// of an activated socket are all its services.
	Processes []process `json:"p"`
	Reported  bool      `json:"t"` // it was there at the last event
	Activated bool      `json:"a"` // a manager has been seen to hold it
}

// maxOwners limits the owners that are distinguished at one endpoint, which is compared with
// each: all further ones count as the last.
const maxOwners = 64

// unassigned is the owner of a socket of which nothing is known.
const unassigned = -1

func compareIDs(a, b SocketID) int {
	return cmp.Or(cmp.Compare(a.Netns, b.Netns), cmp.Compare(a.Cookie, b.Cookie), cmp.Compare(a.Inode, b.Inode))
}

// A match says whose the sockets of an endpoint are in one look, in terms of the owners
// that the endpoint had.
type match struct {
	sockets []socket  // as they are to be recorded, in the order of endpoint.current
	owners  []*owner  // the endpoint's, then those that are new
	before  int       // how many were the endpoint's
	used    []bool    // by owner: a socket is its
	latest  []*Socket // by owner: of its sockets with a known service, the one that started last
	gained  []bool    // by socket: it has come, and its owner is new

	findings
}

// findings are what a match means for the endpoint.
type findings struct {
	pending     bool // the search for an owner is under way
	searching   bool // it is, and may find another one
	moved       bool // a known socket has another owner
	joined      bool // a socket of another owner has come
	reported    bool // a socket of the last event is left
	overlapping bool // a known socket is left
	newService  bool // an activated socket has another instance of its service
	learned     bool // an owner has another name
}

// run matches the sockets that a look has found with what is known of the endpoint. Both
// are in the order of compareIDs.
func (m *match) run(e *endpoint) {
	m.sockets, m.gained = m.sockets[:0], m.gained[:0]
	m.owners, m.before = append(m.owners[:0], e.Owners...), len(e.Owners)
	m.used, m.latest = resize(m.used, m.before), resize(m.latest, m.before)
	m.findings = findings{}
	i := 0
	for _, s := range e.current {
		for i < len(e.Sockets) && compareIDs(e.Sockets[i].ID, s.ID) < 0 {
			i++
		}
		var known *socket
		if i < len(e.Sockets) && e.Sockets[i].ID == s.ID {
			known = &e.Sockets[i]
			m.overlapping = true
			m.reported = m.reported || known.Reported
		}
		m.add(e, s, known)
	}
	m.assume(e)
	e.dirty = e.dirty || m.learned
}

func resize[T any](s []T, n int) []T {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}

// add matches one socket, of which known is what is known or nil.
func (m *match) add(e *endpoint, s *Socket, known *socket) {
	next := socket{ID: s.ID, Owner: unassigned}
	if known != nil {
		next = *known
	}
	next.Activated = next.Activated || s.hasManager()
	m.pending = m.pending || s.Status == Pending
	gained := false
	switch {
	case s.hasService():
		gained = m.identify(e, s, known, &next)
	case s.Status == None && (known == nil || !m.owners[known.Owner].named()):
		nobody := Holder{Key: Key{UID: s.UID}}
		next.Owner, gained = m.ownerOf(e, &nobody)
		gained = gained && known == nil
		next.Processes = nil
	case known == nil:
		m.searching = m.searching || s.Status == Pending
	default: // what is unknown is as it was
		m.searching = m.searching || s.Status == Pending && len(known.Processes) > 0
	}
	m.sockets, m.gained = append(m.sockets, next), append(m.gained, gained)
	if next.Owner != unassigned {
		m.use(&next, s)
	}
}

// use notes that an owner has a socket, and whether that shows who the owner is.
func (m *match) use(known *socket, s *Socket) {
	m.used[known.Owner] = true
	shows := m.owners[known.Owner].adoptable()
	if s.hasService() {
		shows = known.Processes[0].is(s.named())
	}
	if shows && s.startedAfter(m.latest[known.Owner]) {
		m.latest[known.Owner] = s
	}
}

// identify finds the owner of a socket with a known service. It reports whether the socket
// has come, and its owner is new.
func (m *match) identify(e *endpoint, s *Socket, known *socket, next *socket) (gained bool) {
	first := s.named()
	if known != nil && len(known.Processes) > 0 {
		// As long as it holds the socket, further holders are no other owner.
		if h := s.holder(known.Processes[0]); h != nil {
			m.learned = m.owners[known.Owner].learn(h.Key) || m.learned
			next.Processes = processesOf(s, known.Processes[0], next.Activated, next.Processes)
			return false
		}
	}
	next.Owner, gained = m.ownerOf(e, first)
	if known != nil {
		// An owner that was only assumed may turn out to be another one of the endpoint.
		certain := len(known.Processes) > 0 || next.Owner >= m.before
		m.moved = m.moved || next.Owner != known.Owner && certain && !m.owners[known.Owner].adoptable()
		m.newService = m.newService || next.Activated && next.Owner == known.Owner && len(known.Processes) > 0 &&
			!slices.ContainsFunc(known.Processes, func(p process) bool { return s.holder(p) != nil })
		gained = false
	}
	next.Processes = processesOf(s, process{first.PID, first.Start}, next.Activated, nil)
	return gained
}

// holder returns the holder that is the process, or nil.
func (s *Socket) holder(p process) *Holder {
	for i := range s.Holders {
		if p.is(&s.Holders[i]) {
			return &s.Holders[i]
		}
	}
	return nil
}

// processesOf returns what socket.Processes is to hold: before, if it is that.
func processesOf(s *Socket, first process, activated bool, before []process) []process {
	if !activated && len(before) == 1 {
		return before
	}
	processes := []process{first}
	for i := range s.Holders {
		if h := &s.Holders[i]; activated && h.service() && !first.is(h) {
			processes = append(processes, process{h.PID, h.Start})
		}
	}
	if slices.Equal(processes, before) {
		return before
	}
	return processes
}

// ownerOf returns the index of the owner that a process is, which is added if it is new.
func (m *match) ownerOf(e *endpoint, h *Holder) (index int, added bool) {
	general := h.Key.Generalized()
	for i := range m.owners {
		if o := m.owners[i]; h.PID != 0 && o.Shown.Process.is(h) {
			m.learned = o.learn(h.Key) || m.learned
			return i, false
		}
	}
	for i := range m.owners {
		if slices.Contains(m.owners[i].Keys, general) {
			return i, false
		}
	}
	for _, s := range e.Sockets[:min(len(e.Sockets), maxOwners)] {
		if len(s.Processes) > 0 && s.Processes[0].is(h) {
			m.learned = m.owners[s.Owner].learn(h.Key) || m.learned
			return s.Owner, false
		}
	}
	if len(m.owners) >= maxOwners {
		return maxOwners - 1, false
	}
	m.owners = append(m.owners, &owner{Keys: []Key{general}, latest: h.Key})
	m.used, m.latest = append(m.used, false), append(m.latest, nil)
	return len(m.owners) - 1, true
}

// assume decides on what is not known: an owner that is new may be one that was not known
// before, and a socket without a known owner is one of an owner that has no other.
func (m *match) assume(e *endpoint) {
	m.joined = slices.Contains(m.gained, true) && m.anyNamed() && !m.replacesUnknown()
	for i := range m.sockets {
		if s := &m.sockets[i]; s.Owner == unassigned {
			s.Owner = m.assumedOwner(e)
			m.use(s, e.current[i])
		}
	}
}

// anyNamed reports whether any of the endpoint's owners was known.
func (m *match) anyNamed() bool {
	return slices.ContainsFunc(m.owners[:m.before], func(o *owner) bool { return o.named() })
}

// replacesUnknown reports whether the endpoint had an owner that was never known, and that
// has no socket now.
func (m *match) replacesUnknown() bool {
	for i := range m.owners[:m.before] {
		if !m.owners[i].named() && !m.used[i] {
			return true
		}
	}
	return false
}

// assumedOwner returns the owner that a socket with an unknown owner is assumed to have.
// It prefers owners without a socket, then those that are known, then the first by name.
func (m *match) assumedOwner(e *endpoint) int {
	if m.before > 0 && !e.Unreported {
		found, best := 0, -1
		for i, o := range m.owners[:m.before] {
			fit := 2*btoi(!m.used[i]) + btoi(o.named())
			if fit > best || fit == best && o.name() < m.owners[found].name() {
				found, best = i, fit
			}
		}
		return found
	}
	if i := slices.IndexFunc(m.owners, func(o *owner) bool { return !o.named() }); i >= 0 {
		return i
	}
	m.owners = append(m.owners, &owner{})
	m.used, m.latest = append(m.used, false), append(m.latest, nil)
	return len(m.owners) - 1
}

// newest returns the index of the socket that events name.
func newest(sockets []*Socket) (index int) {
	for i, s := range sockets {
		if i > 0 && s.startedAfter(sockets[index]) {
			index = i
		}
	}
	return index
}

func latest(sockets []*Socket) *Socket { return sockets[newest(sockets)] }

// newest returns the socket that the event of another owner names: one of an owner that is
// new, if there is one.
func (m *match) newest(e *endpoint) *Socket {
	var found *Socket
	for i, s := range e.current {
		if m.sockets[i].Owner >= m.before && s.startedAfter(found) {
			found = s
		}
	}
	if found == nil {
		return latest(e.current)
	}
	return found
}

// latestBefore returns the owner that started last of those that the endpoint had.
func (m *match) latestBefore() *owner { return latestOwner(m.owners[:m.before]) }

func latestOwner(owners []*owner) *owner {
	latest := owners[0]
	for _, o := range owners[1:] {
		if o.startedAfter(latest) {
			latest = o
		}
	}
	return latest
}

// startedAfter orders owners: those that were never known come first.
func (o *owner) startedAfter(other *owner) bool {
	if o.named() != other.named() {
		return o.named()
	}
	return o.Shown.Process.Start > other.Shown.Process.Start
}

// lastShown returns what the events say of an endpoint that is gone: of the owners that had
// a socket in the last look, the one that started last.
func (e *endpoint) lastShown() *shown {
	var last []*owner
	for i := range e.Sockets {
		last = append(last, e.Owners[e.Sockets[i].Owner])
	}
	if last == nil { // a boot has ended all sockets
		last = e.Owners
	}
	return &latestOwner(last).Shown
}
