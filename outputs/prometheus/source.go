package prometheus

import (
	"fmt"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"sockwatch/agent/metric"
	"sockwatch/outputs/internal/promname"
)

// A source is the latest batch of one source as metric families. They are made again
// only if the points have changed, or if a different number of points fits on the page.
type source struct {
	name    string
	points  []metric.Point  // of the batch that it was made from
	descs   []metric.Desc   // of that batch
	valid   []*metric.Point // the points that pass metric.Point.Check
	size    size            // of all valid points
	invalid drops

	families []*family // of the first points in valid, in the order of their first series
	made     int       // the number of these points; -1: families has not been made
	drops    drops     // what was dropped while families was made
}

// A family is all series of one field of one source's points.
type family struct {
	*dto.MetricFamily
	source     string
	documented bool        // type and help come from a Desc
	desc       metric.Type // as documented
	seen       []bool      // by label set, while the family is made
}

// newSource checks the points of a batch.
func newSource(b *metric.Batch) *source {
	s := &source{name: b.Source, points: b.Points, descs: b.Descs, invalid: drops{}, made: -1}
	s.valid = make([]*metric.Point, 0, len(b.Points))
	for i := range b.Points {
		p := &b.Points[i]
		if err := p.Check(); err != nil {
			s.invalid.add(dropKind{invalid, s.name, p.Name}, max(1, len(p.Fields)), err.Error)
			continue
		}
		s.valid = append(s.valid, p)
		s.size = s.size.plus(sizeOf(p))
	}
	return s
}

// equals reports whether the source and the batch have the same points. Times do not
// count, because the page shows none.
func (s *source) equals(b *metric.Batch) bool {
	if !slices.Equal(s.descs, b.Descs) || len(s.points) != len(b.Points) {
		return false
	}
	if len(b.Points) == 0 || &s.points[0] == &b.Points[0] {
		return true
	}
	return slices.EqualFunc(s.points, b.Points, func(p, q metric.Point) bool {
		return p.Name == q.Name && slices.Equal(p.Tags, q.Tags) && slices.Equal(p.Fields, q.Fields)
	})
}

// make makes the families of the first n valid points. Every numeric field is a series.
// If two series are equal, the first one is kept.
func (s *source) make(n int) {
	if s.made == n {
		return
	}
	s.made, s.families, s.drops = n, nil, drops{}
	b := builder{source: s, sets: map[string]int{}}
	families := map[[2]string]*family{} // by point and field
	for _, p := range s.valid[:n] {
		labels, set := b.labels(p)
		for _, f := range p.Fields {
			if f.Value.Kind() == metric.KindString {
				continue
			}
			key := [2]string{p.Name, f.Key}
			family := families[key]
			if family == nil {
				family = s.newFamily(p.Name, f.Key)
				families[key] = family
			}
			if v, ok := promname.Sample(f.Value, family.desc); ok {
				b.add(family, labels, set, v)
			}
		}
	}
	s.families = slices.DeleteFunc(s.families, func(f *family) bool { return len(f.Metric) == 0 })
	for _, f := range s.families {
		f.seen = nil
	}
	for _, p := range s.valid[n:] {
		if series := sizeOf(p).series; series > 0 {
			s.drops.add(dropKind{maxSeries, s.name, p.Name}, series, p.Series)
		}
	}
}

// newFamily returns an empty family for a field, with help and type from its Desc.
func (s *source) newFamily(point, field string) *family {
	f := &family{
		MetricFamily: &dto.MetricFamily{Name: new(promname.Metric(point, field)), Type: new(dto.MetricType_UNTYPED)},
		source:       s.name, seen: make([]bool, len(s.valid)),
	}
	desc, ok := promname.Desc(s.descs, point, field)
	if ok {
		f.documented, f.desc, f.Help, f.Type = true, desc.Type, &desc.Help, new(types[desc.Type])
	}
	s.families = append(s.families, f)
	return f
}

// A builder holds the state that is needed only while families are made.
type builder struct {
	source  *source
	labeler promname.Labeler
	sets    map[string]int // the number of each label set, by its labels as one string
	pairs   []promname.Pair
	key     []byte
}

// labels returns the labels of a point, and a number that equal labels share.
func (b *builder) labels(p *metric.Point) ([]*dto.LabelPair, int) {
	b.pairs = b.labeler.Append(b.pairs[:0], p.Tags, func(tag int) {
		b.source.drops.add(dropKind{clash, b.source.name, p.Name}, 1, func() string {
			return fmt.Sprintf("tag %q of %s", p.Tags[tag].Key, p.Series())
		})
	})
	labels := make([]*dto.LabelPair, len(b.pairs))
	for i, pair := range b.pairs {
		labels[i] = &dto.LabelPair{Name: pair.Name, Value: pair.Value}
	}
	b.key = appendLabels(b.key[:0], labels)
	set, ok := b.sets[string(b.key)]
	if !ok {
		set = len(b.sets)
		b.sets[string(b.key)] = set
	}
	return labels, set
}

// appendLabels appends labels in a form that is unique to them.
func appendLabels(dst []byte, labels []*dto.LabelPair) []byte {
	for _, l := range labels {
		dst = append(append(dst, *l.Name...), 0xff) // never occurs in UTF-8
		dst = append(append(dst, *l.Value...), 0xff)
	}
	return dst
}

var types = [...]dto.MetricType{
	metric.Untyped: dto.MetricType_UNTYPED,
	metric.Gauge:   dto.MetricType_GAUGE,
	metric.Counter: dto.MetricType_COUNTER,
}

// add adds one series to a family, unless the family already has it.
func (b *builder) add(f *family, labels []*dto.LabelPair, set int, v float64) {
	if f.seen[set] {
		b.source.drops.add(dropKind{duplicate, b.source.name, f.GetName()}, 1, func() string { return seriesName(f.GetName(), labels) })
		return
	}
	f.seen[set] = true
	f.Metric = append(f.Metric, newMetric(f.GetType(), labels, v))
}

// seriesName returns a series as it appears in the log.
func seriesName(name string, labels []*dto.LabelPair) string {
	pairs := make([]string, len(labels))
	for i, l := range labels {
		pairs[i] = fmt.Sprintf("%s=%q", *l.Name, *l.Value)
	}
	return name + "{" + strings.Join(pairs, ",") + "}"
}

func newMetric(t dto.MetricType, labels []*dto.LabelPair, v float64) *dto.Metric {
	switch t {
	case dto.MetricType_GAUGE:
		return &dto.Metric{Label: labels, Gauge: &dto.Gauge{Value: &v}}
	case dto.MetricType_COUNTER:
		return &dto.Metric{Label: labels, Counter: &dto.Counter{Value: &v}}
	default:
		return &dto.Metric{Label: labels, Untyped: &dto.Untyped{Value: &v}}
	}
}

// A size is a number of series, and the number of bytes of their lines.
type size struct{ series, bytes int }

func (a size) plus(b size) size   { return size{a.series + b.series, a.bytes + b.bytes} }
func (a size) minus(b size) size  { return size{a.series - b.series, a.bytes - b.bytes} }
func (a size) within(b size) bool { return a.series <= b.series && a.bytes <= b.bytes }

// sizeOf returns the number of series of a point, and an upper bound of the bytes of
// their lines in the text format.
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
