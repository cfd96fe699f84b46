package delivery

import (
	"errors"
	"testing"
	"time"

	"sockwatch/agent/plugin"
)

// A server that asks every host of a fleet to come back at the same time gets them spread
// over two periods of their flushes.
func TestHostsComeBackAtRandomAfterRetryAfter(t *testing.T) {
	var bins [10]int // of two seconds
	for range 1000 {
		wait := newRetry(10 * time.Second).wait(&plugin.RetryAfterError{Wait: 30 * time.Second, Err: errors.New("busy")})
		if wait < 30*time.Second || wait >= 50*time.Second {
			t.Fatalf("a host comes back after %v", wait)
		}
		bins[(wait-30*time.Second)/(2*time.Second)]++
	}
	for i, n := range bins {
		if n < 40 || n > 160 { // on average 100, standard deviation 9.5
			t.Errorf("%d of 1000 hosts come back in bin %d", n, i)
		}
	}
}

// The first retry comes after a random time up to twice the period, later ones after up to
// a minute, or twice the period if that is longer.
func TestRetriesAreAtRandomUpToTwiceThePeriod(t *testing.T) {
	for _, tt := range []struct {
		period time.Duration
		limits []time.Duration
	}{
		{period: 0, limits: []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute}},
		{period: 10 * time.Second, limits: []time.Duration{20 * time.Second, 40 * time.Second, time.Minute, time.Minute}},
		{period: time.Minute, limits: []time.Duration{2 * time.Minute, 2 * time.Minute}},
	} {
		longest := make([]time.Duration, len(tt.limits))
		for range 1000 {
			r := newRetry(tt.period)
			for i := range longest {
				longest[i] = max(longest[i], r.wait(errors.New("connection refused")))
			}
		}
		for i, limit := range tt.limits {
			if longest[i] > limit+time.Nanosecond || longest[i] < limit*9/10 {
				t.Errorf("period %v: retry %d comes after at most %v, want %v", tt.period, i+1, longest[i], limit)
			}
		}
	}
}
