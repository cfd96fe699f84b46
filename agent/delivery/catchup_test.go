package delivery

import (
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/buffer"
)

// Stats with an age instead of a time.
func backlogOf(records int, age time.Duration) buffer.Stats {
	return buffer.Stats{Records: records, Oldest: time.Now().Add(-age), Limit: math.MaxInt64}
}

func TestFirstShareOfABacklog(t *testing.T) {
	const period = 10 * time.Second
	for _, tt := range []struct {
		name    string
		period  time.Duration
		records int
		age     time.Duration
		used    int64 // percent of the limit
		want    int
	}{
		{name: "what one flush sends is no backlog", period: period, records: 5000, age: period, want: math.MaxInt},
		{name: "nor after a failed request", period: period, records: 5000, age: 2 * period, want: math.MaxInt},
		{name: "ten minutes are spread over twenty", period: period, records: 6000, age: 10 * time.Minute, want: 50},
		{name: "a day is spread over half an hour", period: period, records: 864_000, age: 24 * time.Hour, want: 4800},
		{name: "few records are not spread", period: period, records: 25, age: 24 * time.Hour, want: 10},
		{name: "the last few", period: period, records: 7, age: 24 * time.Hour, want: 7},
		{name: "a nearly full queue is sent at once", period: period, records: 6000, age: time.Hour, used: 76, want: math.MaxInt},
		{name: "without a flush interval nothing is spread", period: 0, records: 6000, age: time.Hour, want: math.MaxInt},
		{name: "an interval longer than the bound", period: time.Hour, records: 6000, age: 3 * time.Hour, want: 6000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := catchUp{period: tt.period}
				s := backlogOf(tt.records, tt.age)
				s.Limit, s.Used = 1000, tt.used*10
				if got := c.due(s); got != tt.want {
					t.Errorf("%d of %d records are due, want %d", got, tt.records, tt.want)
				}
			})
		})
	}
}

// New records are due beside the backlog's. So it becomes smaller however many arrive.
func TestBacklogShrinksByItsShareInEachPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := catchUp{period: 10 * time.Second}
		queued := 600
		var sent []int
		for range 12 {
			age := 10 * time.Second
			if queued > 150 { // in order: the oldest are those of the backlog
				age = 100 * time.Second
			}
			n := min(queued, c.due(backlogOf(queued, age)))
			queued -= n
			if more := c.due(backlogOf(queued, age)); more != 0 && queued > 0 {
				t.Fatalf("%d records are due in the same period", more)
			}
			sent = append(sent, n)
			queued += 60
			if len(sent) == 3 {
				queued += 90 // a burst
			}
			c.next()
		}
		want := []int{30, 90, 90, 180, 90, 90, 90, 90, 90, 90, 90, 90}
		if diff := cmp.Diff(want, sent); diff != "" {
			t.Errorf("sent (-want +got):\n%s", diff)
		}
	})
}

// A full queue drops records. Then the plan must not wait until as many have arrived.
func TestDroppedRecordsDoNotStallABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := catchUp{period: 10 * time.Second}
		c.due(backlogOf(6000, 10*time.Minute))
		if got := c.due(backlogOf(1000, 10*time.Minute)); got != 0 {
			t.Errorf("%d are due in the same period", got)
		}
		c.next()
		if got := c.due(backlogOf(1000, 10*time.Minute)); got != 50 {
			t.Errorf("%d are due in the next period, want 50", got)
		}
	})
}

// After another outage the backlog is larger, and the plan another one.
func TestAnotherOutageMakesAnotherPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := catchUp{period: 10 * time.Second}
		c.due(backlogOf(6000, 10*time.Minute))
		c.failed(errors.New("connection refused"))
		if got := c.due(backlogOf(12_000, 20*time.Minute)); got != 67 {
			t.Errorf("%d are due, want 12,000 records over half an hour: 67", got)
		}
	})
}
