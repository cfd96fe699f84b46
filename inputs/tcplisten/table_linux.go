package tcplisten

import (
	"cmp"
	"slices"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/owner"
)

// A table holds the groups: listeners of one identity, which are one point.
type table struct {
	byKey  map[string]*group
	sorted []*group
}

// A group is the listeners of one identity. What it published stays as it is; it
// is published again where it still holds.
type group struct {
	tags      []metric.Tag
	sighting  string // what its first sighting is remembered by
	members   []*listener
	named     *owner.Process // of all members, or nil
	processes int
	since     int64 // when the identity was first seen, in Unix time; 0: it stood before

	values values
	fields []metric.Field // of values
}

// values are what the fields of a point are made of.
type values struct {
	sockets, processes, pid  int
	backlog, limit           uint64
	established              int
	hasLimit, hasEstablished bool
	uid                      uint32
	since                    int64
	start                    int64 // Unix time in ms
	exe, cmdline             string
}

// arrange puts listeners that were described into groups anew.
func (t *table) arrange(listeners []*listener) {
	if t.byKey == nil {
		t.byKey = make(map[string]*group)
	}
	for _, g := range t.sorted {
		g.members = g.members[:0]
	}
	added := false
	for _, l := range listeners {
		g := t.byKey[l.key]
		if g == nil {
			g = &group{tags: l.tags, sighting: sightingKey(l.socket.UID, l.tags)}
			t.byKey[l.key] = g
			t.sorted = append(t.sorted, g)
			added = true
		}
		g.members = append(g.members, l)
	}
	t.sorted = slices.DeleteFunc(t.sorted, func(g *group) bool { return len(g.members) == 0 })
	if len(t.byKey) > len(t.sorted) {
		clear(t.byKey)
		for _, g := range t.sorted {
			t.byKey[g.members[0].key] = g
		}
	}
	if added {
		slices.SortFunc(t.sorted, compareGroups)
	}
	for _, g := range t.sorted {
		g.count()
	}
}

// compareGroups orders points by namespace, port and address, then by all tags.
func compareGroups(a, b *group) int {
	l, m := a.members[0], b.members[0]
	return cmp.Or(
		cmp.Compare(l.space.name, m.space.name),
		cmp.Compare(l.socket.Port, m.socket.Port),
		l.socket.Addr.Compare(m.socket.Addr),
		cmp.Compare(l.key, m.key),
	)
}

// count finds the processes behind the group: several of its sockets may be held
// by the same one.
func (g *group) count() {
	g.named = nil
	for _, l := range g.members {
		if p := l.owner.Named(); p != nil && (g.named == nil || owner.Compare(p, g.named) < 0) {
			g.named = p
		}
	}
	g.processes = owner.CountProcesses(func(yield func(*owner.Socket) bool) {
		for _, l := range g.members {
			if !yield(&l.owner) {
				return
			}
		}
	})
}

func (g *group) uid() uint32 { return g.members[0].socket.UID }

// sum adds up what the members say now.
func (g *group) sum(startTime func(ticks uint64) time.Time, established bool) values {
	v := values{sockets: len(g.members), processes: g.processes, since: g.since, uid: g.uid(), hasEstablished: established}
	for _, l := range g.members {
		v.backlog += uint64(l.socket.Backlog)
		v.limit += uint64(l.socket.Limit)
		v.hasLimit = l.socket.HasLimit
		v.established += l.established
	}
	if p := g.named; p != nil {
		v.pid, v.exe, v.cmdline = p.PID, p.Exe, p.Cmdline
		if p.ExeDeleted {
			v.exe += " (deleted)"
		}
		if start := startTime(p.Start); !start.IsZero() {
			v.start = start.UnixMilli()
		}
	}
	return v
}

// point returns the group's point, with the fields that it had where they hold.
func (g *group) point(v values) metric.Point {
	if g.fields == nil || v != g.values {
		g.values, g.fields = v, v.fields()
	}
	return metric.Point{Name: pointListener, Tags: g.tags, Fields: g.fields}
}

func (v *values) fields() []metric.Field {
	f := append(make([]metric.Field, 0, 11),
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
	if v.since != 0 {
		f = append(f, metric.Field{Key: "first_seen_time_seconds", Value: metric.Int(v.since)})
	}
	if v.pid != 0 {
		f = append(f, metric.Field{Key: "pid", Value: metric.Int(int64(v.pid))})
	}
	if v.start != 0 {
		f = append(f, metric.Field{Key: "process_start_time_seconds", Value: metric.Float(float64(v.start) / 1000)})
	}
	if v.exe != "" {
		f = append(f, metric.Field{Key: "exe", Value: metric.String(v.exe)})
	}
	if v.cmdline != "" {
		f = append(f, metric.Field{Key: "cmdline", Value: metric.String(v.cmdline)})
	}
	return f
}
