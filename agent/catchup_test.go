package agent

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/buffer"
	"sockwatch/agent/plugin"
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

// While one of two destinations is down for an hour, the other one gets every record at once.
func TestADestinationThatFailsDoesNotDelayTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var seen atomic.Int64
		out := &fakePusher{push: func(_ context.Context, records []string) error {
			seen.Store(int64(len(records)))
			return &plugin.ProgressError{Err: errors.New("connection refused")}
		}}
		r.agent.input("a", counting())
		p := r.agent.push("out", out)
		p.Options.FlushInterval, p.Options.NamePass = plugin.Duration(10*time.Second), []string{"count"}
		r.start()
		after(time.Hour)
		if n := seen.Load(); n < 350 {
			t.Errorf("the last of an hour's requests has %d of 360 records", n)
		}
		r.stop()
		r.end()
	})
}

// A stop, or the removal of the output, does not wait for a slow backlog: all of it is sent
// within the grace period.
func TestStopSendsTheWholeBacklog(t *testing.T) {
	for _, disk := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.agent.Options.StateDirectory = t.TempDir()
			var up atomic.Bool
			out := &fakePusher{push: func(context.Context, []string) error {
				if !up.Load() {
					return errors.New("connection refused")
				}
				return nil
			}}
			r.agent.input("a", counting())
			p := r.agent.push("out", out)
			p.Options.FlushInterval = plugin.Duration(10 * time.Second)
			if disk {
				onDisk(p)
			}
			r.start()
			after(time.Hour)
			up.Store(true)
			after(2 * time.Minute)
			if n := len(out.got("count")); n == 0 || n > 150 {
				t.Errorf("%d points of an hour are delivered two minutes after the outage", n)
			}
			began := time.Now()
			if err := r.end(); err != nil {
				t.Error(err)
			}
			if n := len(out.got("count")); n < 372 {
				t.Errorf("%d points are delivered, want all of 62 minutes", n)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("the stop took %v", took)
			}
		})
	}
}
