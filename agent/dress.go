package agent

import (
	"slices"
	"strings"
	"sync"

	"sockwatch/agent/filter"
	"sockwatch/agent/metric"
)

// A dresser makes a plugin's batch the instance's: checked, named, filtered,
// tagged.
type dresser struct {
	source string
	rename func(string) string // nil: names stay
	filter filter.Filter
	tags   []metric.Tag // of every point that does not have them
	descs  []metric.Desc

	// An input whose points have not changed may return those of its last batch:
	// published points are immutable, so that what became of them holds, too.
	mu           sync.Mutex
	raw, dressed []metric.Point
}

func newDresser(in *Input) (*dresser, error) {
	f, err := filter.New(in.Options.Options)
	if err != nil {
		return nil, err
	}
	d := &dresser{source: in.Name, filter: f, descs: in.Plugin.Descs}
	for key, value := range in.Options.Tags {
		if value != "" {
			d.tags = append(d.tags, metric.Tag{Key: key, Value: value})
		}
	}
	metric.SortTags(d.tags)
	if o := in.Options; o.NameOverride+o.NamePrefix+o.NameSuffix != "" {
		d.rename = func(name string) string {
			if o.NameOverride != "" {
				name = o.NameOverride
			}
			return o.NamePrefix + name + o.NameSuffix
		}
		d.descs = slices.Clone(d.descs)
		for i := range d.descs {
			d.descs[i].Name = d.rename(d.descs[i].Name)
		}
	}
	return d, nil
}

// batch returns the batch that is published, or an error where the plugin's breaks
// its promises. As in Telegraf the names and tags that the filter selects by are
// the plugin's own, and tags and fields are excluded last.
func (d *dresser) batch(raw metric.Batch) (*metric.Batch, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !same(raw.Points, d.raw) || len(raw.Events) > 0 || raw.Time.IsZero() {
		if err := raw.Check(); err != nil {
			return nil, err
		}
	}
	if !same(raw.Points, d.raw) {
		d.raw, d.dressed = raw.Points, d.points(raw.Points)
	}
	raw.Source, raw.Descs = d.source, d.descs
	raw.Points, raw.Events = d.dressed, d.points(raw.Events)
	return &raw, nil
}

// same reports whether two slices are one.
func same(a, b []metric.Point) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func (d *dresser) points(raw []metric.Point) []metric.Point {
	if len(raw) == 0 || d.rename == nil && len(d.tags) == 0 && d.filter.PassesAll() {
		return raw
	}
	points := make([]metric.Point, 0, len(raw))
	tags := 0
	for i := range raw {
		tags += len(raw[i].Tags) + len(d.tags)
	}
	arena := make([]metric.Tag, 0, tags) // of all points: one allocation
	for _, p := range raw {
		if !d.filter.Select(p.Name, p.Tags) {
			continue
		}
		if d.rename != nil {
			p.Name = d.rename(p.Name)
		}
		from := len(arena)
		arena = appendMerged(arena, p.Tags, d.tags)
		p.Tags = arena[from:len(arena):len(arena)]
		if p, ok := d.filter.Modify(p); ok {
			points = append(points, p)
		}
	}
	return points
}

// appendMerged appends the union of two sorted lists of tags; of equal keys the
// first list's.
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
