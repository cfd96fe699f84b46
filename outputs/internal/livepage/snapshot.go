package livepage

import (
	"slices"
	"strings"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A snapshot is the latest batches as rows. It never changes.
type snapshot struct {
	batches []*metric.Batch
	sources map[string]*source // by name
	rows    []*row             // of all sources, by port and address
	byID    map[string]*row
	keys    map[string]audience // of tags and fields of all rows
}

// A source is one batch as rows.
type source struct {
	points []metric.Point
	rows   []*row // in the order of points
	other  []*metric.Point
}

// snapshot returns the snapshot of the board's latest batches. It is the same pointer
// until a source publishes.
func (p *Page) snapshot() *snapshot {
	p.idle.Reset(keepFor)
	latest := p.board.Latest()
	return p.snapshots.get(
		func(last *snapshot) bool { return slices.Equal(last.batches, latest) },
		func(last *snapshot) *snapshot { return newSnapshot(latest, last) })
}

// newSnapshot returns the snapshot of batches. It reuses the rows of the last one that have
// not changed.
func newSnapshot(batches []*metric.Batch, last *snapshot) *snapshot {
	s := &snapshot{batches: batches, sources: map[string]*source{}}
	if last == nil {
		last = &snapshot{}
	}
	unchanged := len(batches) == len(last.batches)
	for _, b := range batches {
		before := last.sources[b.Source]
		src := newSource(b, before)
		s.sources[b.Source] = src
		unchanged = unchanged && before != nil && slices.Equal(src.rows, before.rows)
	}
	if unchanged {
		s.rows, s.byID, s.keys = last.rows, last.byID, last.keys
		return s
	}
	s.keys = map[string]audience{}
	for _, b := range batches {
		s.rows = append(s.rows, s.sources[b.Source].rows...)
	}
	slices.SortFunc(s.rows, func(a, b *row) int { return strings.Compare(a.order, b.order) })
	s.byID = make(map[string]*row, len(s.rows))
	for _, r := range s.rows {
		s.byID[r.ID] = r
		addKeys(s.keys, r.point)
	}
	return s
}

// newSource returns the rows of a batch.
func newSource(b *metric.Batch, before *source) *source {
	if before == nil {
		before = &source{}
	}
	if len(b.Points) == len(before.points) && (len(b.Points) == 0 || &b.Points[0] == &before.points[0]) {
		return before
	}
	src := &source{points: b.Points, rows: make([]*row, 0, len(before.rows))}
	taken := make(map[string]bool, len(b.Points)) // the IDs of rows
	add := func(r *row) {
		src.rows = append(src.rows, r)
		taken[r.ID] = true
	}
	var byID map[string]*row // of before, made if the order differs
	for i := range b.Points {
		p := &b.Points[i]
		if !isListener(p) {
			src.other = append(src.other, p)
			continue
		}
		if n := len(src.rows); n < len(before.rows) && same(before.rows[n].point, p) && !taken[before.rows[n].ID] {
			add(before.rows[n])
			continue
		}
		r := newRow(b.Source, p, taken)
		if byID == nil {
			byID = make(map[string]*row, len(before.rows))
			for _, old := range before.rows {
				byID[old.ID] = old
			}
		}
		if old := byID[r.ID]; old != nil && same(old.point, p) {
			r = old
		}
		add(r)
	}
	return src
}

// addKeys adds the keys of a point, with the widest audience that any of their values has.
func addKeys(keys map[string]audience, p *metric.Point) {
	add := func(key string, a audience) {
		if known, ok := keys[key]; !ok || a > known {
			keys[key] = a
		}
	}
	for _, t := range p.Tags {
		add(t.Key, visibility(t.Key, metric.KindString, true))
	}
	for _, f := range p.Fields {
		add(f.Key, visibility(f.Key, f.Value.Kind(), false))
	}
}

// addFields adds fields that points may have, unless there is a tag with that key.
func addFields(keys map[string]audience, descs []metric.Desc) {
	for _, d := range descs {
		kind := metric.KindFloat
		if d.Type == metric.Untyped {
			kind = metric.KindString
		}
		if _, ok := keys[d.Field]; !ok {
			keys[d.Field] = visibility(d.Field, kind, false)
		}
	}
}

// knownKeys returns the keys of all tags and fields that there are, or that the inputs say
// there can be.
func (s *snapshot) knownKeys(t *timeline, sources []plugin.SourceState) map[string]audience {
	known := map[string]audience{"exposure": everyone, "expected": everyone}
	for _, state := range sources {
		for _, tag := range state.Tags {
			known[tag] = visibility(tag, metric.KindString, true)
		}
		if !listsListeners(state) {
			continue
		}
		for _, b := range s.batches {
			if b.Source == state.Name {
				addFields(known, b.Descs)
			}
		}
	}
	for _, keys := range []map[string]audience{s.keys, t.keys} {
		for key, a := range keys {
			known[key] = max(known[key], a)
		}
	}
	return known
}

// others returns the points that are not listeners.
func (s *snapshot) others() (points []*metric.Point) {
	for _, b := range s.batches {
		points = append(points, s.sources[b.Source].other...)
	}
	return points
}

// beyond returns how many listeners of a source have no row because the source has more than
// its limit.
func (s *snapshot) beyond(source string) (listeners uint64) {
	src := s.sources[source]
	if src == nil {
		return 0
	}
	for _, p := range src.other {
		if _, ok := p.Field("sockets"); ok {
			listeners += fieldUint(p, "listeners")
		}
	}
	return listeners
}

// limited returns the sources that have more listeners than rows.
func (s *snapshot) limited() map[string]bool {
	limited := map[string]bool{}
	for name := range s.sources {
		if s.beyond(name) > 0 {
			limited[name] = true
		}
	}
	return limited
}
