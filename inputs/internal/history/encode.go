package history

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// The lines are encoded without encoding/json, which takes several times as long: a deploy
// that restarts thousands of services results in one line with thousands of records and
// events. The output can be decoded by encoding/json, and contains no newline.

// append appends the members of a line, without the enclosing braces.
func (l *line) append(b []byte) []byte {
	if s := l.Snapshot; s != nil {
		b = append(appendKey(b, "snapshot"), '{')
		b = append(strconv.AppendInt(appendKey(b, "version"), int64(s.Version), 10), ',')
		b = appendText(b, "machine_id", s.Machine)
		b = append(appendString(appendKey(b, "history"), s.ID), ',')
		b = append(strconv.AppendInt(appendKey(b, "sequence"), s.Sequence, 10), ',')
		b = appendRecords(b, "records", s.Records)
		b = appendEvents(b, "waiting", s.Waiting)
		b = appendEvents(b, "recent", s.Recent)
		b = end(b, '}')
	}
	b = appendText(b, "history", l.ID)
	if l.Sequence != 0 {
		b = append(strconv.AppendInt(appendKey(b, "sequence"), l.Sequence, 10), ',')
	}
	b = appendRecords(b, "set", l.Set)
	b = appendEvents(b, "events", l.Events)
	if len(l.Delivered) > 0 {
		b = append(appendKey(b, "delivered"), '[')
		for _, r := range l.Delivered {
			b = append(strconv.AppendInt(append(b, '['), r[0], 10), ',')
			b = append(strconv.AppendInt(b, r[1], 10), "],"...)
		}
		b = end(b, ']')
	}
	if n := len(b); n > 0 && b[n-1] == ',' {
		b = b[:n-1]
	}
	return b
}

// size estimates the length of the line, so that its buffer need not grow repeatedly.
func (l *line) size() int {
	const event = 1024
	n := 512 + event*len(l.Events)
	for key, record := range l.Set {
		n += len(key) + len(record) + 8
	}
	if s := l.Snapshot; s != nil {
		n += event * (len(s.Waiting) + len(s.Recent))
		for key, record := range s.Records {
			n += len(key) + len(record) + 8
		}
	}
	return n
}

func appendRecords(b []byte, key string, records map[string]json.RawMessage) []byte {
	if len(records) == 0 {
		return b
	}
	b = append(appendKey(b, key), '{')
	for _, name := range slices.Sorted(maps.Keys(records)) {
		b = append(appendString(b, name), ':')
		if record := records[name]; record != nil {
			b = append(b, record...)
		} else {
			b = append(b, "null"...)
		}
		b = append(b, ',')
	}
	return end(b, '}')
}

func appendEvents(b []byte, key string, events []savedEvent) []byte {
	if len(events) == 0 {
		return b
	}
	b = append(appendKey(b, key), '[')
	for i := range events {
		b = events[i].append(b)
	}
	return end(b, ']')
}

func (s *savedEvent) append(b []byte) []byte {
	b = append(strconv.AppendInt(append(b, `{"sequence":`...), s.Sequence, 10), `,"time":"`...)
	b = append(s.Time.AppendFormat(b, time.RFC3339Nano), `","name":`...)
	b = append(appendString(b, s.Name), ',')
	if len(s.Tags) > 0 {
		b = append(appendKey(b, "tags"), '{')
		for _, key := range slices.Sorted(maps.Keys(s.Tags)) {
			b = append(appendString(append(appendString(b, key), ':'), s.Tags[key]), ',')
		}
		b = end(b, '}')
	}
	b = append(b, `"fields":[`...)
	for i := range s.Fields {
		b = s.Fields[i].append(b)
	}
	return end(end(b, ']'), '}')
}

func (f *savedField) append(b []byte) []byte {
	b = append(appendString(append(b, `{"key":`...), f.Key), ',')
	if f.Float != nil {
		b = append(appendString(appendKey(b, "float"), *f.Float), ',')
	}
	if f.Int != nil {
		b = append(strconv.AppendInt(appendKey(b, "int"), *f.Int, 10), ',')
	}
	if f.Uint != nil {
		b = append(strconv.AppendUint(appendKey(b, "uint"), *f.Uint, 10), ',')
	}
	if f.Bool != nil {
		b = append(strconv.AppendBool(appendKey(b, "bool"), *f.Bool), ',')
	}
	if f.String != nil {
		b = append(appendString(appendKey(b, "string"), *f.String), ',')
	}
	return end(b, '}')
}

// end closes an object or array and appends a comma. Every member ends with a comma, and end
// removes the one after the last member.
func end(b []byte, bracket byte) []byte {
	if b[len(b)-1] == ',' {
		b = b[:len(b)-1]
	}
	return append(b, bracket, ',')
}

func appendKey(b []byte, key string) []byte {
	return append(append(append(b, '"'), key...), `":`...)
}

// appendText appends a member unless its value is "".
func appendText(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return append(appendString(appendKey(b, key), value), ',')
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			text, err := json.Marshal(s)
			if err != nil {
				panic(err) // cannot happen: every string can be encoded
			}
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
