package owner

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestScheduleKeepsThePeriod verifies within each minute, also if some Updates follow each other
// closely, and again if a verification has not finished.
func TestScheduleKeepsThePeriod(t *testing.T) {
	start := time.Now()
	for name, test := range map[string]struct {
		updates []float64 // in seconds
		fails   float64
		want    []float64 // when it is due
	}{
		"even":                      {updates: []float64{0, 10, 20, 30, 40, 50, 60, 70, 110, 120}, want: []float64{0, 60, 110}},
		"uneven":                    {updates: []float64{0, 7, 14, 21, 28, 35, 42, 49, 56, 63}, want: []float64{0, 56}},
		"one soon before it is due": {updates: []float64{0, 10, 20, 30, 40, 50, 50.1, 60.1}, want: []float64{0, 50.1}},
		"close, then not":           {updates: []float64{0, 30, 60, 60.1, 119, 119.1, 119.2}, want: []float64{0, 60, 119}},
		"not finished":              {updates: []float64{0, 30, 60, 70, 80}, fails: 60, want: []float64{0, 60, 70}},
		"the same time again":       {updates: []float64{0, 0, 60, 60}, want: []float64{0, 60}},
		"rare":                      {updates: []float64{0, 120, 240}, want: []float64{0, 120, 240}},
	} {
		t.Run(name, func(t *testing.T) {
			var s schedule
			var due []float64
			for _, at := range test.updates {
				now := start.Add(time.Duration(at * float64(time.Second)))
				if !s.due(now, time.Minute) {
					continue
				}
				due = append(due, at)
				if at == 0 || at != test.fails {
					s.finish(now)
				}
			}
			if diff := cmp.Diff(test.want, due); diff != "" {
				t.Errorf("due (-want +got):\n%s", diff)
			}
		})
	}
}
