package agent

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sockwatch/agent/metric"
)

// A gather may last for its timeout of 10 s, and as long again, before the reports stop.
func TestNoKeepaliveWhileAGatherIsOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		reports := new(atomic.Int64)
		r.agent.Keepalive = Keepalive{Interval: time.Second, Report: func(context.Context) { reports.Add(1) }}
		hang, release := new(atomic.Bool), make(chan struct{})
		r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
			if hang.Load() {
				<-release
			}
			return batchOf(), nil
		}))
		r.start()
		within := func(d time.Duration, want int64) {
			t.Helper()
			before := reports.Load()
			after(d)
			if got := reports.Load() - before; got != want {
				t.Errorf("%d reports within %v, want %d", got, d, want)
			}
		}
		after(500 * time.Millisecond) // away from the ticks
		within(9*time.Second, 9)
		hang.Store(true)
		within(20*time.Second, 20) // the gather begins in 0.5 s
		within(time.Minute, 1)
		hang.Store(false)
		close(release)
		within(10*time.Second, 10)
		r.end()
		within(10*time.Second, 0)
	})
}

func TestStopEndsAReportThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.Keepalive = Keepalive{Interval: time.Second, Report: func(ctx context.Context) { <-ctx.Done() }}
		r.agent.input("a", counting())
		r.start()
		after(5 * time.Second)
		r.stop()
		synctest.Wait()
		select {
		case err := <-r.ended:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("the stop waits for the report")
		}
	})
}
