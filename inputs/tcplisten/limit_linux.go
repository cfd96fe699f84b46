package tcplisten

import (
	"cmp"
	"slices"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/expect"
)

// A share is one person's share of max_listeners. All user ids without a name count as
// one person. Ids that are delegated to a user (subuid(5)) count as that user. So nobody
// gets more points by using more ids.
type share struct {
	person   string // "" for ids without a name
	groups   []*group
	keep     int // number of groups that get a point
	exporter int // number of custom_port_exporter points of the groups that get a point

	keepExporter int // how many of these points are kept
}

// lost returns how many points the person loses.
func (s *share) lost() int { return len(s.groups) - s.keep + s.exporter - s.keepExporter }

// An overflowGroup is what one person loses because of max_listeners. It becomes one
// point.
type overflowGroup struct {
	tags           []metric.Tag // none for ids without a name, and for people who share the last point
	groups         []*group
	exporterPoints int

	values overflowValues
	fields []metric.Field
}

type overflowValues struct {
	listeners, sockets, exporterPoints int
	backlog                            uint64
}

// limit decides which groups get a point, so that a gather has at most limit points.
// Users with the most lose points first: the exporter's points before the listeners,
// and of the listeners the most recent ones first, then those with the highest ports;
// listeners that break the rules are the last to go. person returns the person that a user
// id counts as.
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
	var last []*group // groups of people with very many, which go at the end of the batch
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

// shareOut returns a share for each person, the smallest first. The groups of a share
// are in the order in which they were first seen, after those that break the rules.
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
			return cmp.Or(cmp.Compare(a.record.firstSeen, b.record.firstSeen), cmp.Compare(l.Port, m.Port), l.Addr.Compare(m.Addr), compareGroups(a, b))
		})
		s.groups = violatorsFirst(s.groups)
	}
	slices.SortFunc(shares, func(a, b *share) int {
		return cmp.Or(cmp.Compare(len(a.groups), len(b.groups)), cmp.Compare(a.person, b.person))
	})
	return shares
}

// maxViolators is how many of a person's groups that break the rules take precedence over
// other groups.
const maxViolators = 100

// violatorsFirst returns the groups with forbidden or unexpected ones first, up to
// maxViolators.
func violatorsFirst(groups []*group) []*group {
	sorted := make([]*group, 0, len(groups))
	var others []*group
	for _, g := range groups {
		if v := g.record.expected; (v == expect.Forbidden || v == expect.No) && len(sorted) < maxViolators {
			sorted = append(sorted, g)
		} else {
			others = append(others, g)
		}
	}
	return append(sorted, others...)
}

// allot sets what each share keeps, so that it fits into limit points together with the
// overflow points. It returns the number of overflow points. A person who needs no more
// than an equal part keeps everything, including the exporter's points. For the others,
// listeners come before the exporter's points.
func allot(shares []*share, limit int, exporter bool) (overflowPoints int) {
	maxOverflow := max(1, limit/10)
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
		points := min(len(cut), maxOverflow)
		if points <= overflowPoints {
			return overflowPoints
		}
		overflowPoints = points
	}
}

// countExporter counts the exporter's points of the groups that get a point.
func (s *share) countExporter() {
	s.exporter = 0
	for _, g := range s.groups[:s.keep] {
		s.exporter += len(g.exported)
	}
}

// divide gives every share what it wants of n. If n is too small for that, the shares
// that want the most get equal parts of what is left.
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
		given[i] = min(want[i], (n+rest-1)/rest) // rounded up for the shares that want less
		n -= given[i]
	}
	return given
}

// limitExporter sets how many of the exporter's points each group that is kept gets.
func (s *share) limitExporter(kept []*group) {
	left := s.keepExporter
	for _, g := range kept {
		g.exporterLimit = min(left, len(g.exported))
		left -= g.exporterLimit
	}
}

// overflowGroups returns one group for each share that is cut, those that lose the most
// first and ids without a name last. There are at most limit of them: the shares beyond
// that belong to the last group, which then has no tag.
func overflowGroups(cut []*share, limit int) (groups []*overflowGroup) {
	slices.SortStableFunc(cut, func(a, b *share) int {
		return cmp.Or(btoi(a.person == "")-btoi(b.person == ""), b.lost()-a.lost())
	})
	for i, s := range cut {
		if i < limit {
			groups = append(groups, &overflowGroup{tags: metric.NewTags("user", s.person)})
		}
		o := groups[len(groups)-1]
		if i >= limit {
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

// sum adds up the current values of the group's listeners.
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
