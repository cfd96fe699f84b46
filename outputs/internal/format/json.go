package format

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sockwatch/agent/metric"
)

// JSON encodes points as JSON objects with Telegraf's keys: name, tags, fields and
// timestamp. Tags and fields are sorted by key. Unsigned integers keep all their digits.
// NaN and infinities are left out, because JSON cannot express them. Strings and numbers
// look as encoding/json writes them without HTML escaping.
type JSON struct {
	timestamp string
	fields    []metric.Field // a buffer for the sorted fields of a point
}

// NewJSON returns an encoder that writes times in timestampFormat.
func NewJSON(timestampFormat string) *JSON { return &JSON{timestamp: timestampFormat} }

// Encode appends p as one JSON object.
func (j *JSON) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	b, err := j.appendPoint(dst, p)
	if err != nil {
		return dst, err
	}
	return b, nil
}

func (j *JSON) appendPoint(b []byte, p *metric.Point) (_ []byte, err error) {
	if b, err = appendJSONString(append(b, `{"name":`...), p.Name); err != nil {
		return b, err
	}
	b = append(b, `,"tags":{`...)
	before := len(b)
	for i, t := range p.Tags {
		if i > 0 && p.Tags[i-1].Key >= t.Key {
			return b, errTagOrder
		}
		if t.Value == "" {
			continue
		}
		if b, err = appendJSONKey(b, t.Key, len(b) == before); err != nil {
			return b, err
		}
		if b, err = appendJSONString(b, t.Value); err != nil {
			return b, err
		}
	}
	b = append(b, `},"fields":{`...)
	before = len(b)
	for _, f := range j.sorted(p.Fields) {
		if v := f.Value; v.Kind() == metric.KindFloat && (math.IsNaN(v.AsFloat()) || math.IsInf(v.AsFloat(), 0)) {
			continue
		}
		if b, err = appendJSONKey(b, f.Key, len(b) == before); err != nil {
			return b, err
		}
		if b, err = appendJSONValue(b, f.Value); err != nil {
			return b, err
		}
	}
	b = append(b, `},"timestamp":`...)
	return j.appendEnd(b, p.Time)
}

// Restamp appends an object that Encode made, with another time.
func (j *JSON) Restamp(dst, object []byte, t time.Time) ([]byte, error) {
	colon := bytes.LastIndex(object, []byte(`":`)) + 1 // a time never contains ":
	b, err := j.appendEnd(append(dst, object[:colon+1]...), t)
	if err != nil {
		return dst, err
	}
	return b, nil
}

// appendEnd appends the value of timestamp and the end of the object.
func (j *JSON) appendEnd(b []byte, t time.Time) ([]byte, error) {
	if t.IsZero() {
		return b, errNoTime
	}
	switch j.timestamp {
	case "unix":
		b = strconv.AppendInt(b, t.Unix(), 10)
	case "unix_ms":
		b = strconv.AppendInt(b, t.UnixMilli(), 10)
	case "unix_us":
		b = strconv.AppendInt(b, t.UnixMicro(), 10)
	case "unix_ns":
		if y := t.Year(); y < 1678 || y > 2261 {
			return b, errTimeRange
		}
		b = strconv.AppendInt(b, t.UnixNano(), 10)
	default:
		t = t.UTC()
		if y := t.Year(); y < 0 || y > 9999 {
			return b, errTimeRange
		}
		b = t.AppendFormat(b, rfc3339)
	}
	return append(b, '}'), nil
}

// rfc3339 always has nine digits, so that lines sorted as text are sorted by time.
const rfc3339 = `"2006-01-02T15:04:05.000000000Z"`

// sorted returns fields sorted by key. The result is valid until the next call.
func (j *JSON) sorted(fields []metric.Field) []metric.Field {
	byKey := func(a, b metric.Field) int { return strings.Compare(a.Key, b.Key) }
	if slices.IsSortedFunc(fields, byKey) {
		return fields
	}
	j.fields = append(j.fields[:0], fields...)
	slices.SortFunc(j.fields, byKey)
	return j.fields
}

func appendJSONKey(b []byte, key string, first bool) ([]byte, error) {
	if !first {
		b = append(b, ',')
	}
	b, err := appendJSONString(b, key)
	return append(b, ':'), err
}

func appendJSONValue(b []byte, v metric.Value) ([]byte, error) {
	switch v.Kind() {
	case metric.KindFloat:
		return appendJSONFloat(b, v.AsFloat()), nil
	case metric.KindInt:
		return strconv.AppendInt(b, v.AsInt(), 10), nil
	case metric.KindUint:
		return strconv.AppendUint(b, v.AsUint(), 10), nil
	case metric.KindBool:
		return strconv.AppendBool(b, v.AsBool()), nil
	default:
		return appendJSONString(b, v.AsString())
	}
}

// appendJSONFloat appends a finite float as ECMAScript and encoding/json write it: with an
// exponent if it is very small or very large.
func appendJSONFloat(b []byte, f float64) []byte {
	if abs := math.Abs(f); abs == 0 || abs >= 1e-6 && abs < 1e21 {
		return strconv.AppendFloat(b, f, 'f', -1, 64)
	}
	b = strconv.AppendFloat(b, f, 'e', -1, 64)
	if n := len(b); b[n-4] == 'e' && b[n-3] == '-' && b[n-2] == '0' { // e-09 becomes e-9
		b[n-2] = b[n-1]
		b = b[:n-1]
	}
	return b
}

// appendJSONString appends s in quotes. Invalid UTF-8 is an error: encoding/json would
// replace it, and two names could become the same.
func appendJSONString(b []byte, s string) ([]byte, error) {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	from := 0 // s[from:] is not appended yet
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				return b, errNotUTF8
			case r == '\u2028' || r == '\u2029': // line ends in JavaScript
				b = append(append(b, s[from:i]...), '\\', 'u', '2', '0', '2', hex[r&0xf])
				from = i + n
			}
			i += n
			continue
		}
		if c < ' ' || c == '"' || c == '\\' {
			b = append(b, s[from:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\b':
				b = append(b, '\\', 'b')
			case '\f':
				b = append(b, '\\', 'f')
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
			}
			from = i + 1
		}
		i++
	}
	return append(append(b, s[from:]...), '"'), nil
}
