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

// LineProtocol encodes points as InfluxDB line protocol, with the encoder of line-protocol
// v2. Times are in nanoseconds. All integers have the suffix "i", because InfluxDB 1.x
// refuses "u"; an unsigned integer above 2^63-1 becomes 2^63-1. NaN and infinities are left
// out, and a point that has no other field is an error. Characters that line protocol cannot
// express are escaped, see escapeName. The zero value is ready to use.
type LineProtocol struct{ enc lineprotocol.Encoder }

var errNoFields = errors.New("no field that line protocol can express")

// Encode appends p as one line.
func (l *LineProtocol) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	if p.Time.IsZero() {
		return dst, errNoTime
	}
	e := &l.enc
	e.SetLax(true) // escapeName checks what a strict encoder would
	e.SetBuffer(dst)
	name, err := escapeName(p.Name)
	if err != nil {
		return dst, fmt.Errorf("name: %w", err)
	}
	if name[0] == '#' { // it would start a comment
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
		key, err := escapeName(t.Key)
		if err != nil {
			return dst, fmt.Errorf("tag key: %w", err)
		}
		value, err := escapeName(t.Value)
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
		key, err := escapeWith(f.Key, escapesInFieldKey)
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

// lineValue returns the value for line protocol, or false if it cannot be expressed.
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
		return lineprotocol.StringValue(escapeString(v.AsString()))
	}
}

// escapeName returns a name, key or tag value in a form that line protocol can express.
// These bytes become \XHH:
//
//   - control characters, for which line protocol has no escape
//   - a backslash that is the last byte, or that precedes a byte that line protocol itself
//     escapes, because servers disagree on what it means
//   - a backslash before an X, so that different strings stay different
//
// The capital X tells this apart from \xHH, which inputs use for names that they find. All
// other backslashes stay, among them those of inputs and systemd's own \x2d. An empty string
// and invalid UTF-8 are errors.
func escapeName(s string) (string, error) { return escapeWith(s, escapes) }

func escapeWith(s string, must func(string, int) bool) (string, error) {
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

// escapeString returns the value of a string field. Line protocol puts it in quotes, so
// only control characters (a newline would break the line) and a backslash before an X are
// escaped.
func escapeString(s string) string {
	for i := 0; i < len(s); i++ {
		if suspect(s[i]) && escapesInString(s, i) {
			return escape(s, i, escapesInString)
		}
	}
	return s
}

// suspect reports whether b is a byte that may have to be escaped.
func suspect(b byte) bool { return b < ' ' || b == 0x7f || b == '\\' }

// escapes reports whether the suspect byte s[i] must be escaped in a name, tag key or tag
// value.
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

// escapesInFieldKey reports whether the suspect byte s[i] must be escaped in a field key,
// where InfluxDB 1.x and 2.x also read \" as " (pkg/escape of influxdb).
func escapesInFieldKey(s string, i int) bool {
	return escapes(s, i) || s[i+1] == '"'
}

// escapesInString reports whether the suspect byte s[i] must be escaped in the value of a
// string field.
func escapesInString(s string, i int) bool {
	return s[i] != '\\' || i+1 < len(s) && s[i+1] == 'X'
}

// escape escapes the bytes from s[i] on for which must returns true.
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
