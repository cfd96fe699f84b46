package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sockwatch/agent/plugin"
)

// noFile is the file of an error that does not belong to one file.
const noFile = -1

// Errors are all errors of a configuration, sorted by file and line.
type Errors []*Error

// Error returns one line for each error.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// An Error is one error of a configuration.
type Error struct {
	File    string // "" if it does not belong to one file
	Line    int    // 0 if it applies to the whole file
	Message string

	file int
}

// Error returns FILE:LINE: MESSAGE.
func (e *Error) Error() string {
	switch {
	case e.File == "":
		return e.Message
	case e.Line == 0:
		return e.File + ": " + e.Message
	default:
		return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Message)
	}
}

// A report collects the errors of the files, and warnings, which have the same form.
type report struct {
	files    []File
	errs     Errors
	warnings Errors
}

// errorf records an error of a table at one of its nodes.
func (r *report) errorf(t table, at *node, format string, args ...any) {
	r.errs = append(r.errs, r.newError(t, at, format, args...))
}

// warnf records a warning about a table at one of its nodes.
func (r *report) warnf(t table, at *node, format string, args ...any) {
	r.warnings = append(r.warnings, r.newError(t, at, format, args...))
}

func (r *report) newError(t table, at *node, format string, args ...any) *Error {
	e := &Error{file: t.file, Message: fmt.Sprintf(format, args...)}
	if t.path != "" {
		e.Message = t.path + ": " + e.Message
	}
	if t.file != noFile {
		e.File = r.files[t.file].Name
	}
	if at != nil {
		e.Line = at.line
	}
	return e
}

// invalid records the errors of Validate or a constructor, each at the line of its
// option. It skips errors of options in bad: these are reported already, and Validate
// saw their default instead. If any option is bad, it also skips errors that do not
// belong to one option.
func (r *report) invalid(t table, err error, bad badOptions) {
	for _, e := range flatten(err) {
		of, option := t, ""
		if invalid, ok := errors.AsType[*plugin.OptionError](e); ok {
			if bad.cover(invalid.Option) {
				continue
			}
			e = invalid.Err
			of, option = t.element(invalid.Option)
		} else if len(bad) > 0 {
			continue
		}
		at := of.at
		if option != "" {
			for name := range strings.SplitSeq(option, ".") {
				at = at.key(name)
			}
			option += ": "
		}
		// The errors of one option can have several lines, such as one for each bad
		// pattern of a list.
		for line := range strings.SplitSeq(plugin.Show(e, t.written.show), "\n") {
			r.errorf(of, at, "%s", option+strings.TrimPrefix(line, option))
		}
	}
}

// element returns the table that holds an option, given by its path, and the path in
// that table: of "expect[2].port" it is "port" in the third table of expect.
func (t table) element(option string) (table, string) {
	list, rest, _ := strings.Cut(option, "[")
	index, rest, ok := strings.Cut(rest, "]")
	i, err := strconv.Atoi(index)
	if elements := t.elements[list]; ok && err == nil && 0 <= i && i < len(elements) {
		return elements[i].element(strings.TrimPrefix(rest, "."))
	}
	return t, option
}

// flatten returns the errors that err joins, or only err.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

// place returns the file and line of a node, for use in another error.
func (r *report) place(file int, at *node) string {
	return fmt.Sprintf("%s:%d", r.files[file].Name, at.line)
}

// sorted returns errors without repetitions, sorted by file and line.
func sorted(errs Errors) Errors {
	slices.SortFunc(errs, func(a, b *Error) int {
		return cmp.Or(a.file-b.file, a.Line-b.Line, strings.Compare(a.Message, b.Message))
	})
	return slices.CompactFunc(errs, func(a, b *Error) bool { return *a == *b })
}

// didYouMean returns `did you mean "x"?` for the nearest known word, or "" if none is
// near.
func didYouMean(word string, known []string) string {
	if nearest := plugin.Nearest(word, known); nearest != "" {
		return fmt.Sprintf("did you mean %q?", nearest)
	}
	return ""
}

// inParentheses returns a space and the parts in parentheses, or "" if all are empty.
func inParentheses(parts ...string) string {
	text := strings.TrimSpace(strings.Join(parts, " "))
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}
