package encode

import (
	"slices"

	"sockwatch/agent/metric"
)

// A seriesDiff says which series of an earlier batch are missing from a later one.
type seriesDiff struct {
	ends []seriesEnd // in the order of the earlier batch
	more bool        // the later batch has further series

	missing, added []int // indexes of points that were not found in order
}

// A seriesEnd is a point of which all or some series are missing.
type seriesEnd struct {
	index  int            // of the point
	fields []metric.Field // that are missing, with zero values
	whole  bool           // all are
}

// compare compares two batches. It is one walk over both if they have the same order and no
// series is missing.
func (d *seriesDiff) compare(before, now []metric.Point) {
	clear(d.ends)
	d.ends, d.more, d.missing, d.added = d.ends[:0], false, d.missing[:0], d.added[:0]
	cursor := 0
	for i := range now {
		j := findSeries(before, &now[i], cursor)
		if j < 0 {
			d.added = append(d.added, i)
			continue
		}
		for ; cursor < j; cursor++ {
			d.missing = append(d.missing, cursor)
		}
		cursor = j + 1
		d.compareFields(j, &before[j], &now[i])
	}
	for ; cursor < len(before); cursor++ {
		d.missing = append(d.missing, cursor)
	}
	d.findContinued(before, now)
	d.more = d.more || len(d.added) > 0
	for _, j := range d.missing {
		d.ends = append(d.ends, seriesEnd{index: j, fields: zeroed(before[j].Fields), whole: true})
	}
	slices.SortFunc(d.ends, func(a, b seriesEnd) int { return a.index - b.index })
}

// findContinued removes from the missing and the added points those of series that both batches
// have: in another order, or, if filters remove the tags that distinguish several points, as
// another of these points.
func (d *seriesDiff) findContinued(before, now []metric.Point) {
	if len(d.missing) == 0 {
		return
	}
	var key []byte
	keyOf := func(p *metric.Point) []byte {
		key = appendSeriesKey(key[:0], p)
		return key
	}
	later := make(map[string]*metric.Point, len(d.missing)) // of the missing series; nil: none
	for _, j := range d.missing {
		later[string(keyOf(&before[j]))] = nil
	}
	for i := range now {
		if k := keyOf(&now[i]); hasKey(later, k) {
			later[string(k)] = &now[i]
		}
	}
	d.missing = slices.DeleteFunc(d.missing, func(j int) bool {
		p := later[string(keyOf(&before[j]))]
		if p != nil {
			d.compareFields(j, &before[j], p)
		}
		return p != nil
	})
	d.added = slices.DeleteFunc(d.added, func(i int) bool { return hasKey(later, keyOf(&now[i])) })
}

func hasKey(m map[string]*metric.Point, key []byte) bool {
	_, ok := m[string(key)]
	return ok
}

// compareFields finds the fields of a point that a later one of the same series no longer has.
func (d *seriesDiff) compareFields(index int, before, now *metric.Point) {
	if slices.EqualFunc(before.Fields, now.Fields, func(a, b metric.Field) bool {
		return a.Key == b.Key && a.Value.Kind() == b.Value.Kind()
	}) {
		return
	}
	var missing []metric.Field
	for _, f := range before.Fields {
		if !hasSeries(now, f) {
			missing = append(missing, f)
		}
	}
	if len(missing) > 0 {
		d.ends = append(d.ends, seriesEnd{index: index, fields: zeroed(missing), whole: len(missing) == len(before.Fields)})
	}
	for _, f := range now.Fields {
		if v, ok := before.Field(f.Key); !ok || v.Kind() != f.Value.Kind() {
			d.more = true
		}
	}
}

// remaining returns the points of the earlier batch without the series that are missing.
func (d *seriesDiff) remaining(before []metric.Point) []metric.Point {
	points := make([]metric.Point, 0, len(before))
	from := 0
	for _, end := range d.ends {
		points = append(points, before[from:end.index]...)
		from = end.index + 1
		if end.whole {
			continue
		}
		p := before[end.index]
		p.Fields = slices.DeleteFunc(slices.Clone(p.Fields), func(f metric.Field) bool {
			return slices.ContainsFunc(end.fields, func(e metric.Field) bool { return e.Key == f.Key })
		})
		points = append(points, p)
	}
	return append(points, before[from:]...)
}

// hasSeries reports whether a point continues the series of a field: a number does not
// continue as a string.
func hasSeries(p *metric.Point, f metric.Field) bool {
	v, ok := p.Field(f.Key)
	return ok && (f.Value.Kind() == metric.KindString || v.Kind() != metric.KindString)
}

// zeroed returns fields with the same keys and kinds and zero values.
func zeroed(fields []metric.Field) []metric.Field {
	zero := make([]metric.Field, len(fields))
	for i, f := range fields {
		zero[i] = metric.Field{Key: f.Key, Value: metric.Zero(f.Value.Kind())}
	}
	return zero
}

// appendSeriesKey appends what identifies the series of a point among others.
func appendSeriesKey(dst []byte, p *metric.Point) []byte {
	dst = append(dst, p.Name...)
	for _, t := range p.Tags { // 0xff does not occur in UTF-8
		dst = append(append(append(append(dst, 0xff), t.Key...), 0xff), t.Value...)
	}
	return dst
}
