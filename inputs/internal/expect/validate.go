package expect

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"sockwatch/agent/plugin"
)

// maxLabels is the maximum number of labels of a rule.
const maxLabels = 8

// ValidateRules returns all errors in the options, joined. Each is created by plugin.Invalid
// with the path of its option, such as "expect[2].port". tags are the tag keys of the input's
// points. Labels must not use them.
func (o *Options) ValidateRules(tags []string) error {
	v := validator{reserved: slices.Concat(tags, Tags(), []string{"host"})}
	switch o.Unlisted {
	case UnlistedAuto, UnlistedUnexpected, UnlistedIgnore:
	default:
		v.invalid("unlisted", "unknown value %q (known: auto, ignore, unexpected)", o.Unlisted)
	}
	all := o.declarations()
	for i := range all {
		v.rule(&all[i])
	}
	v.uniqueNames(all)
	return errors.Join(v.errs...)
}

// A validator collects the errors of rules.
type validator struct {
	reserved []string // keys that labels must not have
	errs     []error
}

func (v *validator) invalid(option, format string, args ...any) {
	v.errs = append(v.errs, plugin.Invalid(option, format, args...))
}

func (v *validator) rule(d *declaration) {
	if d.name == "" && d.kind != kindAllow {
		v.invalid(d.option+".name", `is missing: expect and forbid rules need one, such as name = "web"`)
	}
	v.text(d.option+".name", d.name)
	v.criteria(d.option, d.criteria)
	if d.kind == kindExpect && d.min < 1 {
		v.invalid(d.option+".min", "must be at least 1")
	}
	v.approval(d.option, d.approval)
	v.labels(d.option, d.labels)
}

// text rejects control characters, and blanks at the beginning or end of a text.
func (v *validator) text(option, text string) {
	switch {
	case strings.ContainsFunc(text, unicode.IsControl):
		v.invalid(option, "%q holds a control character", text)
	case strings.TrimSpace(text) != text:
		v.invalid(option, "%q begins or ends with a blank", text)
	}
}

// uniqueNames reports every use of a name that several expect and forbid rules share.
func (v *validator) uniqueNames(rules []declaration) {
	places := make(map[string][]string)
	for _, d := range rules {
		if d.kind != kindAllow {
			places[d.name] = append(places[d.name], d.option+".name")
		}
	}
	delete(places, "")
	for _, name := range slices.Sorted(maps.Keys(places)) {
		if len(places[name]) < 2 {
			continue
		}
		for _, option := range places[name] {
			v.invalid(option, "%d rules are called %q: the names of expect and forbid rules must be unique", len(places[name]), name)
		}
	}
}

func (v *validator) criteria(at string, c *Criteria) {
	found := len(c.Port) > 0 || c.Address != nil
	for _, a := range c.Address {
		if _, err := parseAddress(a); err != nil {
			v.invalid(at+".address", "%w", err)
		}
	}
	v.notEmpty(at+".address", c.Address)
	for _, g := range globOptions {
		patterns := *g.patterns(c)
		found = found || patterns != nil
		v.notEmpty(at+"."+g.name, patterns)
		for _, p := range patterns {
			globs, err := compileGlob(p)
			switch {
			case err != nil:
				v.invalid(at+"."+g.name, "%w", err)
			case g.all != nil && !slices.ContainsFunc(g.all, globs.match):
				v.invalid(at+"."+g.name, "unknown value %q (known: "+knownValues(g.all)+")", p)
			}
		}
	}
	if !found {
		v.invalid(at, "has no criterion: set port, process, user, unit or another one")
	}
}

func (v *validator) notEmpty(option string, list []string) {
	if list != nil && len(list) == 0 {
		v.invalid(option, "the list is empty, and nothing would match: leave the option out for any")
	}
}

func (v *validator) approval(at string, a *Approval) {
	v.text(at+".why", a.Why)
	v.text(at+".ticket", a.Ticket)
	v.text(at+".approved_by", a.ApprovedBy)
	if _, err := parseDate(a.Expires); err != nil {
		v.invalid(at+".expires", "%w", err)
	}
}

// parseDate returns the end of a day in UTC, which is the start of the next day. It returns
// the zero time for "".
func parseDate(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	day, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return time.Time{}, plugin.Errorf(`%q is not a date such as "2027-03-31"`, s)
	}
	return day.AddDate(0, 0, 1), nil
}

var labelForm = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

func (v *validator) labels(at string, labels map[string]string) {
	if len(labels) > maxLabels {
		v.invalid(at+".labels", "%d labels: a rule has at most %d", len(labels), maxLabels)
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		option := at + ".labels"
		switch {
		case !labelForm.MatchString(key) || strings.HasPrefix(key, "__"):
			v.invalid(option, "%q cannot be the name of a label: write letters, digits and _, and begin with a letter", key)
		case slices.Contains(v.reserved, key):
			v.invalid(option, "%q is the name of a tag already: choose another one, such as %q", key, "rule_"+key)
		case labels[key] == "":
			v.invalid(option+"."+key, "is empty")
		default:
			v.text(option+"."+key, labels[key])
		}
	}
}

// knownValues formats values for an error.
func knownValues(values []string) string {
	shown := slices.Clone(values)
	if i := slices.Index(shown, ""); i >= 0 {
		shown[i] = `or "" for none`
	}
	return strings.Join(shown, ", ")
}
