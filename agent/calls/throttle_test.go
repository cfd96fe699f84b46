package calls

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestThrottleCountsWhatItHoldsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Throttle
		for _, step := range []struct {
			after time.Duration
			add   int
			want  int
		}{
			{after: 0, add: 0, want: 0},
			{after: 0, add: 2, want: 2},
			{after: time.Second, add: 3, want: 0},
			{after: 58 * time.Second, add: 4, want: 0},
			{after: time.Second, add: 1, want: 8},
			{after: time.Minute, add: 0, want: 0},
		} {
			time.Sleep(step.after)
			if got := h.Add(step.add); got != step.want {
				t.Errorf("after %v more, Add(%d) = %d, want %d", step.after, step.add, got, step.want)
			}
		}
	})
}
