package tcplisten

import (
	"errors"

	"sockwatch/inputs/internal/expect"
)

// A Report says which listeners of a host break the rules of an input, and what is
// missing.
type Report = expect.Report

// ErrNoRules says that an input has no rules to compare with.
var ErrNoRules = errors.New("has no rules")

// A Draft holds rules that what listens now complies with.
type Draft struct {
	// Rules are those rules as TOML.
	Rules string
	// Unknown are the listeners whose owner is not known: their rules name no process.
	Unknown []string
	// Incomplete says what could not be looked at; "" if nothing.
	Incomplete string
}
