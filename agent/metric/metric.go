// Package metric holds the data that flows through the agent: batches of points, each
// with a name, tags and typed fields, and the documentation of fields.
package metric

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Batch is the complete result of one gather of one input.
//
// Points is a snapshot. It replaces the Points that the same source published before:
// a series that is missing from it has ended. Points are unique by name and tags, the
// most important first: an output without room for all drops the last. Events happened
// since the previous gather. Each is in one batch only and has its own time; outputs that
// push deliver it, and endpoints can show the last ones. A Batch is immutable once published.
type Batch struct {
	Source  string    // the input instance; set by the agent
	Time    time.Time // when the gather began; applies to points without a time
	Points  []Point
	Events  []Point
	Partial string // which secondary data is missing and why (a deadline), or ""
	Descs   []Desc // documentation of the fields; set by the agent

	// EventsStored, if not nil, is called by the agent when every output that pushes and
	// takes any of the Events has them: in a queue on disk, or, if its queue is in memory,
	// delivered or rejected. An output whose filter drops all of them, or that a reload has
	// removed, does not count; if there is no other, the call comes at once. It comes at
	// most once, from any goroutine, and never if the program ends before. It must not
	// block.
	EventsStored func()
}

// A Point is one measured thing: a name, tags that distinguish it from other points with
// the same name, and the measured values. It has at least one field.
type Point struct {
	Name   string
	Tags   []Tag   // sorted by key, keys unique, no empty values
	Fields []Field // keys unique, in any order
	Time   time.Time
	Start  time.Time // since when the counters among the fields count; zero: unknown, or no counter
}

// Same reports whether a and b are the same slice. Points never change once they are published, so
// then nothing has changed.
func Same(a, b []Point) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// A Tag is one dimension of a point's identity. Both strings are valid UTF-8.
type Tag struct{ Key, Value string }

// A Field is one measured value of a point.
type Field struct {
	Key   string
	Value Value
}

// Tag returns the value of the tag with the given key, or "".
func (p *Point) Tag(key string) string {
	for _, t := range p.Tags {
		if t.Key == key {
			return t.Value
		}
	}
	return ""
}

// Field returns the value of the field with the given key. It reports false if there is
// none.
func (p *Point) Field(key string) (Value, bool) {
	for _, f := range p.Fields {
		if f.Key == key {
			return f.Value, true
		}
	}
	return Value{}, false
}

// NewTags returns tags with the given keys and values (key, value, key, value, ...),
// sorted by key as a Point needs them. It omits tags with an empty value.
func NewTags(keysAndValues ...string) []Tag {
	tags := make([]Tag, 0, len(keysAndValues)/2)
	for i := 0; i+1 < len(keysAndValues); i += 2 {
		if keysAndValues[i+1] != "" {
			tags = append(tags, Tag{keysAndValues[i], keysAndValues[i+1]})
		}
	}
	SortTags(tags)
	return tags
}

// SortTags sorts tags by key, in place.
func SortTags(tags []Tag) {
	slices.SortFunc(tags, func(a, b Tag) int { return strings.Compare(a.Key, b.Key) })
}

// A Kind is the type of a Value.
type Kind uint8

// The kinds of values. The zero Value is the float 0.
const (
	KindFloat Kind = iota
	KindInt
	KindUint
	KindBool
	KindString
)

// A Value is one float64, int64, uint64, bool or string. Values are comparable with ==,
// which treats NaNs with equal bits as equal.
type Value struct {
	kind Kind
	bits uint64
	str  string
}

// Float returns the value of a float64, which may be NaN or infinite.
func Float(v float64) Value { return Value{kind: KindFloat, bits: math.Float64bits(v)} }

// Int returns the value of an int64.
func Int(v int64) Value { return Value{kind: KindInt, bits: uint64(v)} }

// Uint returns the value of a uint64.
func Uint(v uint64) Value { return Value{kind: KindUint, bits: v} }

// Bool returns the value of a bool.
func Bool(v bool) Value {
	if v {
		return Value{kind: KindBool, bits: 1}
	}
	return Value{kind: KindBool}
}

// String returns the value of a string, which is valid UTF-8.
func String(v string) Value { return Value{kind: KindString, str: v} }

// Zero returns the zero value of a kind: 0, false or "".
func Zero(k Kind) Value { return Value{kind: k} }

// Kind returns the type of the value, and so which accessor to use.
func (v Value) Kind() Kind { return v.kind }

// AsFloat returns the value of a float, or 0 for another kind.
func (v Value) AsFloat() float64 {
	if v.kind != KindFloat {
		return 0
	}
	return math.Float64frombits(v.bits)
}

// AsInt returns the value of an int, or 0 for another kind.
func (v Value) AsInt() int64 {
	if v.kind != KindInt {
		return 0
	}
	return int64(v.bits)
}

// AsUint returns the value of a uint, or 0 for another kind.
func (v Value) AsUint() uint64 {
	if v.kind != KindUint {
		return 0
	}
	return v.bits
}

// AsBool returns the value of a bool, or false for another kind.
func (v Value) AsBool() bool { return v.kind == KindBool && v.bits == 1 }

// AsString returns the value of a string, or "" for another kind.
func (v Value) AsString() string { return v.str }

// Number returns the value as a float64, with bools as 0 and 1. It reports false for a
// string.
func (v Value) Number() (float64, bool) {
	switch v.kind {
	case KindFloat:
		return math.Float64frombits(v.bits), true
	case KindInt:
		return float64(int64(v.bits)), true
	case KindUint, KindBool:
		return float64(v.bits), true
	default:
		return 0, false
	}
}

// String formats the value for people.
func (v Value) String() string {
	switch v.kind {
	case KindFloat:
		return strconv.FormatFloat(v.AsFloat(), 'g', -1, 64)
	case KindInt:
		return strconv.FormatInt(v.AsInt(), 10)
	case KindUint:
		return strconv.FormatUint(v.bits, 10)
	case KindBool:
		return strconv.FormatBool(v.AsBool())
	default:
		return v.str
	}
}

// A Type is a metric type of Prometheus.
type Type uint8

// The types of metrics.
const (
	Untyped Type = iota
	Gauge
	Counter
)

// String returns the type as written in a TYPE line.
func (t Type) String() string {
	switch t {
	case Gauge:
		return "gauge"
	case Counter:
		return "counter"
	default:
		return "untyped"
	}
}

// A Desc documents one field. It gives the TYPE, HELP and unit of the Prometheus metric,
// and the row in the plugin's README.
type Desc struct {
	Name, Field string // name of the point, key of the field
	Type        Type   // Untyped for string fields, which are not metrics
	Unit        string // "connections", "seconds", "pid"; "" if there is none
	Help        string // one sentence without a final period
}
