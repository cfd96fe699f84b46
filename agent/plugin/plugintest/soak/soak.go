// Package soak scales the tests that play many random cases. The module's tests have
// three sizes:
//
//   - go test -short ./...  skips each test that takes more than a second or two, and
//     starts no foreign server.
//   - go test ./...  runs every test. A test that plays random cases plays enough of
//     them to notice what a change breaks.
//   - SOCKWATCH_SOAK=10 go test ./...  plays ten times as many. .ci/run does this.
//
// A test whose foreign server is not installed is skipped, or fails if
// SOCKWATCH_REQUIRE_SERVERS is 1. No other variable or flag makes a test longer.
package soak

import (
	"fmt"
	"os"
	"strconv"
)

// Variable is the environment variable that holds the factor, an integer of at least 1.
// If it is not set the factor is 1.
const Variable = "SOCKWATCH_SOAK"

// Times returns n times the factor. It panics if the variable holds no such integer: a
// mistyped factor must not pass for a soak. It may be called before flags are parsed.
func Times(n int) int {
	text := os.Getenv(Variable)
	if text == "" {
		return n
	}
	factor, err := strconv.Atoi(text)
	if err != nil || factor < 1 {
		panic(fmt.Sprintf("%s=%q is not an integer of at least 1", Variable, text))
	}
	return n * factor
}
