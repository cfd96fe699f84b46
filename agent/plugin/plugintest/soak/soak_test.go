package soak

import (
	"flag"
	"strconv"
	"testing"
)

func TestTimes(t *testing.T) {
	short := testing.Short()
	defer flag.Set("test.short", strconv.FormatBool(short))
	tests := []struct {
		factor string
		short  bool
		n      int
		want   int
	}{
		{factor: "", n: 30, want: 30},
		{factor: "1", n: 30, want: 30},
		{factor: "10", n: 30, want: 300},
		{factor: "", short: true, n: 30, want: 3},
		{factor: "", short: true, n: 4, want: 1},
		{factor: "10", short: true, n: 30, want: 300},
	}
	for _, tt := range tests {
		t.Setenv(Variable, tt.factor)
		flag.Set("test.short", strconv.FormatBool(tt.short))
		if got := Times(tt.n); got != tt.want {
			t.Errorf("%d times %q, short %t: got %d, want %d", tt.n, tt.factor, tt.short, got, tt.want)
		}
	}
}

func TestStepIsLongerWithShort(t *testing.T) {
	short := testing.Short()
	defer flag.Set("test.short", strconv.FormatBool(short))
	tests := []struct {
		factor string
		short  bool
		want   int
	}{
		{factor: "", want: 1},
		{factor: "10", want: 1},
		{factor: "", short: true, want: 7},
		{factor: "10", short: true, want: 1},
	}
	for _, tt := range tests {
		t.Setenv(Variable, tt.factor)
		flag.Set("test.short", strconv.FormatBool(tt.short))
		if got := Step(7); got != tt.want {
			t.Errorf("%s=%q, short %t: got %d, want %d", Variable, tt.factor, tt.short, got, tt.want)
		}
	}
}

func TestFactorThatIsNotAPositiveIntegerPanics(t *testing.T) {
	for factor, want := range map[string]string{
		"0":    `SOCKWATCH_SOAK="0" is not an integer of at least 1`,
		"-2":   `SOCKWATCH_SOAK="-2" is not an integer of at least 1`,
		"many": `SOCKWATCH_SOAK="many" is not an integer of at least 1`,
	} {
		t.Setenv(Variable, factor)
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("recovered %v, want %s", got, want)
				}
			}()
			Times(3)
		}()
	}
}

func TestOnlySkipsWithoutTheVariable(t *testing.T) {
	for factor, want := range map[string]bool{"": true, "1": false, "10": false} {
		t.Setenv(Variable, factor)
		var skipped bool
		t.Run("factor "+factor, func(t *testing.T) {
			defer func() { skipped = t.Skipped() }()
			Only(t, "does nothing")
		})
		if skipped != want {
			t.Errorf("%s=%q: skipped %t, want %t", Variable, factor, skipped, want)
		}
	}
}
