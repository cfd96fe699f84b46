package changes

import (
	"cmp"
	"slices"
)

// A socket is the record of one of an endpoint's sockets.
type socket struct {
	ID    SocketID `json:"i,omitzero"`
	Owner int      `json:"o,omitzero"` // index into endpoint.owners
	// Processes begin with the one by which Owner was identified; there are none if Owner is
	// assumed. For an activated socket they are all its services.
	Processes []process `json:"p,omitzero"`
	Reported  bool      `json:"t,omitzero"` // it was open at the last event
	Activated bool      `json:"a,omitzero"` // a manager has been seen to hold it
}

// maxOwners limits how many owners of an endpoint are distinguished, because each one costs
// comparisons: all further ones count as the last.
const maxOwners = 64

// unassigned is the owner of a socket about which nothing is known.
const unassigned = -1

func compareIDs(a, b SocketID) int {
	return cmp.Or(cmp.Compare(a.Netns, b.Netns), cmp.Compare(a.Cookie, b.Cookie), cmp.Compare(a.Inode, b.Inode))
}

// A match assigns the sockets of an endpoint in one scan to owners: those that the endpoint
// had, and new ones.
type match struct {
	sockets []socket  // to be recorded, in the order of endpoint.current
	owners  []*owner  // the endpoint's, then new ones
	before  int       // number of owners that the endpoint had
	used    []bool    // by owner: it has a socket
	latest  []*Socket // by owner: the one that started last of its sockets with a known service
	gained  []bool    // by socket: it is new, and so is its owner

	findings
}

// findings are the conclusions of a match for the endpoint.
type findings struct {
	pending     bool // the search for an owner is under way
	searching   bool // pending, and the search may find another owner
	moved       bool // a known socket has another owner
	joined      bool // another owner has opened a socket
	reported    bool // a socket of the last event is left
	overlapping bool // a known socket is left
	newService  bool // an activated socket has another instance of its service
	learned     bool // an owner has another name
}

// run matches the sockets that a scan found with the recorded ones. Both are in the order of
// compareIDs.
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

// add matches one socket. known is its record, or nil.
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
	default: // unknown: as before
		m.searching = m.searching || s.Status == Pending && len(known.Processes) > 0
	}
	m.sockets, m.gained = append(m.sockets, next), append(m.gained, gained)
	if next.Owner != unassigned {
		m.use(&next, s)
	}
}

// use records that an owner has a socket, and whether that identifies the owner.
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

// identify finds the owner of a socket with a known service. It reports whether both the
// socket and its owner are new.
func (m *match) identify(e *endpoint, s *Socket, known *socket, next *socket) (gained bool) {
	first := s.named()
	if known != nil && len(known.Processes) > 0 {
		// As long as it holds the socket, further holders do not change the owner.
		if h := s.holder(known.Processes[0]); h != nil {
			m.learned = m.owners[known.Owner].learn(h.Key) || m.learned
			next.Processes = processesOf(s, known.Processes[0], next.Activated, next.Processes)
			return false
		}
	}
	next.Owner, gained = m.ownerOf(e, first)
	if known != nil {
		// An assumed owner may turn out to be another owner of the endpoint.
		certain := len(known.Processes) > 0 || next.Owner >= m.before
		m.moved = m.moved || next.Owner != known.Owner && certain && !m.owners[known.Owner].adoptable()
		m.newService = m.newService || next.Activated && next.Owner == known.Owner && len(known.Processes) > 0 &&
			!slices.ContainsFunc(known.Processes, func(p process) bool { return s.holder(p) != nil })
		gained = false
	}
	next.Processes = processesOf(s, process{first.PID, first.Start}, next.Activated, nil)
	return gained
}

// holder returns the holder that is this process, or nil.
func (s *Socket) holder(p process) *Holder {
	for i := range s.Holders {
		if p.is(&s.Holders[i]) {
			return &s.Holders[i]
		}
	}
	return nil
}

// processesOf returns the new value of socket.Processes, which is before if nothing changed.
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

// ownerOf returns the index of the owner that a process belongs to. It adds the owner if it
// is new.
func (m *match) ownerOf(e *endpoint, h *Holder) (index int, added bool) {
	general := h.Key.generalized()
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

// assume decides what is not known: a new owner may be one that was unknown before, and a
// socket without a known owner belongs to an owner that has no other socket.
func (m *match) assume(e *endpoint) {
	m.joined = slices.Contains(m.gained, true) && m.anyNamed() && !m.replacesUnknown()
	for i := range m.sockets {
		if s := &m.sockets[i]; s.Owner == unassigned {
			s.Owner = m.assumedOwner(e)
			m.use(s, e.current[i])
		}
	}
}

// anyNamed reports whether any of the endpoint's owners is known.
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

// assumedOwner returns the owner that is assumed for a socket whose owner is unknown.
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

// newest returns the socket that the event of another owner names: one of a new owner, if
// there is one.
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

// latestBefore returns the owner that started last of those that the endpoint had before.
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

// lastShown returns what events report about an endpoint that is missing: the owner that
// started last of those with a socket in the last scan.
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
