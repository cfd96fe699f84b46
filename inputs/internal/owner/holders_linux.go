package owner

import (
	"iter"
	"slices"
	"time"
)

// limits bound the memory for the holders of one socket.
type limits struct {
	holders int   // length of Socket.Holders
	slots   int32 // slots that a holderSet has bits for
}

// limitsOf returns the limits for a number of sockets. All sockets together keep at most as
// many holders as 4,096 sockets would, but at least 4 each, and at most 16 MiB of
// holderSets.
func limitsOf(sockets int) limits {
	const holders, holderSets = 64, 16 << 20
	sockets = max(sockets, 1)
	return limits{
		holders: max(min(holders, holders*4096/sockets), 4),
		slots:   int32(min(holderSets*8/2/sockets, 1<<30)),
	}
}

// A holderSet holds all holders of a socket that has more of them than Socket.Holders keeps.
type holderSet struct {
	all   bitset // by Process.slot
	found bitset // by the walk in progress
	// Processes with slots beyond the limit are only counted: others by the last walk,
	// foundOthers by the walk in progress.
	others, foundOthers int
	last                *Process // the last of these that was counted
}

func (c *holderSet) count() int { return c.all.count() + max(c.others, c.foundOthers) }

// has reports whether the set is known to include the process.
func (c *holderSet) has(p *Process) bool { return c != nil && (c.all.has(p.slot) || c.last == p) }

// add adds a process that was found to hold the socket. It may be in the set already.
func (c *holderSet) add(p *Process, limit limits) {
	if p.slot < limit.slots {
		c.all.set(p.slot)
		c.found.set(p.slot)
	} else if c.last != p {
		c.last = p
		c.foundOthers++
	}
}

// index returns the index of a process in Holders, or -1.
func (s *Socket) index(p *Process) int {
	return slices.IndexFunc(s.Holders, func(h Holder) bool { return h.Process == p })
}

// keeps reports whether a new holder belongs in Holders.
func (s *Socket) keeps(p *Process, limit limits) bool {
	n := len(s.Holders)
	return n < limit.holders || Compare(p, s.Holders[n-1].Process) < 0
}

// find records that a known holder was found again. It returns false, and records nothing,
// if the holder is new.
func (s *Socket) find(h Holder, limit limits) bool {
	if i := s.index(h.Process); i >= 0 {
		s.Holders[i] = h
	} else if !s.set.has(h.Process) || s.keeps(h.Process, limit) {
		return false
	}
	if s.set != nil {
		s.set.add(h.Process, limit)
	}
	s.endSearch()
	return true
}

// endSearch ends the search for a socket, unless its only holders are managers: they hold it
// for a service that may still be found.
func (s *Socket) endSearch() {
	if !s.Named().Manager() {
		s.search = false
	}
}

// add adds a holder for which find returned false.
func (s *Socket) add(h Holder, limit limits) {
	keep := s.keeps(h.Process, limit)
	if s.set == nil && (!keep || len(s.Holders) >= limit.holders) {
		s.set = &holderSet{}
		for _, known := range s.Holders {
			s.set.add(known.Process, limit)
			if known.walk != h.walk {
				s.set.found.clear(known.Process.slot)
			}
		}
	}
	if s.set != nil {
		s.set.add(h.Process, limit)
	}
	if keep {
		s.Holders = append(s.Holders, h)
		s.sort()
		s.Holders = s.Holders[:min(len(s.Holders), limit.holders)]
	}
	s.Status, s.retry, s.wait = Resolved, time.Time{}, 0
	s.Version++
	s.endSearch()
}

func (s *Socket) sort() {
	slices.SortFunc(s.Holders, func(a, b Holder) int { return Compare(a.Process, b.Process) })
}

// remove removes the holders for which remove returns true. The socket then needs a search.
// If no holder is left, only a walk that begins after this one can prove that it has none.
func (s *Socket) remove(walk uint32, remove func(Holder) bool) (removed bool) {
	n := len(s.Holders)
	s.Holders = slices.DeleteFunc(s.Holders, func(h Holder) bool {
		gone := remove(h)
		if gone && s.set != nil {
			s.set.all.clear(h.Process.slot)
			s.set.found.clear(h.Process.slot)
		}
		return gone
	})
	if len(s.Holders) == n {
		return false
	}
	s.Version++
	s.search = true
	if len(s.Holders) == 0 {
		s.Status, s.since = Pending, walk
	}
	s.dropSet()
	return true
}

// removeGone removes processes that have exited. gone is the set of their slots.
func (s *Socket) removeGone(walk uint32, gone bitset) {
	if s.set != nil {
		before := s.set.count()
		s.set.all.remove(gone)
		s.set.found.remove(gone)
		if s.set.count() != before {
			s.Version++
		}
	}
	s.remove(walk, func(h Holder) bool { return h.Process.gone })
	s.dropSet()
}

// dropSet drops the set if Holders keeps all holders.
func (s *Socket) dropSet() {
	if s.set != nil && s.set.count() <= len(s.Holders) {
		s.set = nil
	}
}

// begin prepares the socket for a walk.
func (s *Socket) begin() {
	if s.set != nil {
		s.set.found, s.set.foundOthers, s.set.last = nil, 0, nil
	}
}

// commit makes the holders that a walk has found the holders of the socket. A known holder
// that was not found stays if the walk could not read its files, or if it still holds the
// socket. commit reports whether the socket has any holder.
func (s *Socket) commit(w *walk, unread bitset) bool {
	before, count := len(s.Holders), s.Count()
	s.Holders = slices.DeleteFunc(s.Holders, func(h Holder) bool { return !w.stays(h) })
	if c := s.set; c != nil {
		c.found.add(c.all.and(unread))
		for _, h := range s.Holders {
			if c.all.has(h.Process.slot) {
				c.found.set(h.Process.slot)
			}
		}
		c.all, c.found = c.found, nil
		c.others, c.foundOthers, c.last = c.foundOthers, 0, nil
		s.dropSet()
	}
	if len(s.Holders) != before || s.Count() != count {
		s.Version++
	}
	return len(s.Holders) > 0
}

// CountProcesses returns the number of processes that hold any of the sockets. All sockets
// must belong to the same Finder.
func CountProcesses(sockets iter.Seq[*Socket]) int {
	var first *Socket
	var union bitset
	others := 0
	add := func(s *Socket) {
		if s.set != nil {
			union.add(s.set.all)
			others = max(others, s.set.others, s.set.foundOthers)
			return
		}
		for _, h := range s.Holders {
			union.set(h.Process.slot)
		}
	}
	for s := range sockets {
		if first == nil {
			first = s
			continue
		}
		if union == nil {
			add(first)
		}
		add(s)
	}
	switch {
	case first == nil:
		return 0
	case union == nil:
		return first.Count()
	}
	return union.count() + others
}
