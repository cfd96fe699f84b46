package changes

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/jsonappend"
)

// encode returns a record that exists only once. It cannot fail: records contain nothing
// that JSON cannot represent.
func encode(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// encode returns a record of an endpoint.
func (l *scan) encode(r *record) json.RawMessage {
	l.scratch = r.append(l.scratch[:0])
	return slices.Clone(l.scratch)
}

// append appends the record in the form that encoding/json reads. A record is written for
// each change, so its common parts are not left to encoding/json, which is many times slower.
func (r *record) append(b []byte) []byte {
	b = append(b, '{')
	b = appendBool(b, "new", r.Unreported)
	b = appendBool(b, "returned", r.Returns)
	b = appendInt(b, "f", r.FirstSeen)
	b = appendInt(b, "c", r.Changed)
	b = append(b, `"o":[`...)
	for i := range r.Owners {
		b = r.Owners[i].append(b)
	}
	b = jsonappend.End(b, ']')
	b = append(b, `"s":[`...)
	for i := range r.Sockets {
		b = r.Sockets[i].append(b)
	}
	b = jsonappend.End(b, ']')
	b = append(b, `"e":{`...)
	b = appendInt(b, "told", int64(r.Exposure.Reported))
	b = appendBool(b, "known", r.Exposure.Known)
	b = appendInt(b, "next", int64(r.Exposure.Next))
	if r.Exposure.Since != nil {
		b = appendAny(b, "since", r.Exposure.Since)
	}
	b = jsonappend.End(b, '}')
	if r.Gone != nil {
		b = appendAny(b, "gone", r.Gone)
	}
	if r.Change != nil {
		b = appendAny(b, "change", r.Change)
	}
	if r.Lost != nil {
		b = appendAny(b, "lost", r.Lost)
	}
	b = jsonappend.End(b, '}')
	return b[:len(b)-1]
}

func (o *owner) append(b []byte) []byte {
	b = append(b, `{"k":[`...)
	for i := range o.Keys {
		k := &o.Keys[i]
		b = append(b, '{')
		b = appendString(b, "p", k.Process)
		b = appendInt(b, "u", int64(k.UID))
		b = appendString(b, "unit", k.Unit)
		b = appendString(b, "user_unit", k.UserUnit)
		b = appendBool(b, "c", k.InContainer)
		b = jsonappend.End(b, '}')
	}
	b = jsonappend.End(b, ']')
	b = appendInt(b, "f", o.FirstSeen)
	b = append(b, `"s":`...)
	b = o.Shown.append(b)
	if o.Reported != nil {
		b = append(b, `"b":`...)
		b = o.Reported.append(b)
	}
	return jsonappend.End(b, '}')
}

func (s *shown) append(b []byte) []byte {
	b = append(b, '{')
	b = appendInt(b, "u", int64(s.UID))
	b = appendInt(b, "l", int64(s.Listen))
	b = append(b, `"p":`...)
	b = s.Process.append(b)
	f := &s.Facts
	b = append(b, `"f":{`...)
	b = appendString(b, "exe", f.Exe)
	b = appendBool(b, "deleted", f.ExeDeleted)
	b = appendString(b, "sha256", f.ExeSHA256)
	if !f.Start.IsZero() {
		b = append(b, `"start":"`...)
		b = f.Start.AppendFormat(b, time.RFC3339Nano)
		b = append(b, `",`...)
	}
	b = append(b, `"parent":{`...)
	b = appendInt(b, "pid", int64(f.Parent.PID))
	b = appendString(b, "process", f.Parent.Process)
	b = appendString(b, "exe", f.Parent.Exe)
	b = jsonappend.End(b, '}')
	b = appendInt(b, "login", int64(f.LoginUID))
	b = appendBool(b, "has_login", f.HasLoginUID)
	b = appendString(b, "cmdline", f.Cmdline)
	b = jsonappend.End(b, '}')
	b = appendTags(b, s.Tags)
	b = append(b, `"v":{`...)
	b = appendString(b, "expected", s.Verdict.Expected)
	b = appendString(b, "rule", s.Verdict.Rule)
	b = appendString(b, "why", s.Verdict.Why)
	b = jsonappend.End(b, '}')
	return jsonappend.End(b, '}')
}

func appendTags(b []byte, tags []metric.Tag) []byte {
	b = append(b, `"t":[`...)
	for _, t := range tags {
		b = append(b, '{')
		b = appendString(b, "Key", t.Key)
		b = appendString(b, "Value", t.Value)
		b = jsonappend.End(b, '}')
	}
	return jsonappend.End(b, ']')
}

func (s *socket) append(b []byte) []byte {
	b = append(b, `{"i":{`...)
	b = appendUint(b, "n", s.ID.Netns)
	b = appendUint(b, "c", s.ID.Cookie)
	b = appendUint(b, "i", s.ID.Inode)
	b = jsonappend.End(b, '}')
	b = appendInt(b, "o", int64(s.Owner))
	b = append(b, `"p":[`...)
	for _, p := range s.Processes {
		b = p.append(b)
	}
	b = jsonappend.End(b, ']')
	b = appendBool(b, "t", s.Reported)
	b = appendBool(b, "a", s.Activated)
	return jsonappend.End(b, '}')
}

func (p process) append(b []byte) []byte {
	b = append(b, '{')
	b = appendInt(b, "p", int64(p.PID))
	b = appendUint(b, "s", p.Start)
	return jsonappend.End(b, '}')
}

func appendInt(b []byte, key string, v int64) []byte {
	if v == 0 {
		return b
	}
	return append(strconv.AppendInt(jsonappend.Key(b, key), v, 10), ',')
}

func appendUint(b []byte, key string, v uint64) []byte {
	if v == 0 {
		return b
	}
	return append(strconv.AppendUint(jsonappend.Key(b, key), v, 10), ',')
}

func appendBool(b []byte, key string, v bool) []byte {
	if !v {
		return b
	}
	return append(jsonappend.Key(b, key), "true,"...)
}

func appendString(b []byte, key, v string) []byte {
	if v == "" {
		return b
	}
	return append(jsonappend.String(jsonappend.Key(b, key), v), ',')
}

func appendAny(b []byte, key string, v any) []byte {
	return append(append(jsonappend.Key(b, key), encode(v)...), ',')
}
