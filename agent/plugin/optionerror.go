package plugin

import (
	"errors"
	"fmt"
	"strings"
)

// An OptionError is an error in the value of one option.
type OptionError struct {
	Option string
	Err    error
}

// Error returns the option and the error.
func (e *OptionError) Error() string { return e.Option + ": " + e.Err.Error() }

// Unwrap returns the error without the option.
func (e *OptionError) Unwrap() error { return e.Err }

// Invalid returns an error of one option, for Validate.
func Invalid(option, format string, args ...any) error {
	return &OptionError{option, Errorf(format, args...)}
}

// Errorf is fmt.Errorf for errors about values of options. It keeps the operands separate
// from the text, so that Show can hide a secret.
func Errorf(format string, args ...any) error {
	return &valueError{format, args, fmt.Errorf(format, args...)}
}

type valueError struct {
	format string
	args   []any
	err    error
}

func (e *valueError) Error() string { return e.err.Error() }
func (e *valueError) Unwrap() error { return e.err }

// Show returns the text of an error with each string operand replaced by show. An error
// that does not come from Invalid, Errorf or errors.Join counts as one operand.
func Show(err error, show func(operand string) string) string {
	switch e := err.(type) { //nolint:errorlint // it goes down one level at a time
	case *OptionError:
		return e.Option + ": " + Show(e.Err, show)
	case *valueError:
		args := make([]any, len(e.args))
		for i, arg := range e.args {
			switch arg := arg.(type) {
			case string:
				args[i] = show(arg)
			case error:
				args[i] = errors.New(Show(arg, show))
			default:
				args[i] = arg
			}
		}
		return fmt.Errorf(e.format, args...).Error()
	case interface{ Unwrap() []error }:
		var lines []string
		for _, err := range e.Unwrap() {
			lines = append(lines, Show(err, show))
		}
		return strings.Join(lines, "\n")
	default:
		return show(err.Error())
	}
}
