package prometheus

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"sockwatch/agent/metric"
)

// A page is the board of one moment as metric families, and their bytes in every
// format that was asked for. It is not changed once made.
type page struct {
	board    []*metric.Batch
	families []*family // sorted by name
	labels   [][]*dto.LabelPair
	series   int
	leftOut  leftOut
	bodies   [formats][encodings]body
}

// A family is all samples of one metric.
type family struct {
	name    string
	help    string
	kind    dto.MetricType
	known   bool // a Desc gave kind and help
	samples []sample
}

// A sample is one series: its labels by their place in page.labels, its value, and
// the place in page.board of the batch that it is from.
type sample struct {
	labels, batch int32
	value         float64
}

// newPage makes the page of a board: every numeric field a sample, in the order of
// the board. Of equal series the first stands.
func newPage(board []*metric.Batch, room size) *page {
	p := &page{board: board, leftOut: leftOut{}}
	b := builder{page: p, sets: map[string]int32{}, names: map[string]*string{}, families: map[string]*family{}}
	batch, fields := int32(-1), map[[2]string]*family(nil)
	for _, s := range p.fold(p.valid(), room) {
		if s.batch != batch {
			batch, fields = s.batch, map[[2]string]*family{}
		}
		labels := b.labels(s)
		for _, f := range s.point.Fields {
			v, ok := f.Value.Number()
			if !ok {
				continue
			}
			fam := fields[[2]string{s.point.Name, f.Key}]
			if fam == nil {
				fam = b.family(board[batch], s.point.Name, f.Key)
				fields[[2]string{s.point.Name, f.Key}] = fam
			}
			if math.IsNaN(v) {
				if fam.kind == dto.MetricType_COUNTER {
					continue // OpenMetrics has none
				}
				v = math.NaN() // not the bits by which Prometheus marks a stale series
			}
			fam.samples = append(fam.samples, sample{labels, batch, v})
		}
	}
	b.finish()
	return p
}

// A shown point is one that the page is made of.
type shown struct {
	point *metric.Point
	batch int32
}

// valid returns the points of the board but those that break their promises and
// would spoil the page.
func (p *page) valid() []shown {
	n := 0
	for _, b := range p.board {
		n += len(b.Points)
	}
	points := make([]shown, 0, n)
	for i, b := range p.board {
		for j := range b.Points {
			point := &b.Points[j]
			if err := point.Check(); err != nil {
				p.leftOut.add(invalid, b.Source, point.Name, err.Error(), max(1, len(point.Fields)))
				continue
			}
			points = append(points, shown{point, int32(i)})
		}
	}
	return points
}

// A builder holds what is needed only while a page is made.
type builder struct {
	page     *page
	sets     map[string]int32   // places in page.labels by their key
	names    map[string]*string // label names by tag key
	families map[string]*family
	pairs    []dto.LabelPair // an arena: what is handed out is never moved
	set      []*dto.LabelPair
	key      []byte
}

// labels returns the place of the point's labels in page.labels, where equal ones
// are there once.
func (b *builder) labels(s shown) int32 {
	b.set, b.key = b.set[:0], b.key[:0]
	tags := s.point.Tags
	if cap(b.pairs)-len(b.pairs) < len(tags) {
		b.pairs = make([]dto.LabelPair, 0, max(1024, len(tags)))
	}
	arena := len(b.pairs)
	sorted := true
	for i := range tags {
		name := b.labelName(tags[i].Key)
		if *name != tags[i].Key {
			sorted = false
			if b.clashes(tags, i, *name) {
				b.page.leftOut.add(clash, b.page.board[s.batch].Source, s.point.Name,
					fmt.Sprintf("tag %q of %s", tags[i].Key, s.point.Series()), 1)
				continue
			}
		}
		b.pairs = b.pairs[:len(b.pairs)+1]
		pair := &b.pairs[len(b.pairs)-1]
		pair.Name, pair.Value = name, &tags[i].Value
		b.set = append(b.set, pair)
	}
	if !sorted {
		slices.SortFunc(b.set, func(x, y *dto.LabelPair) int { return strings.Compare(*x.Name, *y.Name) })
	}
	for _, pair := range b.set {
		b.key = append(append(b.key, *pair.Name...), 0xff) // no byte of UTF-8
		b.key = append(append(b.key, *pair.Value...), 0xff)
	}
	id, ok := b.sets[string(b.key)]
	if ok {
		b.pairs = b.pairs[:arena]
		return id
	}
	id = int32(len(b.page.labels))
	b.sets[string(b.key)] = id
	b.page.labels = append(b.page.labels, slices.Clone(b.set))
	return id
}

func (b *builder) labelName(key string) *string {
	name := b.names[key]
	if name == nil {
		name = new(labelName(key))
		b.names[key] = name
	}
	return name
}

// clashes tells whether the label of tags[i], whose name had to be changed, is
// another tag's already: of one that bears the name itself, or of an earlier one.
func (b *builder) clashes(tags []metric.Tag, i int, name string) bool {
	for j, t := range tags {
		if t.Key == name || j < i && *b.labelName(t.Key) == name {
			return true
		}
	}
	return false
}

// family returns the family of a field of the batch's points. TYPE and HELP are
// from the first batch that documents it.
func (b *builder) family(batch *metric.Batch, point, field string) *family {
	name := metricName(point, field)
	f := b.families[name]
	if f == nil {
		f = &family{name: name, kind: dto.MetricType_UNTYPED}
		b.families[name] = f
	}
	for _, d := range batch.Descs {
		if !f.known && d.Name == point && d.Field == field {
			f.known, f.help, f.kind = true, d.Help, kinds[d.Type]
		}
	}
	return f
}

var kinds = [...]dto.MetricType{
	metric.Untyped: dto.MetricType_UNTYPED,
	metric.Gauge:   dto.MetricType_GAUGE,
	metric.Counter: dto.MetricType_COUNTER,
}

// finish drops what is there twice and sorts the families.
func (b *builder) finish() {
	p := b.page
	seen := make([]int32, len(p.labels)) // by which family last
	for _, f := range b.families {
		if len(f.samples) == 0 {
			continue
		}
		p.families = append(p.families, f)
		stamp := int32(len(p.families))
		kept := f.samples[:0]
		for _, s := range f.samples {
			if seen[s.labels] == stamp {
				p.leftOut.add(duplicate, p.board[s.batch].Source, f.name, f.series(p.labels[s.labels]), 1)
				continue
			}
			seen[s.labels] = stamp
			kept = append(kept, s)
		}
		f.samples = kept
		p.series += len(kept)
		// OpenMetrics calls the counter x_total "x": it must not meet another x.
		if base, ok := strings.CutSuffix(f.name, "_total"); ok && b.families[base] != nil {
			f.kind = dto.MetricType_UNTYPED
		}
	}
	slices.SortFunc(p.families, func(x, y *family) int { return cmp.Compare(x.name, y.name) })
}

// has tells whether the page has a metric of that name.
func (p *page) has(name string) bool {
	_, found := slices.BinarySearchFunc(p.families, name, func(f *family, name string) int { return cmp.Compare(f.name, name) })
	return found
}

// series names a series for people.
func (f *family) series(labels []*dto.LabelPair) string {
	var s strings.Builder
	s.WriteString(f.name + "{")
	for i, l := range labels {
		if i > 0 {
			s.WriteByte(',')
		}
		fmt.Fprintf(&s, "%s=%q", *l.Name, *l.Value)
	}
	return s.String() + "}"
}
