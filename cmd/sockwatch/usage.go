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
	}
	return forTelegrafUsers(model, args, err)
}

func withHint(text, prefix, nearest string) error {
	if nearest == "" {
		return errors.New(text)
	}
	return fmt.Errorf("%s, did you mean %q?", text, prefix+nearest)
}
