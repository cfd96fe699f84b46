package format

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/influxdata/line-protocol/v2/lineprotocol"

	"sockwatch/agent/metric"
)

// LineProtocol writes points as InfluxDB's line protocol, by the encoder of
// line-protocol v2. Times are in nanoseconds. All integers have the suffix "i",
// since InfluxDB 1.x refuses "u"; an unsigned one above 2^63-1 is written as
// 2^63-1. NaN and infinities are left out, and a point that has no other fields is
// an error. What line protocol cannot carry in a string is escaped: see carried.
// The zero value is ready to use.
type LineProtocol struct{ enc lineprotocol.Encoder }

var errNoFields = errors.New("no field that line protocol can carry")

// Append appends p as one line.
func (l *LineProtocol) Append(dst []byte, p *metric.Point) ([]byte, error) {
	if p.Time.IsZero() {
		return dst, errNoTime
	}
	e := &l.enc
	e.SetLax(true) // carried checks what a strict encoder would
	e.SetBuffer(dst)
	name, err := carried(p.Name)
	if err != nil {
		return dst, fmt.Errorf("name: %w", err)
	}
	if name[0] == '#' { // it would begin a comment
		name = `\X23` + name[1:]
	}
	e.StartLine(name)
	for i, t := range p.Tags {
		if t.Value == "" {
			continue
		}
		if i > 0 && p.Tags[i-1].Key >= t.Key {
			return dst, errTagOrder
		}
		key, err := carried(t.Key)
		if err != nil {
			return dst, fmt.Errorf("tag key: %w", err)
		}
		value, err := carried(t.Value)
		if err != nil {
			return dst, fmt.Errorf("tag %s: %w", t.Key, err)
		}
		e.AddTag(key, value)
	}
	fields := 0
	for _, f := range p.Fields {
		value, ok := lineValue(f.Value)
		if !ok {
			if f.Value.Kind() == metric.KindString {
				return dst, fmt.Errorf("field %s: %w", f.Key, errNotUTF8)
			}
			continue // NaN or infinite
		}
		key, err := carriedBy(f.Key, escapesInFieldKey)
		if err != nil {
			return dst, fmt.Errorf("field key: %w", err)
		}
		e.AddField(key, value)
		fields++
	}
	if fields == 0 {
		return dst, errNoFields
	}
	e.EndLine(p.Time)
	if err := e.Err(); err != nil {
		return dst, err
	}
	line := e.Bytes()
	return line[:len(line)-1], nil // without the newline
}

// Restamp appends a line that Append made, with another time.
func (l *LineProtocol) Restamp(dst, line []byte, t time.Time) ([]byte, error) {
	switch {
	case t.IsZero():
		return dst, errNoTime
	case t.Before(time.Unix(0, math.MinInt64)) || t.After(time.Unix(0, math.MaxInt64)):
		return dst, errTimeRange
	}
	dst = append(dst, line[:bytes.LastIndexByte(line, ' ')+1]...)
	return strconv.AppendInt(dst, t.UnixNano(), 10), nil
}

// lineValue returns the value as line protocol has it; false where it has none.
func lineValue(v metric.Value) (lineprotocol.Value, bool) {
	switch v.Kind() {
	case metric.KindFloat:
		return lineprotocol.FloatValue(v.AsFloat())
	case metric.KindInt:
		return lineprotocol.IntValue(v.AsInt()), true
	case metric.KindUint:
		return lineprotocol.IntValue(int64(min(v.AsUint(), math.MaxInt64))), true
	case metric.KindBool:
		return lineprotocol.BoolValue(v.AsBool()), true
	default:
		return lineprotocol.StringValue(carriedString(v.AsString()))
	}
}

// carried returns a name, key or tag value as line protocol can carry it. It has
// no place for control characters, and servers disagree on a backslash that is
// the last byte, or before one that line protocol escapes itself: these bytes are
// written as \XHH, in the manner of the \xHH in which inputs escape the names
// that they find; the capital tells one from the other. A backslash before an X
// is escaped too, so that no two strings become one. All others, so what an input
// escaped and systemd's own \x2d, stay as they are. Empty strings and what is not
// UTF-8 are errors.
func carried(s string) (string, error) { return carriedBy(s, escapes) }

func carriedBy(s string, must func(string, int) bool) (string, error) {
	if s == "" {
		return "", errEmpty
	}
	ascii := true
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			ascii = false
		} else if suspect(s[i]) && must(s, i) {
			s, ascii = escape(s, i, must), false
			break
		}
	}
	if !ascii && !utf8.ValidString(s) {
		return "", errNotUTF8
	}
	return s, nil
}

// carriedString returns a string field's value: line protocol quotes it, so that
// only control characters (a newline would tear the line) and what \XHH itself
// needs are escaped.
func carriedString(s string) string {
	for i := 0; i < len(s); i++ {
		if suspect(s[i]) && escapesInString(s, i) {
			return escape(s, i, escapesInString)
		}
	}
	return s
}

// suspect reports whether b is a byte that may have to be escaped.
func suspect(b byte) bool { return b < ' ' || b == 0x7f || b == '\\' }

// escapes reports whether the suspect byte s[i] is escaped in names, keys and tag
// values.
func escapes(s string, i int) bool {
	if s[i] != '\\' || i+1 == len(s) {
		return true
	}
	switch next := s[i+1]; next {
	case ',', '=', ' ', 'X':
		return true
	default:
		return suspect(next)
	}
}

// escapesInFieldKey reports whether the suspect byte s[i] is escaped in a field key:
// there InfluxDB 1.x and 2.x read \" as " (pkg/escape of influxdb).
func escapesInFieldKey(s string, i int) bool {
	return escapes(s, i) || s[i+1] == '"'
}

// escapesInString reports whether the suspect byte s[i] is escaped in the value of
// a string field.
func escapesInString(s string, i int) bool {
	return s[i] != '\\' || i+1 < len(s) && s[i+1] == 'X'
}

// escape escapes what must be from s[i] on.
func escape(s string, i int, must func(string, int) bool) string {
	out := append(make([]byte, 0, len(s)+16), s[:i]...)
	for ; i < len(s); i++ {
		if suspect(s[i]) && must(s, i) {
			out = fmt.Appendf(out, `\X%02X`, s[i])
		} else {
			out = append(out, s[i])
		}
	}
	return string(out)
}
