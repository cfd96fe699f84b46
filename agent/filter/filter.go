// Package filter selects points, and removes tags and fields from them, with the options
// and the semantics of Telegraf's metric filters.
package filter

import (
	"errors"
	"maps"
	"slices"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// Options are the filter options of an instance. Patterns are shell globs: "*" matches
// any characters, "?" one, "[a-z]" and "[!a-z]" one of a set, "{a,b}" alternatives, and
// "\" quotes the next character. A pattern must match the whole name or value.
type Options struct {
	// Keep only points whose name matches one of these globs.
	NamePass []string `toml:"namepass"`
	// Drop points whose name matches one of these globs.
	NameDrop []string `toml:"namedrop"`
	// Keep only points with one of these tags whose value matches one of its globs.
	TagPass map[string][]string `toml:"tagpass"`
	// Drop points with one of these tags whose value matches one of its globs.
	TagDrop map[string][]string `toml:"tagdrop"`
	// Keep only tags that match one of these globs.
	TagInclude []string `toml:"taginclude"`
	// Remove tags that match one of these globs.
	TagExclude []string `toml:"tagexclude"`
	// Keep only fields that match one of these globs. Drop points without any.
	FieldInclude []string `toml:"fieldinclude"`
	// Remove fields that match one of these globs. Drop points without others.
	FieldExclude []string `toml:"fieldexclude"`
}

// Validate returns the errors of all patterns, joined.
func (o *Options) Validate() error {
	_, err := New(*o)
	return err
}

// Warn returns a warning for each pattern that looks like a regular expression. It implements
// plugin.Warner.
func (o *Options) Warn() error {
	errs := []error{
		plugin.WarnOfRegexps("namepass", o.NamePass, true), plugin.WarnOfRegexps("namedrop", o.NameDrop, true),
		plugin.WarnOfRegexps("taginclude", o.TagInclude, true), plugin.WarnOfRegexps("tagexclude", o.TagExclude, true),
		plugin.WarnOfRegexps("fieldinclude", o.FieldInclude, true), plugin.WarnOfRegexps("fieldexclude", o.FieldExclude, true),
	}
	for _, key := range slices.Sorted(maps.Keys(o.TagPass)) {
		errs = append(errs, plugin.WarnOfRegexps("tagpass", o.TagPass[key], false))
	}
	for _, key := range slices.Sorted(maps.Keys(o.TagDrop)) {
		errs = append(errs, plugin.WarnOfRegexps("tagdrop", o.TagDrop[key], false))
	}
	return errors.Join(errs...)
}

// A Filter selects and modifies points. The zero Filter passes everything.
type Filter struct {
	namePass, nameDrop         plugin.Globs
	tagPass, tagDrop           []tagGlobs // sorted by key
	tagInclude, tagExclude     plugin.Globs
	fieldInclude, fieldExclude plugin.Globs
}

type tagGlobs struct {
	key    string
	values plugin.Globs
}

// New compiles options. Its error joins the errors of all bad patterns.
func New(o Options) (Filter, error) {
	var errs []error
	list := func(option string, patterns []string) plugin.Globs {
		g, err := plugin.CompileGlobs(patterns)
		if err != nil {
			errs = append(errs, plugin.Invalid(option, "%w", err))
		}
		return g
	}
	table := func(option string, patterns map[string][]string) []tagGlobs {
		var t []tagGlobs
		for _, key := range slices.Sorted(maps.Keys(patterns)) {
			if len(patterns[key]) == 0 {
				errs = append(errs, plugin.Invalid(option, "%s has no patterns and matches nothing", key))
			}
			t = append(t, tagGlobs{key, list(option, patterns[key])})
		}
		return t
	}
	f := Filter{
		namePass: list("namepass", o.NamePass), nameDrop: list("namedrop", o.NameDrop),
		tagPass: table("tagpass", o.TagPass), tagDrop: table("tagdrop", o.TagDrop),
		tagInclude: list("taginclude", o.TagInclude), tagExclude: list("tagexclude", o.TagExclude),
		fieldInclude: list("fieldinclude", o.FieldInclude), fieldExclude: list("fieldexclude", o.FieldExclude),
	}
	return f, errors.Join(errs...)
}

// Select reports whether a point with this name and these tags passes.
func (f *Filter) Select(name string, tags []metric.Tag) bool {
	if len(f.namePass) > 0 && !f.namePass.Match(name) || f.nameDrop.Match(name) {
		return false
	}
	return (len(f.tagPass) == 0 || anyTag(f.tagPass, tags)) && !anyTag(f.tagDrop, tags)
}

func anyTag(table []tagGlobs, tags []metric.Tag) bool {
	for _, g := range table {
		for _, t := range tags {
			if t.Key == g.key && g.values.Match(t.Value) {
				return true
			}
		}
	}
	return false
}

// Modifies reports whether Modify can change any point.
func (f *Filter) Modifies() bool {
	return len(f.tagInclude)+len(f.tagExclude)+len(f.fieldInclude)+len(f.fieldExclude) > 0
}

// Modify returns p with the tags and fields that f keeps. It reports false if no field
// is left. It does not change the slices of p.
func (f *Filter) Modify(p metric.Point) (metric.Point, bool) {
	if len(f.tagInclude)+len(f.tagExclude) > 0 {
		p.Tags = keep(p.Tags, f.tagInclude, f.tagExclude, func(t metric.Tag) string { return t.Key })
	}
	if len(f.fieldInclude)+len(f.fieldExclude) > 0 {
		p.Fields = keep(p.Fields, f.fieldInclude, f.fieldExclude, func(f metric.Field) string { return f.Key })
	}
	return p, len(p.Fields) > 0
}

// Hides reports whether f removes what a key names, for facts about a point that are neither
// its tags nor its fields. A key that the point has is excluded or included as it is there, and
// any other as both a tag and a field.
func (f *Filter) Hides(key string, p *metric.Point) bool {
	if f.tagExclude.Match(key) || f.fieldExclude.Match(key) {
		return true
	}
	_, isField := p.Field(key)
	isTag := p.Tag(key) != ""
	return (isTag || !isField) && len(f.tagInclude) > 0 && !f.tagInclude.Match(key) ||
		(isField || !isTag) && len(f.fieldInclude) > 0 && !f.fieldInclude.Match(key)
}

func keep[T any](all []T, include, exclude plugin.Globs, key func(T) string) []T {
	kept := make([]T, 0, len(all))
	for _, v := range all {
		if k := key(v); (len(include) == 0 || include.Match(k)) && !exclude.Match(k) {
			kept = append(kept, v)
		}
	}
	return kept
}

// Points returns the points that pass, modified. If f keeps everything, it returns the
// same slice.
func (f *Filter) Points(points []metric.Point) []metric.Point {
	if f.PassesAll() {
		return points
	}
	kept := make([]metric.Point, 0, len(points))
	for i := range points {
		if !f.Select(points[i].Name, points[i].Tags) {
			continue
		}
		if p, ok := f.Modify(points[i]); ok {
			kept = append(kept, p)
		}
	}
	return kept
}

// PassesAll reports whether f passes every point unchanged.
func (f *Filter) PassesAll() bool {
	return len(f.namePass)+len(f.nameDrop)+len(f.tagPass)+len(f.tagDrop) == 0 && !f.Modifies()
}
