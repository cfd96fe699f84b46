package tcplisten

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/changes"
	"sockwatch/inputs/internal/expect"
	"sockwatch/inputs/internal/owner"
)

// A groupSet holds the groups of all listeners.
type groupSet struct {
	byKey    map[string]*group
	sorted   []*group         // by namespace, port, address
	shown    []*group         // the groups that get a point, in the order of the batch
	overflow []*overflowGroup // the other groups, by person

	changed bool           // points have to be built again
	points  []metric.Point // of the last gather; published, so never changed
}

// A group is a set of listeners with the same identity. It becomes one point.
type group struct {
	tags      []metric.Tag
	members   []*listener
	named     *owner.Process // the holder that the tag process names, or nil
	processes int            // number of processes that hold the members
	record    record

	exported      []*owner.Process // the owners that custom_port_exporter can include; a nil entry is an unknown owner
	exporterLimit int              // how many of them it includes

	values values
	fields []metric.Field // made from values; published, so replaced and never changed
}

// A record is the result of the history and the rules for a group.
type record struct {
	firstSeen, changed int64 // Unix time; 0: at the first gather, or unknown
	expected, rule     string
}

// values are what the fields of a point are made from.
type values struct {
	sockets, processes, pid  int
	backlog, limit           uint64
	established              int
	hasLimit, hasEstablished bool
	uid                      uint32
	start                    int64 // Unix time in ms; 0: unknown
	exe, cmdline             string
	exeDeleted               bool
	record
}

// arrange assigns the described listeners to groups again.
func (gs *groupSet) arrange(listeners []*listener) {
	gs.changed = true
	if gs.byKey == nil {
		gs.byKey = make(map[string]*group)
	}
	for _, g := range gs.sorted {
		g.members = g.members[:0]
	}
	added := false
	for _, l := range listeners {
		g := gs.byKey[l.key]
		if g == nil {
			g = &group{tags: l.tags}
			gs.byKey[l.key] = g
			gs.sorted = append(gs.sorted, g)
			added = true
		}
		g.members = append(g.members, l)
	}
	gs.sorted = slices.DeleteFunc(gs.sorted, func(g *group) bool { return len(g.members) == 0 })
	if len(gs.byKey) > len(gs.sorted) {
		clear(gs.byKey)
		for _, g := range gs.sorted {
			gs.byKey[g.members[0].key] = g
		}
	}
	if added {
		slices.SortFunc(gs.sorted, compareGroups)
	}
	for _, g := range gs.sorted {
		g.named = g.findNamed()
		if g.processes = g.members[0].owner.Count(); len(g.members) > 1 {
			g.processes = owner.CountProcesses(g.sockets())
		}
	}
}

// setRecords sets the records of all groups. It reports whether any of them has changed.
func (gs *groupSet) setRecords(tracker *changes.Tracker) (changed bool) {
	for _, g := range gs.sorted {
		before := g.record
		g.record = record{}
		for i, l := range g.members {
			firstSeen, last := tracker.Times(l.observed.Endpoint, l.observed.ID)
			if i == 0 || firstSeen < g.record.firstSeen {
				g.record.firstSeen = firstSeen
			}
			g.record.changed = max(g.record.changed, last)
			v := l.verdict
			if i > 0 {
				v = expect.Worst(v, expect.Verdict{Expected: g.record.expected, Rule: g.record.rule})
			}
			g.record.expected, g.record.rule = v.Expected, v.Rule
		}
		changed = changed || g.record != before
	}
	return changed
}

// compareGroups orders points by namespace, port and address, then by all tags.
func compareGroups(a, b *group) int {
	l, m := a.members[0], b.members[0]
	return cmp.Or(
		cmp.Compare(l.table.name, m.table.name),
		cmp.Compare(l.socket.Port, m.socket.Port),
		l.socket.Addr.Compare(m.socket.Addr),
		cmp.Compare(l.key, m.key),
	)
}

// findNamed returns the holder that the tag process names, or nil.
func (g *group) findNamed() (named *owner.Process) {
	for _, l := range g.members {
		if p := l.owner.Named(); p != nil && (named == nil || owner.Compare(p, named) < 0) {
			named = p
		}
	}
	return named
}

