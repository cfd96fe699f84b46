package changes

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/inet"
)

// The values of the tag event.
const (
	opened          = "opened"
	returned        = "returned"
	closed          = "closed"
	restarted       = "restarted"
	ownerChanged    = "owner_changed"
	exposureChanged = "exposure_changed"
)

// kinds are all values of the tag event, in the order of the documentation.
func kinds() []string {
	return []string{opened, returned, closed, restarted, ownerChanged, exposureChanged}
}

// An event is one that a scan reports, before it becomes a point.
type event struct {
	endpoint Endpoint
	kind     string
	mark     mark
	shown    shown
	exposure inet.Class
	fields   []metric.Field // specific to this kind
	count    int            // number of events that it represents, if more than one
}

// report adds an event of an endpoint.
func (l *scan) report(e *endpoint, kind string, at mark, s shown, fields ...metric.Field) {
	l.events = append(l.events, &event{
		endpoint: e.Endpoint, kind: kind, mark: at, shown: s, exposure: e.Exposure.Reported, fields: fields,
	})
	l.totals.add(kind, s.Verdict.Expected)
	if kind != exposureChanged {
		e.event = l.Number
	}
}

// points returns the events of the scan in order.
func (l *scan) points() []metric.Point {
	if len(l.events) == 0 {
		return nil
	}
	slices.SortStableFunc(l.events, func(a, b *event) int { return a.endpoint.compare(b.endpoint) })
	events := l.events
	if l.started || l.before.Number == 0 {
		events = limit(events, l.options.MaxPerUser)
	}
	points := make([]metric.Point, len(events))
	for i := range events {
		points[i] = events[i].point(l.options.Point + "_event")
	}
	return points
}

// limit keeps at most that many opened, returned and closed events each for a user: unexpected
// ones first, then those with the widest exposure. One more event represents the rest.
func limit(events []*event, most int) []*event {
	type group struct {
		uid  uint32
		kind string
	}
	members := make(map[group][]int)
	for i := range events {
		switch kind := events[i].kind; kind {
		case opened, returned, closed:
			g := group{events[i].shown.UID, kind}
			members[g] = append(members[g], i)
		}
	}
	folded := make([]bool, len(events))
	var rest []*event
	for g, indexes := range members {
		if len(indexes) <= most {
			continue
		}
		slices.SortStableFunc(indexes, func(i, j int) int { return events[i].compareImportance(events[j]) })
		first := events[indexes[most]]
		for _, i := range indexes[most:] {
			folded[i] = true
		}
		rest = append(rest, &event{
			kind: g.kind, mark: first.mark, count: len(indexes) - most,
			shown: shown{UID: g.uid, Tags: userTag(first.shown.Tags)},
		})
	}
	if rest == nil {
		return events
	}
	var kept []*event
	for i := range events {
		if !folded[i] {
			kept = append(kept, events[i])
		}
	}
	slices.SortFunc(rest, func(a, b *event) int {
		return cmp.Or(cmp.Compare(a.shown.UID, b.shown.UID), strings.Compare(a.kind, b.kind))
	})
	return append(kept, rest...)
}

