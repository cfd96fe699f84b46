package agent

import (
	"slices"
	"strings"
	"sync"

	"sockwatch/agent/filter"
	"sockwatch/agent/metric"
)

// A transform applies an instance's options to its batches: it checks, renames, filters
// and tags the points.
type transform struct {
	source string
	rename func(string) string // nil: keep names
	filter filter.Filter
	tags   []metric.Tag // added to every point that does not have them
	descs  []metric.Desc

	// If nothing has changed, an input may return the points of its last batch again.
	// Points are immutable, so the last result is still valid.
	mu          sync.Mutex
	raw, result []metric.Point
}

func newTransform(in *Input) (*transform, error) {
	f, err := filter.New(in.Options.Options)
	if err != nil {
		return nil, err
	}
	t := &transform{source: in.Name, filter: f, descs: in.Plugin.Descs}
	for key, value := range in.Options.Tags {
		if value != "" {
			t.tags = append(t.tags, metric.Tag{Key: key, Value: value})
		}
	}
	metric.SortTags(t.tags)
	if o := in.Options; o.NameOverride+o.NamePrefix+o.NameSuffix != "" {
		t.rename = func(name string) string {
			if o.NameOverride != "" {
				name = o.NameOverride
			}
			return o.NamePrefix + name + o.NameSuffix
		}
		t.descs = slices.Clone(t.descs)
		for i := range t.descs {
			t.descs[i].Name = t.rename(t.descs[i].Name)
		}
	}
	return t, nil
}

// batch returns the batch to publish, or an error if the plugin's batch is invalid (see
// metric.Batch.Check). As in Telegraf, filters select by the plugin's own names and
// tags, and tags and fields are excluded last.
func (t *transform) batch(raw metric.Batch) (*metric.Batch, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !metric.Same(raw.Points, t.raw) || len(raw.Events) > 0 || raw.Time.IsZero() {
		if err := raw.Check(); err != nil {
			return nil, err
		}
	}
	if !metric.Same(raw.Points, t.raw) {
		t.raw, t.result = raw.Points, t.points(raw.Points)
	}
	raw.Source, raw.Descs = t.source, t.descs
	raw.Points, raw.Events = t.result, t.points(raw.Events)
	return &raw, nil
}

func (t *transform) points(raw []metric.Point) []metric.Point {
	if len(raw) == 0 || t.rename == nil && len(t.tags) == 0 && t.filter.PassesAll() {
		return raw
	}
	points := make([]metric.Point, 0, len(raw))
	tags := 0
	for i := range raw {
		tags += len(raw[i].Tags) + len(t.tags)
	}
	arena := make([]metric.Tag, 0, tags) // one allocation for the tags of all points
	for _, p := range raw {
		if !t.filter.Select(p.Name, p.Tags) {
			continue
		}
		if t.rename != nil {
			p.Name = t.rename(p.Name)
		}
		from := len(arena)
		arena = appendMerged(arena, p.Tags, t.tags)
		p.Tags = arena[from:len(arena):len(arena)]
		if p, ok := t.filter.Modify(p); ok {
			points = append(points, p)
		}
	}
	return points
}

// appendMerged appends the union of two sorted lists of tags. If both have a key, own
// wins.
func appendMerged(dst, own, more []metric.Tag) []metric.Tag {
	for len(own) > 0 && len(more) > 0 {
		switch c := strings.Compare(own[0].Key, more[0].Key); {
		case c <= 0:
			if c == 0 {
				more = more[1:]
			}
			dst, own = append(dst, own[0]), own[1:]
		default:
			dst, more = append(dst, more[0]), more[1:]
		}
	}
	return append(append(dst, own...), more...)
}
