// Package filter selects the points of a plugin instance and what it sees of
// them, with the options and the semantics of Telegraf's metric filters.
package filter

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// Options are the filter options of an instance. Patterns are shell globs: "*"
// any characters, "?" one, "[a-z]" and "[!a-z]" one of a set, "{a,b}" alternatives, "\"
// quotes the next character. A pattern matches the whole of what it is held against.
type Options struct {
	// Only points whose name matches one of these globs.
	NamePass []string `toml:"namepass"`
	// No points whose name matches one of these globs.
	NameDrop []string `toml:"namedrop"`
	// Only points with one of these tags whose value matches one of its globs.
	TagPass map[string][]string `toml:"tagpass"`
	// No points with one of these tags whose value matches one of its globs.
	TagDrop map[string][]string `toml:"tagdrop"`
	// Only these tags of a point.
	TagInclude []string `toml:"taginclude"`
	// Not these tags of a point.
	TagExclude []string `toml:"tagexclude"`
	// Only these fields of a point; one that has none of them is left out.
	FieldInclude []string `toml:"fieldinclude"`
	// Not these fields of a point; one that has no others is left out.
	FieldExclude []string `toml:"fieldexclude"`
}

// Validate returns the errors of all patterns, joined.
func (o *Options) Validate() error {
	_, err := New(*o)
	return err
}

// A Filter is ready to be held against points. The zero Filter passes everything.
type Filter struct {
	namePass, nameDrop         globs
	tagPass, tagDrop           []tagGlobs // sorted by key
	tagInclude, tagExclude     globs
	fieldInclude, fieldExclude globs
}

type tagGlobs struct {
	key    string
	values globs
}

// New compiles options; its error joins those of every bad pattern.
func New(o Options) (Filter, error) {
	var errs []error
	list := func(option string, patterns []string) globs {
		g, err := compile(patterns)
		if err != nil {
			errs = append(errs, plugin.Invalid(option, "%w", err))
		}
		return g
	}
	table := func(option string, patterns map[string][]string) []tagGlobs {
		var t []tagGlobs
		for key, values := range patterns {
			t = append(t, tagGlobs{key, list(option, values)})
		}
		slices.SortFunc(t, func(a, b tagGlobs) int { return strings.Compare(a.key, b.key) })
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

// Select reports whether a point of that name and tags passes.
func (f *Filter) Select(name string, tags []metric.Tag) bool {
	if len(f.namePass) > 0 && !f.namePass.match(name) || f.nameDrop.match(name) {
		return false
	}
	return (len(f.tagPass) == 0 || anyTag(f.tagPass, tags)) && !anyTag(f.tagDrop, tags)
}

func anyTag(table []tagGlobs, tags []metric.Tag) bool {
	for _, g := range table {
		for _, t := range tags {
			if t.Key == g.key && g.values.match(t.Value) {
				return true
			}
		}
	}
	return false
}

// Modifies reports whether Modify can change a point at all.
func (f *Filter) Modifies() bool {
	return len(f.tagInclude)+len(f.tagExclude)+len(f.fieldInclude)+len(f.fieldExclude) > 0
}

// Modify returns p with the tags and fields that f keeps; false where no field
// is left. It does not change what p points to.
func (f *Filter) Modify(p metric.Point) (metric.Point, bool) {
	if len(f.tagInclude)+len(f.tagExclude) > 0 {
		p.Tags = keep(p.Tags, f.tagInclude, f.tagExclude, func(t metric.Tag) string { return t.Key })
	}
	if len(f.fieldInclude)+len(f.fieldExclude) > 0 {
		p.Fields = keep(p.Fields, f.fieldInclude, f.fieldExclude, func(f metric.Field) string { return f.Key })
	}
	return p, len(p.Fields) > 0
}

func keep[T any](all []T, include, exclude globs, key func(T) string) []T {
	kept := make([]T, 0, len(all))
	for _, v := range all {
		if k := key(v); (len(include) == 0 || include.match(k)) && !exclude.match(k) {
			kept = append(kept, v)
		}
	}
	return kept
}

// Points returns the points that pass, modified; the same slice where f keeps
// everything.
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

// PassesAll reports whether f keeps every point as it is.
func (f *Filter) PassesAll() bool {
	return len(f.namePass)+len(f.nameDrop)+len(f.tagPass)+len(f.tagDrop) == 0 && !f.Modifies()
}

// globs are compiled patterns. RE2 stands in for a glob library: Telegraf's own
// (gobwas/glob) has been without a maintainer since 2018 and mismatches nested
// alternatives.
type globs []*regexp.Regexp

func (g globs) match(s string) bool {
	for _, re := range g {
		if re.MatchString(s) {
			return true
		}
	}
	return false
}

func compile(patterns []string) (globs, error) {
	var g globs
	var errs []error
	for _, p := range patterns {
		expr, err := translate(p)
		if err == nil {
			var re *regexp.Regexp
			if re, err = regexp.Compile(expr); err == nil {
				g = append(g, re)
				continue
			}
			err = errors.New("it is no glob")
		}
		errs = append(errs, fmt.Errorf("pattern %q: %w", p, err))
	}
	return g, errors.Join(errs...)
}

// translate returns the regular expression that a shell glob stands for.
func translate(glob string) (string, error) {
	var re strings.Builder
	re.WriteString(`(?s)\A`)
	braces := 0
	runes := []rune(glob)
	for i := 0; i < len(runes); i++ {
		switch c := runes[i]; c {
		case '*':
			re.WriteString(".*")
		case '?':
			re.WriteString(".")
		case '{':
			braces++
			re.WriteString("(?:")
		case '}':
			if braces == 0 {
				return "", errors.New(`"}" without "{"`)
			}
			braces--
			re.WriteString(")")
		case ',':
			if braces > 0 {
				re.WriteString("|")
			} else {
				re.WriteString(",")
			}
		case '[':
			end := slices.Index(runes[i+1:], ']')
			if end <= 0 {
				return "", errors.New(`"[" without "]"`)
			}
			set := string(runes[i+1 : i+1+end])
			re.WriteString("[")
			if rest, negated := strings.CutPrefix(set, "!"); negated {
				re.WriteString("^")
				set = rest
			}
			if set == "" {
				return "", errors.New("empty set")
			}
			re.WriteString(strings.NewReplacer(`\`, `\\`, `^`, `\^`, `[`, `\[`).Replace(set))
			re.WriteString("]")
			i += end + 1
		case '\\':
			if i++; i == len(runes) {
				return "", errors.New(`"\" at its end`)
			}
			re.WriteString(regexp.QuoteMeta(string(runes[i])))
		default:
			re.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	if braces > 0 {
		return "", errors.New(`"{" without "}"`)
	}
	re.WriteString(`\z`)
	return re.String(), nil
}