func (e *event) compareImportance(other *event) int {
	return cmp.Or(
		cmp.Compare(btoi(e.shown.Verdict.Expected == "yes"), btoi(other.shown.Verdict.Expected == "yes")),
		-cmp.Compare(e.exposure, other.exposure),
	)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func userTag(tags []metric.Tag) []metric.Tag {
	i := slices.IndexFunc(tags, func(t metric.Tag) bool { return t.Key == "user" })
	if i < 0 {
		return nil
	}
	return tags[i : i+1]
}

// point returns the event as a point.
func (e *event) point(name string) metric.Point {
	p := metric.Point{Name: name, Time: e.mark.Time}
	p.Tags = append(make([]metric.Tag, 0, len(e.shown.Tags)+2), e.shown.Tags...)
	p.Tags = append(p.Tags, metric.Tag{Key: "event", Value: e.kind})
	if e.shown.Verdict.Expected != "" {
		p.Tags = append(p.Tags, metric.Tag{Key: "expected", Value: e.shown.Verdict.Expected})
	}
	metric.SortTags(p.Tags)
	p.Fields = e.shown.appendFields(make([]metric.Field, 0, 12+len(e.fields)))
	p.Fields = append(p.Fields,
		metric.Field{Key: "while_down", Value: metric.Bool(e.mark.WhileDown)},
		metric.Field{Key: "window_seconds", Value: metric.Float(round(e.mark.Window))})
	if e.count > 0 {
		p.Fields = append(p.Fields, metric.Field{Key: "count", Value: metric.Int(int64(e.count))})
	}
	p.Fields = append(p.Fields, e.fields...)
	return p
}

// Fields returns the fields that an event of the socket would have for its named holder.
func (s *Socket) Fields() []metric.Field {
	v := s.shown()
	return v.appendFields(nil)
}

// appendFields appends the fields that all kinds of events have.
func (s *shown) appendFields(fields []metric.Field) []metric.Field {
	add := func(key string, value metric.Value) { fields = append(fields, metric.Field{Key: key, Value: value}) }
	text := func(key, value string) {
		if value != "" {
			add(key, metric.String(value))
		}
	}
	add("uid", metric.Uint(uint64(s.UID)))
	if s.Listen != 0 {
		add("listen_pid", metric.Int(int64(s.Listen)))
	}
	if f := &s.Facts; s.Process.PID != 0 {
		add("pid", metric.Int(int64(s.Process.PID)))
		if !f.Start.IsZero() {
			add("process_start_time_seconds", metric.Float(float64(f.Start.UnixMilli())/1000))
		}
		if text("exe", f.Exe); f.Exe != "" {
			add("exe_deleted", metric.Bool(f.ExeDeleted))
		}
		text("exe_sha256", f.ExeSHA256)
		if f.Parent.PID != 0 {
			add("parent_pid", metric.Int(int64(f.Parent.PID)))
		}
		text("parent_process", f.Parent.Process)
		text("parent_exe", f.Parent.Exe)
		if f.HasLoginUID {
			add("login_uid", metric.Uint(uint64(f.LoginUID)))
		}
		text("cmdline", f.Cmdline)
	}
	text("rule", s.Verdict.Rule)
	text("why", s.Verdict.Why)
	return fields
}

// round returns a duration in seconds, to the millisecond.
func round(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

func downSeconds(d time.Duration) metric.Field {
	return metric.Field{Key: "down_seconds", Value: metric.Float(round(d))}
}

// previousOwner returns the fields that describe the previous owner of an endpoint. named:
// including its names, because they differ from those of the event.
func previousOwner(previous, now *shown, named bool) (fields []metric.Field) {
	fields = make([]metric.Field, 0, 4)
	if named {
		for _, key := range [...]string{"process", "user", "unit", "user_unit", "container"} {
			for _, tag := range previous.Tags {
				if tag.Key == key {
					fields = append(fields, metric.Field{Key: "previous_" + key, Value: metric.String(tag.Value)})
				}
			}
		}
	}
	if previous.Process.PID != 0 {
		fields = append(fields, metric.Field{Key: "previous_pid", Value: metric.Int(int64(previous.Process.PID))})
	}
	a, b := &previous.Facts, &now.Facts
	if a.Exe != "" {
		fields = append(fields, metric.Field{Key: "previous_exe", Value: metric.String(a.Exe)})
	}
	if a.Exe != "" && b.Exe != "" {
		other := a.Exe != b.Exe || a.ExeSHA256 != "" && b.ExeSHA256 != "" && a.ExeSHA256 != b.ExeSHA256
		fields = append(fields, metric.Field{Key: "exe_changed", Value: metric.Bool(other)})
	}
	return fields
}

// previousExposure returns the fields for the previous exposure of an endpoint and its
// previous address; "" if that is the same.
func previousExposure(class inet.Class, address string) []metric.Field {
	name := class.String()
	if class == inet.Nowhere {
		name = "none"
	}
	fields := []metric.Field{
		{Key: "previous_exposure", Value: metric.String(name)},
		{Key: "cause", Value: metric.String("rebound")},
	}
	if address == "" {
		fields[1].Value = metric.String("host_address")
		return fields
	}
	return append(fields, metric.Field{Key: "previous_address", Value: metric.String(address)})
}

// ageOf returns how long an endpoint was present, or nothing if a baseline found it.
func ageOf(firstSeen int64, gone time.Time) []metric.Field {
	if firstSeen == 0 {
		return nil
	}
	return []metric.Field{{Key: "age_seconds", Value: metric.Float(max(float64(gone.Unix()-firstSeen), 0))}}
}
