// Package soak scales the tests that play many random cases. The module's tests have
// three sizes:
//
//   - go test -short ./...  skips each test that takes longer than a few seconds, starts
//     no foreign server, and plays a tenth of the random cases.
//   - go test ./...  runs every test. A test that plays random cases plays enough of
//     them to notice what a change breaks.
//   - SOCKWATCH_SOAK=10 go test ./...  plays ten times as many. .ci/run does this.
//
// A test whose foreign server is not installed is skipped, or fails if
// SOCKWATCH_REQUIRE_SERVERS is 1. No other variable or flag makes a test longer.
package soak

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
)

// Variable is the environment variable that holds the factor, an integer of at least 1.
// If it is not set the factor is 1.
const Variable = "SOCKWATCH_SOAK"

// Times returns n times the factor, or a tenth of n, but at least 1, with -short. It
// panics if the variable holds no such integer: a mistyped factor must not pass for a
// soak. It may give the default of a flag; before flags are parsed -short is not known,
// and does not count.
func Times(n int) int {
	text := os.Getenv(Variable)
	if text == "" && flag.Parsed() && testing.Short() {
		return max(1, n/10)
	}
	if text == "" {
		return n
	}
	factor, err := strconv.Atoi(text)
	if err != nil || factor < 1 {
		panic(fmt.Sprintf("%s=%q is not an integer of at least 1", Variable, text))
	}
	return n * factor
}
