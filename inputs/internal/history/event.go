package history

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"sockwatch/agent/metric"
)

// An event is a point with its sequence number. The slice of its fields may be replaced, but
// is never modified.
type event struct {
	sequence int64
	point    metric.Point
	state    state
}

// A state is the progress of an event.
type state int

const (
	unwritten state = iota
	ready           // to be handed out
	handedOut
	finished // delivered or dropped
)

// copyEvents returns copies, which the content does not modify.
func copyEvents(events []*event) (copies []event) {
	for _, e := range events {
		copies = append(copies, *e)
	}
	return copies
}

// inState returns copies in a state.
func inState(s state, events []event) (copies []*event) {
	for _, e := range events {
		e.state = s
		copies = append(copies, &e)
	}
	return copies
}

// append appends the event without its state. The order and types of fields are preserved:
// each field is an object with its key and a member that is named after its type.
func (e *event) append(b []byte) []byte {
	p := &e.point
	b = append(strconv.AppendInt(append(b, `{"sequence":`...), e.sequence, 10), `,"time":"`...)
	b = append(p.Time.AppendFormat(b, time.RFC3339Nano), `","name":`...)
	b = append(appendString(b, p.Name), ',')
	if len(p.Tags) > 0 {
		b = append(appendKey(b, "tags"), '{')
		for _, t := range p.Tags {
			b = append(appendString(append(appendString(b, t.Key), ':'), t.Value), ',')
		}
		b = end(b, '}')
	}
	b = append(b, `"fields":[`...)
	for _, f := range p.Fields {
		b = append(appendString(append(b, `{"key":`...), f.Key), ',')
		b = append(appendValue(b, f.Value), "},"...)
	}
	return end(end(b, ']'), '}')
}

func appendValue(b []byte, v metric.Value) []byte {
	switch v.Kind() {
	case metric.KindInt:
		return strconv.AppendInt(appendKey(b, "int"), v.AsInt(), 10)
	case metric.KindUint:
		return strconv.AppendUint(appendKey(b, "uint"), v.AsUint(), 10)
	case metric.KindBool:
		return strconv.AppendBool(appendKey(b, "bool"), v.AsBool())
	case metric.KindString:
		return appendString(appendKey(b, "string"), v.AsString())
	default: // as a string, since JSON has no NaN
		return appendString(appendKey(b, "float"), strconv.FormatFloat(v.AsFloat(), 'g', -1, 64))
	}
}

// UnmarshalJSON reads what append has written, and checks it.
func (e *event) UnmarshalJSON(text []byte) error {
	var saved struct {
		Sequence int64
		Time     time.Time
		Name     string
		Tags     map[string]string
		Fields   []savedField
	}
	if err := json.Unmarshal(text, &saved); err != nil {
		return err
	}
	p := metric.Point{Name: saved.Name, Time: saved.Time.UTC()}
	for _, key := range slices.Sorted(maps.Keys(saved.Tags)) {
		p.Tags = append(p.Tags, metric.Tag{Key: key, Value: saved.Tags[key]})
	}
	for _, f := range saved.Fields {
		v, err := f.value()
		if err != nil {
			return fmt.Errorf("event %d: %w", saved.Sequence, err)
		}
		p.Fields = append(p.Fields, metric.Field{Key: f.Key, Value: v})
	}
	if err := p.Check(); err != nil {
		return fmt.Errorf("event %d: %w", saved.Sequence, err)
	}
	if p.Time.IsZero() {
		return fmt.Errorf("event %d has no time", saved.Sequence)
	}
	*e = event{sequence: saved.Sequence, point: p}
	return nil
}

// A savedField has exactly one of its values set.
type savedField struct {
	Key    string
	Float  *string
	Int    *int64
	Uint   *uint64
	Bool   *bool
	String *string
}

func (f *savedField) value() (metric.Value, error) {
	switch {
	case f.Int != nil:
		return metric.Int(*f.Int), nil
	case f.Uint != nil:
		return metric.Uint(*f.Uint), nil
	case f.Bool != nil:
		return metric.Bool(*f.Bool), nil
	case f.String != nil:
		return metric.String(*f.String), nil
	case f.Float != nil:
		v, err := strconv.ParseFloat(*f.Float, 64)
		return metric.Float(v), err
	}
	return metric.Value{}, fmt.Errorf("field %q has no value", f.Key)
}
