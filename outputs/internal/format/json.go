package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"time"
	"unicode/utf8"

	"sockwatch/agent/metric"
)

// JSON writes points as JSON objects with Telegraf's keys: name, tags, fields and
// timestamp. Tags and fields are sorted by key; unsigned integers are written
// whole; NaN and infinities, which JSON lacks, are left out.
type JSON struct {
	timestamp string
	buf       bytes.Buffer
	enc       *json.Encoder
	line      jsonLine
}

type jsonLine struct {
	Name      string            `json:"name"`
	Tags      map[string]string `json:"tags"`
	Fields    map[string]any    `json:"fields"`
	Timestamp any               `json:"timestamp"`
}

// NewJSON returns an encoder that writes times as timestampFormat says.
func NewJSON(timestampFormat string) *JSON {
	j := &JSON{
		timestamp: timestampFormat,
		line:      jsonLine{Tags: map[string]string{}, Fields: map[string]any{}},
	}
	j.enc = json.NewEncoder(&j.buf)
	j.enc.SetEscapeHTML(false)
	return j
}

// Append appends p as one JSON object.
func (j *JSON) Append(dst []byte, p *metric.Point) ([]byte, error) {
	if !isUTF8(p) {
		return dst, errNotUTF8
	}
	j.line.Name = p.Name
	clear(j.line.Tags)
	for _, t := range p.Tags {
		if t.Value != "" {
			j.line.Tags[t.Key] = t.Value
		}
	}
	clear(j.line.Fields)
	for _, f := range p.Fields {
		if v, ok := jsonValue(f.Value); ok {
			j.line.Fields[f.Key] = v
		}
	}
	var err error
	if j.line.Timestamp, err = j.time(p.Time); err != nil {
		return dst, err
	}
	j.buf.Reset()
	if err := j.enc.Encode(&j.line); err != nil {
		return dst, err
	}
	return append(dst, bytes.TrimSuffix(j.buf.Bytes(), []byte{'\n'})...), nil
}

// isUTF8 reports whether all strings are: encoding/json would replace what is not,
// and two names might become one.
func isUTF8(p *metric.Point) bool {
	ok := utf8.ValidString(p.Name)
	for _, t := range p.Tags {
		ok = ok && utf8.ValidString(t.Key) && utf8.ValidString(t.Value)
	}
	for _, f := range p.Fields {
		ok = ok && utf8.ValidString(f.Key) && utf8.ValidString(f.Value.AsString())
	}
	return ok
}

func jsonValue(v metric.Value) (any, bool) {
	switch v.Kind() {
	case metric.KindFloat:
		f := v.AsFloat()
		return f, !math.IsNaN(f) && !math.IsInf(f, 0)
	case metric.KindInt:
		return v.AsInt(), true
	case metric.KindUint:
		return v.AsUint(), true
	case metric.KindBool:
		return v.AsBool(), true
	default:
		return v.AsString(), true
	}
}

var (
	errEmpty     = errors.New("empty")
	errNotUTF8   = errors.New("not UTF-8")
	errNoTime    = errors.New("no time")
	errTimeRange = errors.New("the time cannot be written")
)

func (j *JSON) time(t time.Time) (any, error) {
	if t.IsZero() {
		return nil, errNoTime
	}
	switch j.timestamp {
	case "unix":
		return t.Unix(), nil
	case "unix_ms":
		return t.UnixMilli(), nil
	case "unix_us":
		return t.UnixMicro(), nil
	case "unix_ns":
		if y := t.Year(); y < 1678 || y > 2261 {
			return nil, errTimeRange
		}
		return t.UnixNano(), nil
	default:
		t = t.UTC()
		if y := t.Year(); y < 0 || y > 9999 {
			return nil, errTimeRange
		}
		return t.Format(time.RFC3339Nano), nil
	}
}
