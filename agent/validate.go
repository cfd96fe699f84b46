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

// check returns the error of an option unless it holds.
func check(ok bool, option, rule string, args ...any) error {
	if ok {
		return nil
	}
	return plugin.Invalid(option, rule, args...)
}

// minTime is the shortest interval and timeout: what is shorter keeps the program
// busy with nothing, or is over before anything can happen.
const minTime = plugin.Duration(100 * time.Millisecond)

func atLeast(option string, d plugin.Duration) error {
	return check(d >= minTime, option, "must be at least %v", minTime)
}

// checkJitter keeps a jitter from outlasting the interval, which would skip ticks.
// An interval that is too short has an error of its own.
func checkJitter(option string, jitter, interval plugin.Duration) error {
	return check(jitter <= interval || interval < minTime, option, "%v is longer than the interval, %v", jitter, interval)
}

// checkText keeps out what a name cannot be in any output: control characters, which
// line protocol cannot carry, blanks alone or at the ends and characters without a
// shape alone (such as U+200B), which nobody sees. An empty text is not set.
func checkText(option, of, text string) error {
	switch {
	case strings.ContainsFunc(text, unicode.IsControl):
		return plugin.Invalid(option, "%s%q holds a control character", of, text)
	case strings.TrimSpace(text) != text:
		return plugin.Invalid(option, "%s%q begins or ends with a blank", of, text)
	case text != "" && !strings.ContainsFunc(text, unicode.IsPrint):
		return plugin.Invalid(option, "%s%q has no printable character", of, text)
	}
	return nil
}

// oneOf returns an error unless value is one of the known ones.
func oneOf(option, value string, known ...string) error {
	if slices.Contains(known, value) {
		return nil
	}
	return plugin.Invalid(option, "unknown value %q (known: "+strings.Join(known, ", ")+")", value)
}

var aliasForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)

// stateFiles are in the names of the files that an instance keeps in the state
// directory, where the queue of another is a directory that its alias names.
var stateFiles = []string{".rejected.jsonl", ".first_seen.json", ".history.jsonl"}

// checkAlias keeps aliases to what is safe in a file name, and is not that of a file.
func checkAlias(alias string) error {
	for _, name := range stateFiles {
		if strings.Contains(alias, name) {
			return plugin.Invalid("alias", "%q holds %q, which names files of other instances in the state directory", alias, name)
		}
	}
	return check(alias == "" || aliasForm.MatchString(alias), "alias",
		"must be letters, digits, '_', '-' and '.', 64 at most, and not begin with '-' or '.'")
}

// checkTags checks the tags that a configuration adds. An empty value takes a tag
// away.
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
