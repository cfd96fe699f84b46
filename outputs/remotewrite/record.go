package remotewrite

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"sockwatch/agent/metric"
)

// A record is a point as it waits in the queue: its time in milliseconds, its labels, and a
// sample per numeric field with the type of the metric (g: gauge, c: counter, u: untyped)
// and, for a counter, since when it counts:
//
//	1795341600123 {address="::",port="443"} tcp_listen_backlog=g128 tcp_listen_drops_total=c7@1795341000000
//
// "stale" instead of a value ends a series. Everything that depends on the version of the
// protocol or on the help texts is added when a request is made. A record is text, so that
// the dead-letter file can be read.

// stale is the value that ends a series: the NaN that Prometheus reserves for it.
var stale = math.Float64frombits(0x7ff0000000000002)

// staleText is stale in a record.
const staleText = "stale"

// kinds are the letters of the types of metrics.
var kinds = [...]byte{metric.Untyped: 'u', metric.Gauge: 'g', metric.Counter: 'c'}

// restamp appends a record to dst with another time.
func restamp(dst, record []byte, t time.Time) ([]byte, error) {
	i := bytes.IndexByte(record, ' ')
	if i < 0 {
		return nil, errors.New("the record has no time")
	}
	dst = strconv.AppendInt(dst, t.UnixMilli(), 10)
	return append(dst, record[i:]...), nil
}

// A point is a parsed record. Its slices are parts of the record.
type point struct {
	time    int64
	labels  []byte // with braces
	samples []byte // each behind a space
}

// A sample is one sample of a parsed record.
type sample struct {
	metric []byte
	kind   metric.Type
	value  float64
	start  int64 // of a counter, in milliseconds; 0: unknown
}

// parse splits a record into its parts. next parses the samples, and parseLabels the labels.
func parse(record []byte) (point, error) {
	i := bytes.IndexByte(record, ' ')
	if i < 0 {
		return point{}, errors.New("record: no time")
	}
	t, err := strconv.ParseInt(string(record[:i]), 10, 64)
	if err != nil {
		return point{}, fmt.Errorf("record: time %q is not an integer", record[:i])
	}
	n := labelsLength(record[i+1:])
	if n < 0 {
		return point{}, errors.New("record: labels do not end")
	}
	return point{time: t, labels: record[i+1 : i+1+n], samples: record[i+1+n:]}, nil
}

// timeOf returns the time of a record that parse accepts.
func timeOf(record []byte) int64 {
	p, _ := parse(record)
	return p.time
}

// labelsLength returns the length of the labels that b begins with, or -1.
func labelsLength(b []byte) int {
	if len(b) == 0 || b[0] != '{' {
		return -1
	}
	quoted := false
	for i := 1; i < len(b); i++ {
		switch {
		case quoted && b[i] == '\\':
			i++
		case b[i] == '"':
			quoted = !quoted
		case b[i] == '}' && !quoted:
			return i + 1
		}
	}
	return -1
}

// next parses the first of the samples and removes it. There must be one.
func (p *point) next() (sample, error) {
	if p.samples[0] != ' ' {
		return sample{}, fmt.Errorf("record: %q is not a sample", p.samples)
	}
	text := p.samples[1:]
	if i := bytes.IndexByte(text, ' '); i >= 0 {
		text = text[:i]
	}
	p.samples = p.samples[1+len(text):]
	name, value, ok := bytes.Cut(text, []byte("="))
	if !ok || !isName(name, true) || len(value) < 2 {
		return sample{}, fmt.Errorf("record: %q is not a sample", text)
	}
	kind := slices.Index(kinds[:], value[0])
	if kind < 0 {
		return sample{}, fmt.Errorf("record: %q has an unknown type", text)
	}
	s := sample{metric: name, kind: metric.Type(kind)} //nolint:gosec // an index of kinds
	number, start, hasStart := bytes.Cut(value[1:], []byte("@"))
	var err error
	if s.value, err = parseValue(number); err != nil {
		return sample{}, fmt.Errorf("record: the value of %q is not a number", text)
	}
	if hasStart {
		if s.start, err = strconv.ParseInt(string(start), 10, 64); err != nil {
			return sample{}, fmt.Errorf("record: the start of %q is not an integer", text)
		}
	}
	return s, nil
}

func parseValue(b []byte) (float64, error) {
	if string(b) == staleText {
		return stale, nil
	}
	return strconv.ParseFloat(string(b), 64)
}

// A label is a label of a series.
type label struct{ name, value string }

// parseLabels parses labels in the form of a record. They must be sorted and unique.
func parseLabels(b []byte) ([]label, error) {
	whole := b
	bad := func() ([]label, error) { return nil, fmt.Errorf("record: %q are not labels", whole) }
	if len(b) < 2 || b[0] != '{' || b[len(b)-1] != '}' || !utf8.Valid(b) {
		return bad()
	}
	if b = b[1 : len(b)-1]; len(b) == 0 {
		return nil, nil
	}
	labels := make([]label, 0, bytes.Count(b, []byte(`="`)))
	for {
		name, rest, ok := bytes.Cut(b, []byte(`="`))
		if !ok || !isName(name, false) || len(labels) > 0 && labels[len(labels)-1].name >= string(name) {
			return bad()
		}
		value, rest, ok := unquote(rest)
		if !ok {
			return bad()
		}
		labels = append(labels, label{string(name), value})
		if len(rest) == 0 {
			return labels, nil
		}
		if rest[0] != ',' {
			return bad()
		}
		b = rest[1:]
	}
}

// unquote returns an escaped value up to its closing quote, and what follows.
func unquote(b []byte) (value string, rest []byte, ok bool) {
	end := bytes.IndexAny(b, `"\`)
	if end >= 0 && b[end] == '"' {
		return string(b[:end]), b[end+1:], true
	}
	var plain []byte
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			return string(plain), b[i+1:], true
		case '\\':
			i++
			switch {
			case i < len(b) && (b[i] == '\\' || b[i] == '"'):
				plain = append(plain, b[i])
			case i < len(b) && b[i] == 'n':
				plain = append(plain, '\n')
			default:
				return "", nil, false
			}
		default:
			plain = append(plain, b[i])
		}
	}
	return "", nil, false
}

// isName reports whether b is a classic name of a metric, or of a label.
func isName(b []byte, colon bool) bool {
	for i, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_', '0' <= c && c <= '9' && i > 0, c == ':' && colon:
		default:
			return false
		}
	}
	return len(b) > 0
}
