package soak

import "testing"

func TestTimes(t *testing.T) {
	for factor, want := range map[string]int{"": 3, "1": 3, "10": 30} {
		t.Setenv(Variable, factor)
		if got := Times(3); got != want {
			t.Errorf("3 times %q is %d, want %d", factor, got, want)
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
