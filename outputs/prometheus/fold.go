package prometheus

import (
	"cmp"
	"slices"
	"strings"

	"sockwatch/agent/metric"
)

// A size is a number of series and of the bytes of their lines.
type size struct{ series, bytes int }

func (a size) plus(b size) size   { return size{a.series + b.series, a.bytes + b.bytes} }
func (a size) minus(b size) size  { return size{a.series - b.series, a.bytes - b.bytes} }
func (a size) within(b size) bool { return a.series <= b.series && a.bytes <= b.bytes }

// maxPageBytes keeps a page below what scrapers take, 16 MiB where nothing else
// is set (VictoriaMetrics), with a place for HELP, TYPE and the program's own
// metrics.
const maxPageBytes = 15 << 20

// fold returns the points that the page has room for. While there are too many,
// those of one name of the user (tag "user") that has the most are folded into one
// point NAME_overflow, as tcp_listen does beyond max_listeners: tags user and
// those that every point of the board shares, fields listeners (how many points
// they were) and, summed, sockets and backlog. Everyone else's stay whole. Points
// without a user are one group, of which no point is left.
func (p *page) fold(points []shown, room size) []shown {
	total := size{}
	for _, s := range points {
		total = total.plus(sizeOf(s.point))
	}
	if total.within(room) {
		return points
	}
	f := folding{page: p, points: points, gone: make([]bool, len(points)), shared: sharedTags(points)}
	for groups := groupByUser(points); !total.within(room) && len(groups) > 0; {
		most := slices.MaxFunc(groups, compareGroups(total.series > room.series))
		total = total.minus(f.fold(most))
		groups = slices.DeleteFunc(groups, func(g *group) bool { return g == most })
	}
	for !total.within(room) { // even one point for each user is too much
		last := f.overflow[len(f.overflow)-1]
		p.leftOut.add(folded, p.board[last.batch].Source, last.point.Name, last.point.Series(), sizeOf(last.point).series)
		total = total.minus(sizeOf(last.point))
		f.overflow = f.overflow[:len(f.overflow)-1]
	}
	return f.rest()
}

// A group is the points of one name of one user, in one batch.
type group struct {
	batch      int32
	name, user string
	members    []int // their places
	size       size
}

// groupByUser returns the groups in the order of their first points.
func groupByUser(points []shown) []*group {
	type key struct {
		batch      int32
		name, user string
	}
	byKey, groups := map[key]*group{}, []*group(nil)
	for i, s := range points {
		k := key{s.batch, s.point.Name, s.point.Tag("user")}
		g := byKey[k]
		if g == nil {
			g = &group{batch: k.batch, name: k.name, user: k.user}
			byKey[k] = g
			groups = append(groups, g)
		}
		g.members = append(g.members, i)
		g.size = g.size.plus(sizeOf(s.point))
	}
	return groups
}

func compareGroups(bySeries bool) func(a, b *group) int {
	return func(a, b *group) int {
		if bySeries {
			return cmp.Compare(a.size.series, b.size.series)
		}
		return cmp.Compare(a.size.bytes, b.size.bytes)
	}
}

// A folding is a fold under way.
type folding struct {
	page     *page
	points   []shown
	gone     []bool // which of the points
	shared   []metric.Tag
	overflow []shown // in place of them
}

// fold takes a group off the page and returns what that freed. A point stands for
// it where that is smaller.
func (f *folding) fold(g *group) size {
	sum := &metric.Point{Name: g.name + "_overflow", Tags: append(slices.Clone(f.shared), metric.Tag{Key: "user", Value: g.user})}
	metric.SortTags(sum.Tags)
	freed := size{}
	for _, i := range g.members {
		if p := f.points[i].point; !f.gone[i] {
			f.gone[i] = true
			freed = freed.plus(sizeOf(p))
			addFields(sum, p, 1)
		}
	}
	if freed.series == 0 {
		return freed
	}
	f.page.leftOut.add(folded, f.page.board[g.batch].Source, g.name, f.points[g.members[0]].point.Series(), freed.series)
	if g.user == "" || sizeOf(sum).series >= freed.series {
		return freed
	}
	for i, s := range f.points { // the input itself has folded others of this user
		if s.batch == g.batch && !f.gone[i] && s.point.Name == sum.Name && slices.Equal(s.point.Tags, sum.Tags) {
			f.gone[i] = true
			freed = freed.plus(sizeOf(s.point))
			listeners, _ := s.point.Field("listeners")
			n, _ := listeners.Number()
			addFields(sum, s.point, n)
		}
	}
	f.overflow = append(f.overflow, shown{sum, g.batch})
	return freed.minus(sizeOf(sum))
}

// addFields adds what p, which stands for a number of listeners, has to sum.
func addFields(sum, p *metric.Point, listeners float64) {
	addField(sum, "listeners", listeners)
	for _, key := range []string{"sockets", "backlog"} {
		if v, ok := p.Field(key); ok {
			n, _ := v.Number()
			addField(sum, key, n)
		}
	}
}

func addField(p *metric.Point, key string, n float64) {
	for i := range p.Fields {
		if f := &p.Fields[i]; f.Key == key {
			f.Value = metric.Float(f.Value.AsFloat() + n)
			return
		}
	}
	p.Fields = append(p.Fields, metric.Field{Key: key, Value: metric.Float(n)})
}

// rest returns the points that stay and those that stand for others, by batch.
func (f *folding) rest() []shown {
	rest := slices.Clone(f.overflow)
	for i, s := range f.points {
		if !f.gone[i] {
			rest = append(rest, s)
		}
	}
	slices.SortStableFunc(rest, func(a, b shown) int { return cmp.Compare(a.batch, b.batch) })
	return rest
}

// sharedTags returns the tags that all points have alike, but for "user": the
// global ones.
func sharedTags(points []shown) []metric.Tag {
	shared := slices.Clone(points[0].point.Tags)
	for _, s := range points {
		shared = slices.DeleteFunc(shared, func(t metric.Tag) bool {
			return t.Key == "user" || s.point.Tag(t.Key) != t.Value
		})
	}
	return shared
}

// sizeOf returns the series of a point and at most how many bytes their lines have
// as text.
func sizeOf(p *metric.Point) size {
	labels := 2 // braces
	for _, t := range p.Tags {
		escaped := strings.Count(t.Value, `"`) + strings.Count(t.Value, `\`) + strings.Count(t.Value, "\n")
		labels += len(t.Key) + 1 + len(t.Value) + escaped + len(`="",`)
	}
	s := size{}
	for _, f := range p.Fields {
		if f.Value.Kind() != metric.KindString {
			const number = len(" -2.2250738585072014e-308\n")
			s = s.plus(size{1, len(p.Name) + len(f.Key) + 2 + labels + number})
		}
	}
	return s
}
