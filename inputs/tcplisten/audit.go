package tcplisten

import (
	"errors"

	"sockwatch/inputs/internal/expect"
)

// A Report lists which listeners of a host break the rules of an input, and which expected
// ones are missing.
type Report = expect.Report

// ErrNoRules means that an input has no rules to compare with.
var ErrNoRules = errors.New("has no rules")

// A Draft holds rules that match the current listeners.
type Draft struct {
	// Rules are those rules as TOML.
	Rules string
	// Unknown are the listeners whose owner is not known. Their rules do not name a process.
	Unknown []string
	// Incomplete describes what could not be read; "" if nothing.
	Incomplete string
}
