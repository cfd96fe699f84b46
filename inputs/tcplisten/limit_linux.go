package tcplisten

import (
	"cmp"
	"slices"

	"sockwatch/agent/metric"
)

// A share is what one person takes of max_listeners. Users without a name are one
// person, and the user ids that are delegated to somebody (subuid(5)) are that
// person's: nobody gets more by having more of them.
type share struct {
	person   string // "" are the nameless
	groups   []*group
	keep     int // how many of them get points
	exporter int // custom_port_exporter points of those

	keepExporter int // how many of those are kept
}

// lost returns how much of the person's has no point of its own.
func (s *share) lost() int { return len(s.groups) - s.keep + s.exporter - s.keepExporter }

// An overflowGroup is what one person has beyond max_listeners.
type overflowGroup struct {
	tags           []metric.Tag // none: of the nameless, and of all beyond the number of such points
	groups         []*group
	exporterPoints int

	values overflowValues
	fields []metric.Field
}

type overflowValues struct {
	listeners, sockets, exporterPoints int
	backlog                            uint64
}

// limit decides which groups get points of their own, so that a gather has at most
// limit points: whoever has the most loses first, the exporter's points before the
// listeners, and of a person's listeners those that were seen last, then those of the
// highest ports. person names whom a user id counts to.
func (gs *groupSet) limit(limit int, person func(uid uint32) string, exporter bool) {
	gs.changed = true
	for _, g := range gs.sorted {
		g.exported = nil
		if exporter {
			g.exported = g.exporterProcesses()
		}
	}
	shares := shareOut(gs.sorted, person)
	overflowPoints := allot(shares, limit, exporter)
	gs.shown = gs.shown[:0]
	var cut []*share
	var last []*group // of people who have very many: they come last in the batch
	for _, s := range shares {
		kept := slices.SortedFunc(slices.Values(s.groups[:s.keep]), compareGroups)
		s.limitExporter(kept)
		if len(kept) > limit/10 {
			last = append(last, kept...)
		} else {
			gs.shown = append(gs.shown, kept...)
		}
		if s.lost() > 0 {
			cut = append(cut, s)
		}
	}
	slices.SortFunc(gs.shown, compareGroups)
	gs.shown = append(gs.shown, last...)
	gs.overflow = overflowGroups(cut, overflowPoints)
}

// shareOut sorts the groups by person, who has the fewest first, and those of a
// person by when they were first seen.
func shareOut(groups []*group, person func(uid uint32) string) (shares []*share) {
	byPerson := make(map[string]*share)
	for _, g := range groups {
		name := person(g.uid())
		s := byPerson[name]
		if s == nil {
			s = &share{person: name}
			byPerson[name] = s
			shares = append(shares, s)
		}
		s.groups = append(s.groups, g)
	}
	for _, s := range shares {
		slices.SortFunc(s.groups, func(a, b *group) int {
			l, m := &a.members[0].socket, &b.members[0].socket
			return cmp.Or(cmp.Compare(a.since, b.since), cmp.Compare(l.Port, m.Port), l.Addr.Compare(m.Addr), compareGroups(a, b))
		})
	}
	slices.SortFunc(shares, func(a, b *share) int {
		return cmp.Or(cmp.Compare(len(a.groups), len(b.groups)), cmp.Compare(a.person, b.person))
	})
	return shares
}

// allot fills in what each share keeps, so that it fits into limit points together
// with the overflow points, whose number it returns. Whoever wants no more than
// everybody can have keeps all, the exporter's points too; of the others' points the
// listeners come first.
func allot(shares []*share, limit int, exporter bool) (overflowPoints int) {
	most := max(1, limit/10)
	for {
		left := limit - overflowPoints
		all := func(s *share) int {
			s.keep, s.exporter, s.keepExporter = len(s.groups), 0, 0
			if exporter {
				s.countExporter()
			}
			return len(s.groups) + s.exporter
		}
		var cut []*share
		for i, n := range divide(left, shares, all) {
			if s := shares[i]; n < s.keep+s.exporter {
				cut = append(cut, s)
			} else {
				s.keepExporter = s.exporter
				left -= n
			}
		}
		for i, n := range divide(left, cut, func(s *share) int { return len(s.groups) }) {
			s := cut[i]
			s.keep, left = n, left-n
			if exporter {
				s.countExporter()
			}
		}
		for i, n := range divide(left, cut, func(s *share) int { return s.exporter }) {
			cut[i].keepExporter = n
		}
		points := min(len(cut), most)
		if points <= overflowPoints {
			return overflowPoints
		}
		overflowPoints = points
	}
}

// countExporter counts the exporter's points of the groups that are kept.
func (s *share) countExporter() {
	s.exporter = 0
	for _, g := range s.groups[:s.keep] {
		s.exporter += len(g.exported)
	}
}

// divide gives everybody what they want of n, or cuts those who want the most to
// what is left for each of them.
func divide(n int, shares []*share, wants func(*share) int) (given []int) {
	order := make([]int, len(shares))
	want := make([]int, len(shares))
	for i, s := range shares {
		order[i], want[i] = i, wants(s)
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(want[i], want[j]) })
	given = make([]int, len(shares))
	for k, i := range order {
		rest := len(order) - k
		given[i] = min(want[i], (n+rest-1)/rest) // who wants less has what cannot be divided
		n -= given[i]
	}
	return given
}

// limitExporter tells each of the groups kept how many exporter's points it may have.
func (s *share) limitExporter(kept []*group) {
	left := s.keepExporter
	for _, g := range kept {
		g.exporterLimit = min(left, len(g.exported))
		left -= g.exporterLimit
	}
}

// overflowGroups returns the overflow points, at most as many as most: one for each
// person who is cut, those who lose the most first; the nameless and whoever is left
// share the last one, which has no tag.
func overflowGroups(cut []*share, most int) (groups []*overflowGroup) {
	slices.SortStableFunc(cut, func(a, b *share) int {
		return cmp.Or(btoi(a.person == "")-btoi(b.person == ""), b.lost()-a.lost())
	})
	for i, s := range cut {
		if i < most {
			groups = append(groups, &overflowGroup{tags: metric.NewTags("user", s.person)})
		}
		o := groups[len(groups)-1]
		if i >= most {
			o.tags = nil
		}
		o.groups = append(o.groups, s.groups[s.keep:]...)
		o.exporterPoints += s.exporter - s.keepExporter
	}
	return groups
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// sum adds up what the group's listeners say now.
func (o *overflowGroup) sum() overflowValues {
	v := overflowValues{listeners: len(o.groups), exporterPoints: o.exporterPoints}
	for _, g := range o.groups {
		v.sockets += len(g.members)
		for _, l := range g.members {
			v.backlog += uint64(l.socket.Backlog)
		}
	}
	return v
}

func (v *overflowValues) fields() []metric.Field {
	f := []metric.Field{
		{Key: "listeners", Value: metric.Int(int64(v.listeners))},
		{Key: "sockets", Value: metric.Int(int64(v.sockets))},
		{Key: "backlog", Value: metric.Uint(v.backlog)},
	}
	if v.exporterPoints > 0 {
		f = append(f, metric.Field{Key: "exporter_points", Value: metric.Int(int64(v.exporterPoints))})
	}
	return f
}
