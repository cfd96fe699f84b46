package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"sockwatch/agent/plugin"
)

// A usageError is a wrong command line.
type usageError struct {
	err     error
	command *kong.Node // that the command line names; nil: none
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// helpFor returns the arguments that print the help for a wrong command line.
func helpFor(err error) string {
	if e, ok := errors.AsType[*usageError](err); ok && e.command != nil {
		return e.command.Name + " --help"
	}
	return "--help"
}

// commandOf returns the command that a wrong command line names, or nil.
func commandOf(args []string, err error) *kong.Node {
	e, ok := errors.AsType[*kong.ParseError](err)
	if !ok {
		return nil
	}
	if command := e.Context.Selected(); command != nil && slices.Contains(args, command.Name) {
		return command
	}
	return nil
}

// explain returns the error for a wrong command line, with a hint if there is a good one. Kong's
// own hints are too far from what was written.
func explain(model *kong.Application, args []string, err error) error {
	text, _, _ := strings.Cut(err.Error(), ", did you mean ")
	var known []string
	if flag, ok := strings.CutPrefix(text, "unknown flag --"); ok {
		command := commandOf(args, err)
		if command == nil {
			command = model.DefaultCmd
		}
		for _, f := range command.AllFlags(true) {
			for _, f := range f {
				known = append(known, f.Name)
			}
		}
		err = withHint(text, "--", plugin.Nearest(flag, known))
	} else if word, ok := strings.CutPrefix(text, "unexpected argument "); ok && word == args[0] {
		err = withHint(text, "", plugin.Nearest(word, commandNames(commandsOf(model))))
	} else if flag, ok := withoutValue(text); ok {
		err = fmt.Errorf("%s needs a value", flag)
	} else if argument, ok := strings.CutPrefix(text, "expected \"<"); ok {
		argument, _, _ = strings.Cut(argument, ">")
		err = fmt.Errorf("%s is missing", strings.ToUpper(argument))
	} else if argument, rest, ok := strings.Cut(text, ">: "); ok && argument[0] == '<' {
		err = fmt.Errorf("%s: %s", strings.ToUpper(argument[1:]), rest)
	}
	return forTelegrafUsers(model, args, err)
}

// withoutValue returns the flag that kong's error says has no value.
func withoutValue(text string) (flag string, ok bool) {
	flag, rest, _ := strings.Cut(text, ": ")
	return flag, strings.HasPrefix(rest, "missing value") || strings.HasPrefix(rest, "expected ") && strings.Contains(rest, " value but got ")
}

func withHint(text, prefix, nearest string) error {
	if nearest == "" {
		return errors.New(text)
	}
	return fmt.Errorf("%s, did you mean %q?", text, prefix+nearest)
}

// unknown returns the error for a word that is none of the known ones.
func unknown(kind, word string, known []string) error {
	hint := ""
	if nearest := plugin.Nearest(word, known); nearest != "" {
		hint = fmt.Sprintf("did you mean %q? ", nearest)
	}
	return fmt.Errorf("unknown %s %q (%sknown: %s)", kind, word, hint, strings.Join(known, ", "))
}
