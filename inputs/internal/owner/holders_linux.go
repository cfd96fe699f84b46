package owner

import (
	"iter"
	"slices"
	"time"
)

// limits bound what is kept of the holders of one socket.
type limits struct {
	holders int   // in Socket.Holders
	slots   int32 // of processes that a set tells apart
}

// limitsOf returns the limits for that many sockets. All together keep as many
// holders as 4,096 sockets would, or 4 each, and 16 MiB of holderSets.
func limitsOf(sockets int) limits {
	const holders, holderSets = 64, 16 << 20
	sockets = max(sockets, 1)
	return limits{
		holders: max(min(holders, holders*4096/sockets), 4),
		slots:   int32(min(holderSets*8/2/sockets, 1<<30)),
	}
}

// A holderSet is all holders of a socket that has more than Socket.Holders keeps.
type holderSet struct {
	all   bitset // by Process.slot
	found bitset // by the walk under way
	// Processes whose slots are beyond the limit are only counted: by the last walk, and
	// by the one under way.
	others, foundOthers int
	last                *Process // of those
}

func (c *holderSet) count() int { return c.all.count() + max(c.others, c.foundOthers) }

// has reports whether the set is known to include the process.
func (c *holderSet) has(p *Process) bool { return c != nil && (c.all.has(p.slot) || c.last == p) }

// add adds a process that was found to hold the socket, or found again.
func (c *holderSet) add(p *Process, limit limits) {
	if p.slot < limit.slots {
		c.all.set(p.slot)
		c.found.set(p.slot)
	} else if c.last != p {
		c.last = p
		c.foundOthers++
	}
}

// index returns where in Holders a process is, or -1.
func (s *Socket) index(p *Process) int {
	return slices.IndexFunc(s.Holders, func(h Holder) bool { return h.Process == p })
}

// keeps reports whether a further holder belongs into Holders.
func (s *Socket) keeps(p *Process, limit limits) bool {
	n := len(s.Holders)
	return n < limit.holders || Compare(p, s.Holders[n-1].Process) < 0
}

// find notes that a process was found to hold the socket. It returns false, and notes
// nothing, if that is news.
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

// endSearch ends the search for a socket of which a holder was found; but a manager
// holds it for somebody who may be found yet.
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

// remove removes the holders that are to be. The socket is then searched, and not
// without a holder before a walk has ended that begins after this one.
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

// removeGone removes processes that have exited, given the set of their slots.
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

// dropSet forgets the set if all holders are kept.
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

// commit makes the holders that a walk has found those of the socket. Others stay as
// long as the walk has not looked at them, or they are seen to hold it. It reports
// whether there are any.
func (s *Socket) commit(w *walk, unlooked bitset) bool {
	before, count := len(s.Holders), s.Count()
	s.Holders = slices.DeleteFunc(s.Holders, func(h Holder) bool { return !w.stays(h) })
	if c := s.set; c != nil {
		c.found.add(c.all.and(unlooked))
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

// CountProcesses returns the number of processes that hold any of the sockets, which
// are those of one Finder.
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
