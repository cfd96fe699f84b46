package tcplisten

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/firstseen"
	"sockwatch/inputs/internal/owner"
)

// A groupSet holds the groups: listeners of one identity, which are one point.
type groupSet struct {
	byKey    map[string]*group
	sorted   []*group         // by namespace, port, address
	shown    []*group         // those with points of their own, in the order of the batch
	overflow []*overflowGroup // the others, by person

	changed bool           // something has, since points were built
	points  []metric.Point // of the last gather; published, never changed
}

// A group is the listeners of one identity. Its fields are published, and replaced
// when one of its values changes.
type group struct {
	tags      []metric.Tag
	storeKey  string // by which the first-seen store knows it
	members   []*listener
	named     *owner.Process // of all members, or nil
	processes int            // that hold the members
	since     int64          // when the identity was first seen, Unix time; 0: at the first gather

	exported      []*owner.Process // of which custom_port_exporter has a point each; nil is an unknown one
	exporterLimit int              // how many of them get one

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
	start                    int64 // Unix time in ms; 0: unknown
	exe, cmdline             string
	exeDeleted               bool
}

// arrange puts listeners that were described into groups again.
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
			g = &group{tags: l.tags, storeKey: storeKey(l.socket.UID, l.tags)}
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
		g.processes = owner.CountProcesses(g.sockets())
	}
}

// syncFirstSeen gives every group the time at which it was first seen. It is called when
// groups have changed, and at the gather after one in which some were missing.
func (gs *groupSet) syncFirstSeen(store *firstseen.Store, ownersPending bool) {
	store.Begin()
	for _, g := range gs.sorted {
		since := g.members[0].since
		for _, l := range g.members {
			since = min(since, l.since)
		}
		g.since = store.Seen(g.storeKey, since)
	}
	store.End(ownersPending)
}

// storeKey returns by what the first-seen store knows an identity: all of it but
// what may change while the listener stays what it is. A user is known by the
// number, since the service that has the names may not answer yet.
func storeKey(uid uint32, tags []metric.Tag) string {
	var b strings.Builder
	fmt.Fprintf(&b, "uid=%d ", uid)
	for _, t := range tags {
		if t.Key != "owner" && t.Key != "exposure" && t.Key != "user" {
			fmt.Fprintf(&b, "%s=%q ", t.Key, t.Value)
		}
	}
	return b.String()
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

// findNamed returns the process that stands for all holders of the group, or nil.
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

// update brings the values of all points up to date.
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

// build returns the points as they are now.
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

// sum adds up what the members say now.
func (g *group) sum(startTime func(ticks uint64) time.Time) values {
	v := values{sockets: len(g.members), processes: g.processes, since: g.since, uid: g.uid()}
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
	f := append(make([]metric.Field, 0, 12),
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
		f = append(f,
			metric.Field{Key: "exe", Value: metric.String(v.exe)},
			metric.Field{Key: "exe_deleted", Value: metric.Bool(v.exeDeleted)})
	}
	if v.cmdline != "" {
		f = append(f, metric.Field{Key: "cmdline", Value: metric.String(v.cmdline)})
	}
	return f
}
