// Package promname maps points to series of Prometheus: the names of metrics and labels, the
// values of samples, and their documentation. All outputs for Prometheus use it, so that a
// field has the same name in each.
package promname

import (
	"math"
	"slices"
	"strings"

	"sockwatch/agent/metric"
)

// Metric returns the name of the metric of a point's field: NAME_FIELD, or NAME alone for
// the field "value".
//
// Point and field names may be any UTF-8. Every character that is not allowed in a classic
// Prometheus name, [a-zA-Z_:][a-zA-Z0-9_:]*, becomes an underscore: such names work in
// every version and need no quotes in a query. If two names become one, series with equal
// labels are dropped as duplicates.
func Metric(point, field string) string {
	if field == "value" {
		return Classic(point, true)
	}
	return Classic(point+"_"+field, true)
}

// label returns the name of a tag's label: [a-zA-Z_][a-zA-Z0-9_]*, but with at most one
// leading underscore, because Prometheus reserves names with two (__name__).
func label(tag string) string {
	name := Classic(tag, false)
	for strings.HasPrefix(name, "__") {
		name = name[1:]
	}
	return name
}

// Classic returns name with an underscore in place of every character that is not a
// letter, a digit, an underscore or, if colon is set, a colon. A leading digit gets an
// underscore in front.
func Classic(name string, colon bool) string {
	legal := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || colon && r == ':'
	}
	name = strings.Map(func(r rune) rune {
		if legal(r) {
			return r
		}
		return '_'
	}, name)
	if name == "" || '0' <= name[0] && name[0] <= '9' {
		return "_" + name
	}
	return name
}

// A Pair is a label. Value points into the tag that it comes from.
type Pair struct{ Name, Value *string }

// A Labeler turns tags into labels. It remembers the label names of tag keys. The zero value
// is ready. Its methods must not be called concurrently.
type Labeler struct {
	names map[string]*string // by tag key
}

// Append appends the labels of a point's tags to dst, sorted by name and unique. A tag has
// no label if its label name differs from its key and belongs to another tag. Append calls
// clash with the index of each such tag.
func (l *Labeler) Append(dst []Pair, tags []metric.Tag, clash func(tag int)) []Pair {
	from, sorted := len(dst), true
	for i := range tags {
		name := l.name(tags[i].Key)
		if *name != tags[i].Key {
			sorted = false
			if l.clashes(tags, i, *name) {
				clash(i)
				continue
			}
		}
		dst = append(dst, Pair{name, &tags[i].Value})
	}
	if !sorted {
		slices.SortFunc(dst[from:], func(a, b Pair) int { return strings.Compare(*a.Name, *b.Name) })
	}
	return dst
}

// maxNames bounds the memory for label names.
const maxNames = 10_000

func (l *Labeler) name(key string) *string {
	name := l.names[key]
	if name == nil {
		if l.names == nil || len(l.names) >= maxNames {
			l.names = map[string]*string{}
		}
		name = new(label(key))
		l.names[key] = name
	}
	return name
}

// clashes reports whether the label name of tags[i], which differs from its key, belongs
// to another tag: one that has this name as its key, or an earlier one.
func (l *Labeler) clashes(tags []metric.Tag, i int, name string) bool {
	for j, t := range tags {
		if t.Key == name || j < i && *l.name(t.Key) == name {
			return true
		}
	}
	return false
}

// Sample returns the value of a field's sample. It reports false if the field has none: it
// is a string, or a NaN of a counter, which OpenMetrics does not allow.
func Sample(v metric.Value, t metric.Type) (float64, bool) {
	n, ok := v.Number()
	if ok && math.IsNaN(n) {
		return math.NaN(), t != metric.Counter // never the bit pattern that marks a stale series in Prometheus
	}
	return n, ok
}

// Desc returns the documentation of a point's field. It reports false if there is none.
func Desc(descs []metric.Desc, point, field string) (metric.Desc, bool) {
	i := slices.IndexFunc(descs, func(d metric.Desc) bool { return d.Name == point && d.Field == field })
	if i < 0 {
		return metric.Desc{}, false
	}
	return descs[i], true
}
