package agent

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"sockwatch/agent/plugin"
)

// check returns an error of the option unless ok.
func check(ok bool, option, rule string, args ...any) error {
	if ok {
		return nil
	}
	return plugin.Invalid(option, rule, args...)
}

// minTime is the shortest interval and timeout. A shorter interval only burns CPU, and
// a shorter timeout ends before anything can happen.
const minTime = plugin.Duration(100 * time.Millisecond)

func atLeast(option string, d plugin.Duration) error {
	return check(d >= minTime, option, "must be at least %v", minTime)
}

// checkJitter rejects a jitter longer than the interval, which would skip ticks. An
// interval that is too short is reported by atLeast.
func checkJitter(option string, jitter, interval plugin.Duration) error {
	return check(jitter <= interval || interval < minTime, option, "%v is longer than the interval (%v)", jitter, interval)
}

// checkText rejects text that is not usable as a name or a value in every output:
// control characters, which line protocol cannot carry; leading and trailing spaces; and
// text without a visible character (such as U+200B). Empty text means not set.
func checkText(option, of, text string) error {
	switch {
	case strings.ContainsFunc(text, unicode.IsControl):
		return plugin.Invalid(option, "%s%q contains a control character", of, text)
	case strings.TrimSpace(text) != text:
		return plugin.Invalid(option, "%s%q begins or ends with a space", of, text)
	case text != "" && !strings.ContainsFunc(text, unicode.IsPrint):
		return plugin.Invalid(option, "%s%q has no printable character", of, text)
	}
	return nil
}

// oneOf returns an error unless value is one of known.
func oneOf(option, value string, known ...string) error {
	if slices.Contains(known, value) {
		return nil
	}
	return plugin.Invalid(option, "unknown value %q (known: "+strings.Join(known, ", ")+")", value)
}

var aliasForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)

// checkAlias rejects an alias that is not safe as a file name, or is a state file's.
func checkAlias(alias string) error {
	for _, name := range stateFiles {
		if strings.Contains(alias, name) {
			return plugin.Invalid("alias", "%q contains %q, which is reserved for files in the state directory", alias, name)
		}
	}
	return check(alias == "" || aliasForm.MatchString(alias), "alias",
		"must be at most 64 letters, digits, '_', '-' and '.', and must not begin with '-' or '.'")
}

// checkTags checks the tags that a configuration adds. An empty value removes a tag.
func checkTags(option string, tags map[string]string) error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		if key == "" {
			errs = append(errs, plugin.Invalid(option, "the name of a tag is empty"))
			continue
		}
		errs = append(errs, checkText(option, "the name of the tag ", key), checkText(option, fmt.Sprintf("tag %q = ", key), tags[key]))
	}
	return errors.Join(errs...)
}
