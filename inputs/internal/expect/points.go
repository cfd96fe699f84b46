package expect

import (
	"slices"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/inet"
)

// makePoints returns the points of a scan, sorted by name. The points of rules are in the
// order of the rules.
func (t *Tracker) makePoints(listeners []Judged, counts []count) []metric.Point {
	if !t.rules.active {
		return nil
	}
	points := t.ruleCounts()
	for _, n := range t.rules.rules {
		if o := t.outcomes[n]; o != nil {
			points = append(points, t.rulePoint(n, o, counts[n.index]))
		}
	}
	if t.rules.unlisted {
		points = append(points, t.unexpected(listeners)...)
	}
	return append(points, t.violationPoints()...)
}

func (t *Tracker) rulePoint(n *rule, o *outcome, c count) metric.Point {
	tags := n.tags()
	for key, value := range n.labels {
		tags = append(tags, metric.Tag{Key: key, Value: value})
	}
	metric.SortTags(tags)
	fields := []metric.Field{
		{Key: "matches", Value: metric.Int(int64(c.matches))},
		{Key: "undecided", Value: metric.Int(int64(c.undecided))},
	}
	if o.Decided {
		fields = append(fields, metric.Field{Key: "up", Value: metric.Int(int64(btoi(o.Up)))})
	}
	return metric.Point{Name: t.options.Point + "_expect", Tags: tags, Fields: fields}
}

// ruleCounts returns the point that describes the rules in force.
func (t *Tracker) ruleCounts() []metric.Point {
	kinds := make(map[string]int)
	for _, n := range t.rules.rules {
		kinds[n.kind]++
	}
	fields := make([]metric.Field, 0, 4)
	for _, kind := range []string{kindExpect, kindAllow, kindForbid} {
		fields = append(fields, metric.Field{Key: kind, Value: metric.Int(int64(kinds[kind]))})
	}
	if !t.options.Loaded.IsZero() {
		fields = append(fields, metric.Field{Key: "loaded_time_seconds", Value: metric.Int(t.options.Loaded.Unix())})
	}
	if first := t.rules.firstExpiry(); !first.IsZero() {
		fields = append(fields, metric.Field{Key: "expires_time_seconds", Value: metric.Int(first.Unix())})
	}
	return []metric.Point{{
		Name: t.options.Point + "_rules", Tags: metric.NewTags("digest", t.rules.digest), Fields: fields,
	}}
}

// unexpected returns the number of unexpected listeners by exposure.
func (t *Tracker) unexpected(listeners []Judged) []metric.Point {
	counts := make(map[inet.Class]int)
	seen := make(map[string]bool)
	for _, j := range listeners {
		if j.Expected != No {
			continue
		}
		if key := seriesKey(j.Tags); !seen[key] {
			seen[key] = true
			counts[j.Exposure]++
		}
	}
	var points []metric.Point
	for class := inet.Nowhere; class <= inet.Public; class++ {
		exposure := class.String()
		if class == inet.Nowhere {
			exposure = "none"
		}
		points = append(points, metric.Point{
			Name: t.options.Point + "_unexpected", Tags: metric.NewTags("exposure", exposure),
			Fields: []metric.Field{{Key: "listeners", Value: metric.Int(int64(counts[class]))}},
		})
	}
	return points
}

// violationPoints returns a point for each violation in the last scan.
func (t *Tracker) violationPoints() []metric.Point {
	active := []metric.Field{{Key: "active", Value: metric.Int(1)}}
	var points []metric.Point
	for _, v := range t.violations.present(true) {
		points = append(points, metric.Point{Name: t.options.Point + "_violation", Tags: v.pointTags(), Fields: active})
	}
	return points
}

// seriesKey joins tags into one string that is unique to them.
func seriesKey(tags []metric.Tag) string {
	var b []byte
	for _, t := range tags {
		b = append(b, t.Key...)
		b = append(b, 0xff) // never occurs in UTF-8
		b = append(b, t.Value...)
		b = append(b, 0xff)
	}
	return string(b)
}

// equalPoints reports whether two lists of points are equal, ignoring times.
func equalPoints(a, b []metric.Point) bool {
	return slices.EqualFunc(a, b, samePoint)
}

func samePoint(p, q metric.Point) bool {
	return p.Name == q.Name && slices.Equal(p.Tags, q.Tags) && slices.Equal(p.Fields, q.Fields)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Descs returns the descriptions of the points' fields. The names of the points begin with
// point.
func Descs(point string) []metric.Desc {
	gauge := func(name, field, unit, help string) metric.Desc {
		return metric.Desc{Name: point + name, Field: field, Type: metric.Gauge, Unit: unit, Help: help}
	}
	return []metric.Desc{
		{Name: point, Field: "expected", Help: `Verdict of the rules on the listener: "yes", "no", "forbidden" or "undecided"; absent without rules`},
		{Name: point, Field: "rule", Help: "Name of the deciding rule"},
		gauge("_expect", "up", "", "Whether the rule holds; absent until that is first known"),
		gauge("_expect", "matches", "count", "Endpoints that match the rule"),
		gauge("_expect", "undecided", "count", "Endpoints that may match the rule once their owner is known"),
		gauge("_violation", "active", "", "1 while a listener is forbidden or not expected"),
		gauge("_unexpected", "listeners", "count", "Listeners that no rule allows"),
		gauge("_rules", "expect", "count", "Expect rules"),
		gauge("_rules", "allow", "count", "Allow rules"),
		gauge("_rules", "forbid", "count", "Forbid rules"),
		gauge("_rules", "loaded_time_seconds", "seconds", "When the rules were read, in Unix time"),
		gauge("_rules", "expires_time_seconds", "seconds", "When the first approval of a rule ends or has ended, in Unix time; absent if no rule expires"),
	}
}

// Tags returns the tag keys of the points and events, without labels.
func Tags() []string {
	return []string{
		"address", "digest", "event", "exposure", "name", "port", "process", "rule", "unit", "user", "verdict",
	}
}
