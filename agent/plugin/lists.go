package plugin

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Patterns are globs as typed on a command line or into a form: one, or several separated
// by commas ("nginx,php-fpm*"). A comma in {a,b} or [a,b], or after a "\", is part of the
// glob. The zero value is empty and matches nothing.
type Patterns struct {
	texts []string
	globs Globs
}

// UnmarshalText adds the globs of a list to p, so that a flag can be repeated. Its error
// joins the errors of all bad patterns.
func (p *Patterns) UnmarshalText(text []byte) error {
	texts := splitList(string(text))
	g, err := CompileGlobs(texts)
	if err != nil {
		return err
	}
	p.texts, p.globs = append(p.texts, texts...), append(p.globs, g...)
	return nil
}

// Texts returns the globs as they were written.
func (p *Patterns) Texts() []string { return slices.Clone(p.texts) }

// Empty reports whether there are no patterns.
func (p *Patterns) Empty() bool { return len(p.globs) == 0 }

// Match reports whether one of the patterns matches s as a whole.
func (p *Patterns) Match(s string) bool { return p.globs.Match(s) }

// splitList splits a list of globs at the commas that are not part of a glob, and
// trims the spaces around each.
func splitList(list string) []string {
	var parts []string
	begin, braces, set := 0, 0, false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '\\':
			i++ // the next character is literal
		case set:
			set = c != ']'
		case c == '[':
			set = true
		case c == '{':
			braces++
		case c == '}':
			braces--
		case c == ',' && braces <= 0:
			parts = append(parts, strings.TrimSpace(list[begin:i]))
			begin = i + 1
		}
	}
	return append(parts, strings.TrimSpace(list[begin:]))
}

// Ports are port numbers as typed on a command line or into a form: "22", "8000-8100", or
// a list such as "80,443,8000-8100". The zero value is empty and matches nothing.
type Ports struct{ ranges []portRange }

type portRange struct{ first, last uint16 }

// UnmarshalText adds the ports of a list to p, so that a flag can be repeated. Its error
// joins the errors of all elements that are not ports.
func (p *Ports) UnmarshalText(text []byte) error {
	var ranges []portRange
	var errs []error
	for element := range strings.SplitSeq(string(text), ",") {
		r, err := parsePortRange(strings.TrimSpace(element))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ranges = append(ranges, r)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	p.ranges = append(p.ranges, ranges...)
	return nil
}

// parsePortRange parses "22" or "8000-8100".
func parsePortRange(s string) (portRange, error) {
	low, high, isRange := strings.Cut(s, "-")
	if !isRange {
		high = low
	}
	first, err1 := strconv.ParseUint(low, 10, 16)
	last, err2 := strconv.ParseUint(high, 10, 16)
	switch {
	case cmp.Or(err1, err2) != nil || first == 0 || last == 0: // nothing listens on port 0
		return portRange{}, fmt.Errorf("%q is not a port (1 to 65535) or a range such as 8000-8100", s)
	case last < first:
		return portRange{}, fmt.Errorf("the range %s is empty: write %s-%s", s, high, low)
	}
	return portRange{uint16(first), uint16(last)}, nil
}

// Empty reports whether there are no ports.
func (p *Ports) Empty() bool { return len(p.ranges) == 0 }

// Match reports whether s is one of the ports, in decimal.
func (p *Ports) Match(s string) bool {
	port, err := strconv.ParseUint(s, 10, 16)
	return err == nil && slices.ContainsFunc(p.ranges, func(r portRange) bool {
		return r.first <= uint16(port) && uint16(port) <= r.last
	})
}