func (g *group) sockets() iter.Seq[*owner.Socket] {
	return func(yield func(*owner.Socket) bool) {
		for _, l := range g.members {
			if !yield(&l.owner) {
				return
			}
		}
	}
}

func (g *group) uid() uint32 { return g.members[0].socket.UID }

// update computes the values of all points again, and the fields of those that have
// changed.
func (gs *groupSet) update(startTime func(ticks uint64) time.Time) {
	for _, g := range gs.shown {
		if v := g.sum(startTime); v != g.values || g.fields == nil {
			g.values, g.fields = v, v.fields()
			gs.changed = true
		}
	}
	for _, o := range gs.overflow {
		if v := o.sum(); v != o.values || o.fields == nil {
			o.values, o.fields = v, v.fields()
			gs.changed = true
		}
	}
}

// build returns the points with their current fields.
func (gs *groupSet) build() []metric.Point {
	points := make([]metric.Point, 0, len(gs.shown)+len(gs.overflow))
	for _, g := range gs.shown {
		points = append(points, metric.Point{Name: pointListener, Tags: g.tags, Fields: g.fields})
	}
	for _, o := range gs.overflow {
		points = append(points, metric.Point{Name: pointOverflow, Tags: o.tags, Fields: o.fields})
	}
	return points
}

// sum adds up the current values of the members.
func (g *group) sum(startTime func(ticks uint64) time.Time) values {
	v := values{sockets: len(g.members), processes: g.processes, record: g.record, uid: g.uid()}
	for _, l := range g.members {
		v.backlog += uint64(l.socket.Backlog)
		v.limit += uint64(l.socket.Limit)
		v.hasLimit = l.socket.HasLimit
		v.hasEstablished = l.table.established != nil
		v.established += l.table.established[l]
	}
	if p := g.named; p != nil {
		v.pid, v.exe, v.exeDeleted, v.cmdline = p.PID, p.Exe, p.ExeDeleted, p.Cmdline
		if at := startTime(p.Start); !at.IsZero() {
			v.start = at.UnixMilli()
		}
	}
	return v
}

func (v *values) fields() []metric.Field {
	f := append(make([]metric.Field, 0, 15),
		metric.Field{Key: "sockets", Value: metric.Int(int64(v.sockets))},
		metric.Field{Key: "processes", Value: metric.Int(int64(v.processes))},
		metric.Field{Key: "backlog", Value: metric.Uint(v.backlog)},
		metric.Field{Key: "uid", Value: metric.Uint(uint64(v.uid))},
	)
	if v.hasLimit {
		f = append(f, metric.Field{Key: "backlog_limit", Value: metric.Uint(v.limit)})
	}
	if v.hasEstablished {
		f = append(f, metric.Field{Key: "established", Value: metric.Int(int64(v.established))})
	}
	if v.firstSeen != 0 {
		f = append(f, metric.Field{Key: "first_seen_time_seconds", Value: metric.Int(v.firstSeen)})
	}
	if v.changed != 0 {
		f = append(f, metric.Field{Key: "changed_time_seconds", Value: metric.Int(v.changed)})
	}
	if v.pid != 0 {
		f = append(f, metric.Field{Key: "pid", Value: metric.Int(int64(v.pid))})
	}
	if v.start != 0 {
		f = append(f, metric.Field{Key: "process_start_time_seconds", Value: metric.Float(float64(v.start) / 1000)})
	}
	if v.exe != "" {
		f = append(f,
			metric.Field{Key: "exe", Value: metric.String(v.exe)},
			metric.Field{Key: "exe_deleted", Value: metric.Bool(v.exeDeleted)})
	}
	if v.cmdline != "" {
		f = append(f, metric.Field{Key: "cmdline", Value: metric.String(v.cmdline)})
	}
	if v.expected != "" {
		f = append(f, metric.Field{Key: "expected", Value: metric.String(v.expected)})
	}
	if v.rule != "" {
		f = append(f, metric.Field{Key: "rule", Value: metric.String(v.rule)})
	}
	return f
}
