package remotewrite

import (
	"strconv"
	"strings"

	"sockwatch/agent/metric"
	"sockwatch/outputs/internal/promname"
)

// An encoder makes records of points. Its methods must not be called concurrently.
type encoder struct {
	descs   []metric.Desc
	tables  map[*metric.Desc]map[fieldKey]*field // by the first of descs
	fields  map[fieldKey]*field                  // the table of descs
	labeler promname.Labeler
	pairs   []promname.Pair
	used    []*field // of the current point
	dropped func(series string, what string, name string)
}

// A fieldKey is a field of points with one name.
type fieldKey struct{ point, field string }

// A field is the metric of a fieldKey.
type field struct {
	metric  string
	kind    metric.Type
	renamed bool // metric has other characters than the point and the field
}

// maxTables and maxFields bound the memory for metrics.
const (
	maxTables = 100
	maxFields = 10_000
)

// useDescs sets the documentation of the points that follow.
func (e *encoder) useDescs(descs []metric.Desc) {
	e.descs, e.fields = descs, nil
	if len(descs) == 0 {
		return
	}
	if e.tables == nil || len(e.tables) >= maxTables {
		e.tables = map[*metric.Desc]map[fieldKey]*field{}
	}
	e.fields = e.tables[&descs[0]]
	if e.fields == nil {
		e.fields = map[fieldKey]*field{}
		e.tables[&descs[0]] = e.fields
	}
}

func (e *encoder) field(point, key string) *field {
	f := e.fields[fieldKey{point, key}]
	if f == nil {
		if e.fields == nil || len(e.fields) >= maxFields {
			e.fields = map[fieldKey]*field{}
		}
		desc, _ := promname.Desc(e.descs, point, key)
		f = &field{metric: promname.Metric(point, key), kind: desc.Type}
		f.renamed = f.metric != point+"_"+key && f.metric != point
		e.fields[fieldKey{point, key}] = f
	}
	return f
}

// append appends a point to dst. With ended, all of its samples end their series. It
// appends nothing if the point has no samples.
func (e *encoder) append(dst []byte, p *metric.Point, ended bool) []byte {
	from, samples := len(dst), 0
	dst = strconv.AppendInt(dst, p.Time.UnixMilli(), 10)
	dst = append(dst, ' ')
	dst = e.appendLabels(dst, p)
	e.used = e.used[:0]
	for _, f := range p.Fields {
		if f.Value.Kind() == metric.KindString {
			continue
		}
		m := e.field(p.Name, f.Key)
		v, ok := promname.Sample(f.Value, m.kind)
		if !ok && !ended || e.repeats(m, p, f.Key) {
			continue
		}
		samples++
		dst = append(dst, ' ')
		dst = append(dst, m.metric...)
		dst = append(dst, '=', kinds[m.kind])
		switch n := f.Value; {
		case ended:
			dst = append(dst, staleText...)
			continue
		case n.Kind() == metric.KindInt:
			dst = strconv.AppendInt(dst, n.AsInt(), 10)
		default:
			dst = strconv.AppendFloat(dst, v, 'g', -1, 64)
		}
		if m.kind == metric.Counter && !p.Start.IsZero() {
			dst = append(dst, '@')
			dst = strconv.AppendInt(dst, p.Start.UnixMilli(), 10)
		}
	}
	if samples == 0 {
		return dst[:from]
	}
	return dst
}

// repeats reports whether an earlier field of the point has the same metric. Only a name
// with characters that become underscores can repeat another.
func (e *encoder) repeats(m *field, p *metric.Point, key string) bool {
	for _, u := range e.used {
		if (m.renamed || u.renamed) && u.metric == m.metric {
			e.dropped(p.Series(), "field", key)
			return true
		}
	}
	e.used = append(e.used, m)
	return false
}

func (e *encoder) appendLabels(dst []byte, p *metric.Point) []byte {
	e.pairs = e.labeler.Append(e.pairs[:0], p.Tags, func(tag int) { e.dropped(p.Series(), "tag", p.Tags[tag].Key) })
	dst = append(dst, '{')
	for i, pair := range e.pairs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, *pair.Name...)
		dst = append(dst, '=', '"')
		dst = appendEscaped(dst, *pair.Value)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

// appendEscaped appends the value of a label as in the text format of Prometheus.
func appendEscaped(dst []byte, value string) []byte {
	for {
		i := strings.IndexAny(value, "\\\"\n")
		if i < 0 {
			return append(dst, value...)
		}
		dst = append(dst, value[:i]...)
		if value[i] == '\n' {
			dst = append(dst, '\\', 'n')
		} else {
			dst = append(dst, '\\', value[i])
		}
		value = value[i+1:]
	}
}
