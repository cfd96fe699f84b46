// Package soak scales the tests that run many random cases. The module's tests have three
// sizes:
//
//   - go test -short ./...  skips tests that take more than 0.2 s of CPU or need a foreign
//     server, if faster tests cover the same code, and runs a part of the random
//     and the systematic cases.
//   - go test ./...  runs every test but the few that call Only, with enough random cases to
//     notice what a change breaks.
//   - SOCKWATCH_SOAK=10 go test ./...  runs every test, and ten times as many random cases.
//     .ci/run soak does this. A factor of 1 runs every test, with as many cases as without:
//     .ci/run does this.
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

// Variable is the environment variable with the factor, an integer of at least 1. If it
// is not set, the factor is 1.
const Variable = "SOCKWATCH_SOAK"

// Times returns n times the factor or, with -short, a tenth of n but at least 1. It panics
// if the variable is not such an integer: a mistyped factor must not pass as a soak. It
// may be used for the default of a flag; -short has no effect before flags are parsed.
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

// Step returns 1 or, with -short and without the variable, n: a test of every case, such as a
// file that is truncated at each offset, then takes each n-th only.
func Step(n int) int {
	if os.Getenv(Variable) == "" && testing.Short() {
		return n
	}
	return 1
}

// Only skips a test that runs in a soak only, because it takes seconds of CPU and a faster
// test notices most faults. What it does is the reason.
func Only(t testing.TB, what string) {
	t.Helper()
	if os.Getenv(Variable) == "" {
		t.Skipf("%s: runs only with %s", what, Variable)
	}
}
