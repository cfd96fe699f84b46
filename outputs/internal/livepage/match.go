package livepage

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sockwatch/agent/plugin"
)

// compile returns a function that reports whether a value matches.
func (w word) compile() (func(string) bool, error) {
	if w.value == "" {
		return nil, fmt.Errorf("%v has no value", w)
	}
	if w.key == "" {
		return compileText(w.value), nil
	}
	if match, ok := compileComparison(w.value); ok {
		return match, nil
	}
	if w.key == "port" && !strings.ContainsAny(w.value, globSpecial) {
		var ports plugin.Ports
		if err := ports.UnmarshalText([]byte(w.value)); err != nil {
			return nil, oneLine(err)
		}
		return ports.Match, nil
	}
	var patterns plugin.Patterns
	if err := patterns.UnmarshalText([]byte(w.value)); err != nil {
		return nil, oneLine(err)
	}
	if w.key == "address" {
		return matchAddress(patterns)
	}
	return patterns.Match, nil
}

// globSpecial are the characters that make a value of port a list of globs.
const globSpecial = `*?[{\`

// oneLine returns the first of joined errors.
func oneLine(err error) error {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(first)
}

// compileText returns a function that reports whether a text is in a line of the values; of
// one with "*", whether its parts are, in this order. It neither allocates nor tries twice: every
// text of every listener is compared.
func compileText(text string) func(string) bool {
	parts := strings.Split(strings.ToLower(text), "*")
	if len(parts) == 1 {
		return func(values string) bool { return strings.Contains(values, parts[0]) }
	}
	return func(values string) bool {
		for line := range strings.SplitSeq(values, "\n") {
			if containsInOrder(line, parts) {
				return true
			}
		}
		return false
	}
}

func containsInOrder(line string, parts []string) bool {
	for _, part := range parts {
		i := strings.Index(line, part)
		if i < 0 {
			return false
		}
		line = line[i+len(part):]
	}
	return true
}

// compileComparison compiles ">10", ">=10", "<10" and "<=10".
func compileComparison(s string) (func(string) bool, bool) {
	number := strings.TrimLeft(s, "<>=")
	limit, err := strconv.ParseFloat(number, 64)
	var holds func(order int) bool
	switch s[:len(s)-len(number)] {
	case ">":
		holds = func(order int) bool { return order > 0 }
	case ">=":
		holds = func(order int) bool { return order >= 0 }
	case "<":
		holds = func(order int) bool { return order < 0 }
	case "<=":
		holds = func(order int) bool { return order <= 0 }
	}
	if err != nil || math.IsNaN(limit) || holds == nil {
		return nil, false
	}
	return func(value string) bool {
		v, err := strconv.ParseFloat(value, 64)
		return err == nil && !math.IsNaN(v) && holds(cmp.Compare(v, limit))
	}, true
}

// matchAddress returns a function that reports whether an address matches one of the
// patterns, or is in one of those that are prefixes, such as "10.0.0.0/8".
func matchAddress(patterns plugin.Patterns) (func(string) bool, error) {
	var prefixes []netip.Prefix
	for _, text := range patterns.Texts() {
		p, err := netip.ParsePrefix(text)
		switch {
		case err == nil:
			prefixes = append(prefixes, p)
		case strings.Index(text, "/") > 0: // as a pattern it would match nothing
			return nil, fmt.Errorf("%q is not a network such as 10.0.0.0/8", text)
		}
	}
	return func(value string) bool {
		if patterns.Match(value) {
			return true
		}
		plain, _, _ := strings.Cut(value, "%")
		ip, err := netip.ParseAddr(plain)
		return err == nil && slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(ip) || p.Contains(ip.Unmap()) })
	}, nil
}
