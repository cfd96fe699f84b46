package agent

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"sockwatch/agent/plugin"
)

// check returns the error of an option that does not hold.
func check(ok bool, option, rule string) error {
	if ok {
		return nil
	}
	return plugin.Invalid(option, "%s", rule)
}

// oneOf returns an error unless value is one of the known ones.
func oneOf(option, value string, known ...string) error {
	if slices.Contains(known, value) {
		return nil
	}
	return plugin.Invalid(option, "unknown value %q (known: %s)", value, strings.Join(known, ", "))
}

var aliasForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)

// checkAlias keeps aliases to what is safe in a file name.
func checkAlias(alias string) error {
	return check(alias == "" || aliasForm.MatchString(alias), "alias",
		"must be letters, digits, '_', '-' and '.', 64 at most, and not begin with '-' or '.'")
}

// checkTags keeps control characters, which line protocol cannot carry, out of
// the tags that a configuration adds.
func checkTags(option string, tags map[string]string) error {
	var errs []error
	for key, value := range tags {
		switch {
		case key == "":
			errs = append(errs, plugin.Invalid(option, "the name of a tag is empty"))
		case strings.ContainsFunc(key+value, unicode.IsControl):
			errs = append(errs, plugin.Invalid(option, "tag %q = %q holds a control character", key, value))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}
