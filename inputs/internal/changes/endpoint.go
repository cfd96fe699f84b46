package changes

import (
	"slices"
	"time"

	"sockwatch/inputs/internal/inet"
)

// An endpoint is the state of one that is present, or that is missing and not closed yet.
type endpoint struct {
	Endpoint
	record
	current []*Socket // in the current scan, in the order of compareIDs; none: it is missing
	// last are the sockets of the last scan that saw it, if they are not in the record yet.
	last  []SocketID
	event uint64 // the last scan that reported one of its first five kinds of events
	dirty bool   // record has changed
	brief bool   // no scan has found it, it was only reported as ShortLived
	early bool   // it closes without waiting for settle, since too many brief ones wait
}

// A record is the part of an endpoint that outlives the program.
type record struct {
	Unreported bool     `json:"new,omitzero"`      // opened or returned has not been reported yet
	Returns    bool     `json:"returned,omitzero"` // the event will be returned
	FirstSeen  int64    `json:"f,omitzero"`        // Unix time; 0: at a baseline
	Changed    int64    `json:"c,omitzero"`        // Unix time of the last event that counts as a change; 0: none
	Owners     []*owner `json:"o,omitzero"`        // at least one
	Sockets    []socket `json:"s,omitzero"`        // in the order of compareIDs; none after a boot
	Exposure   exposure `json:"e,omitzero"`
	Gone       *absence `json:"gone,omitzero"`   // nil while it is present
	Change     *change  `json:"change,omitzero"` // not reported yet, since the search for the owner is under way
	Lost       *loss    `json:"lost,omitzero"`   // nil while every owner has a socket
}

// A mark records when something was first seen.
type mark struct {
	Time      time.Time     `json:"t,omitzero"`
	Mono      time.Duration `json:"m,omitzero"`
	Window    time.Duration `json:"w,omitzero"` // how long ago it may have happened; 0: Time is exact
	WhileDown bool          `json:"d,omitzero"`
	Boot      bool          `json:"b,omitzero"` // first seen in the first scan after a boot, to which settle_boot applies
}

// An absence marks the first scan without an endpoint.
type absence struct {
	mark
	Last Moment `json:"last,omitzero"` // the last scan that saw it
}

// A change marks the first scan that saw another owner or other sockets.
type change struct {
	mark
	Down time.Duration `json:"down,omitzero"` // how long the endpoint may have been gone
}

// A loss marks the first scan in which an owner had no socket while others had.
type loss struct {
	mark
	Known bool `json:"known,omitzero"` // that owner was identified
}

// An exposure is the class that was last reported, and the one that may be reported next.
type exposure struct {
	Reported inet.Class `json:"told,omitzero"`
	Known    bool       `json:"known,omitzero"` // whether Reported is known
	Next     inet.Class `json:"next,omitzero"`
	Since    *mark      `json:"since,omitzero"` // of Next; nil: the class is the one that was reported
}

// known returns the record of a socket, or nil if there is none.
func (e *endpoint) known(id SocketID) *socket {
	i, found := slices.BinarySearchFunc(e.Sockets, id, func(s socket, id SocketID) int { return compareIDs(s.ID, id) })
	if !found {
		return nil
	}
	return &e.Sockets[i]
}

// class returns from how far away the endpoint can be reached, or false if that is not known.
func (e *endpoint) class() (widest inet.Class, known bool) {
	for _, s := range e.current {
		if s.ExposureUnknown {
			return 0, false
		}
		widest = max(widest, s.Exposure)
	}
	return widest, true
}

// expose sets the reported class to the one that the scan found.
func (e *endpoint) expose() {
	class, known := e.class()
	e.Exposure = exposure{Reported: class, Known: known}
}

// commit records what a scan found, and that the endpoint is present. reported: an event or a
// baseline has reported its current state. firstSeen is when its new owners were first seen.
func (e *endpoint) commit(m *match, reported bool, firstSeen int64) {
	if e.Change != nil || e.Gone != nil {
		e.Change, e.Gone = nil, nil
		e.dirty = true
	}
	e.update(m, reported, firstSeen)
}

// update is like commit, but leaves waiting changes as they are.
func (e *endpoint) update(m *match, reported bool, firstSeen int64) {
	e.last = nil
	for i := range m.owners {
		o := m.owners[i]
		if i >= m.before {
			o.FirstSeen = firstSeen
		}
		if s := m.latest[i]; s != nil && o.show(s) {
			e.dirty = true
		}
		if reported && o.Reported != nil {
			o.Reported, e.dirty = nil, true
		}
	}
	for i := range m.sockets {
		s := &m.sockets[i]
		s.Reported = s.Reported || reported
		if e.current[i].Status == Pending {
			s.Processes = nil // the wait is over
		}
	}
	if !slices.Equal(m.owners, e.Owners) || !slices.EqualFunc(m.sockets, e.Sockets, socket.equal) {
		e.dirty = true
		e.Owners, e.Sockets = slices.Clone(m.owners), slices.Clone(m.sockets)
	}
}

// postpone keeps which sockets the scan found, since the record stays as it is.
func (e *endpoint) postpone() {
	e.last = nil
	for _, s := range e.current {
		e.last = append(e.last, s.ID)
	}
}

// lastSockets returns the sockets of the last scan that saw the endpoint.
func (e *endpoint) lastSockets() []SocketID {
	if e.last != nil {
		return e.last
	}
	ids := make([]SocketID, len(e.Sockets))
	for i := range e.Sockets {
		ids[i] = e.Sockets[i].ID
	}
	return ids
}

func (s socket) equal(other socket) bool {
	return s.ID == other.ID && s.Owner == other.Owner && s.Reported == other.Reported && s.Activated == other.Activated &&
		slices.Equal(s.Processes, other.Processes)
}

// prune drops owners without a socket: all of them, or those that were never known.
func (m *match) prune(all bool) {
	if !slices.Contains(m.used, false) {
		return
	}
	moved := make([]int, len(m.owners))
	n, before := 0, m.before
	for i := range m.owners {
		moved[i] = n
		if m.used[i] || !all && !m.owners[i].adoptable() {
			m.owners[n], m.used[n], m.latest[n] = m.owners[i], m.used[i], m.latest[i]
			n++
		} else if i < before {
			m.before--
		}
	}
	m.owners, m.used, m.latest = m.owners[:n], m.used[:n], m.latest[:n]
	for i := range m.sockets {
		m.sockets[i].Owner = moved[m.sockets[i].Owner]
	}
}

// lost returns the owner that started last of those without a socket, and whether there are
// others that were never known.
func (m *match) lost() (named *owner, unknown bool) {
	for i := range m.owners[:m.before] {
		o := m.owners[i]
		switch {
		case m.used[i]:
		case o.adoptable():
			unknown = true
		case named == nil || o.Shown.Process.Start > named.Shown.Process.Start:
			named = o
		}
	}
	return named, unknown
}
