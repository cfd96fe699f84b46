package plugin

import (
	"errors"
	"strings"
)

// WarnOfRegexps returns a warning, for Warner, for each pattern of an option that looks like a
// regular expression. ".*" within a pattern is a sign of that only if dots are rare in the values
// that the option matches: "10.0.*" is a good glob for addresses.
func WarnOfRegexps(option string, patterns []string, dotsAreRare bool) error {
	var errs []error
	for _, p := range patterns {
		if glob := globOf(p, dotsAreRare); glob != "" {
			errs = append(errs, Invalid(option, "pattern %q looks like a regular expression, but is a glob, which matches whole values: write %q", p, glob))
		}
	}
	return errors.Join(errs...)
}

// globOf returns the glob that was probably meant by a pattern that looks like a regular
// expression, or "" if it looks like a glob.
func globOf(pattern string, dotsAreRare bool) string {
	text, begins := strings.CutPrefix(pattern, "^")
	text, ends := strings.CutSuffix(text, "$")
	repeats := strings.Contains(text, ".+") || strings.Contains(text, "]+") || strings.Contains(text, "]*") && (begins || ends)
	alternatives := strings.Contains(text, "|") && strings.ContainsAny(text, "()")
	if !begins && !ends && !repeats && !alternatives && !(dotsAreRare && anyText(text)) {
		return ""
	}
	text = strings.NewReplacer(
		`\.`, ".", `.*`, "*", `.+`, "?*", `\d+`, "*", `\w+`, "*", `\d`, "[0-9]", "]+", "]*", "(?:", "{", "(", "{", ")", "}", "|", ",",
	).Replace(text)
	if strings.Contains(text, ",") && !strings.Contains(text, "{") {
		text = "{" + text + "}"
	}
	if _, err := compileGlob(text); err != nil || text == pattern {
		return ""
	}
	return text
}

// anyText reports whether a pattern has ".*" where a regular expression would have it. After a
// digit it is probably meant for a version, as in "python3.*".
func anyText(pattern string) bool {
	before, _, found := strings.Cut(pattern, ".*")
	if !found || before == "" {
		return found
	}
	last := before[len(before)-1]
	return last < '0' || last > '9'
}
