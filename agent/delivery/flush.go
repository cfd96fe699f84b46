package delivery

import (
	"context"
	"sync/atomic"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/plugin"
	"sockwatch/agent/schedule"
)

// A flushSchedule says when an output drains its queue: at each tick of its interval,
// at once if that is 0 or the queue fills up, and when the output ends.
type flushSchedule struct {
	interval, phase time.Duration
	jitter          plugin.Duration
	signals         *signals
	stopping        <-chan struct{} // closed when the program stops
	filled          <-chan struct{} // closed when nothing more will be queued
}

// await waits for the next flush. It reports false when nothing more will be queued.
func (f *flushSchedule) await(ctx context.Context) bool {
	if calls.IsClosed(f.stopping) {
		select {
		case <-f.signals.appended:
			return true
		case <-f.filled:
		case <-ctx.Done():
		}
		return false
	}
	var tick <-chan time.Time
	appended := f.signals.appended
	if f.interval > 0 {
		appended = nil
		t := time.NewTimer(schedule.UntilTick(time.Now(), f.interval, f.phase, true))
		defer t.Stop()
		tick = t.C
	}
	select {
	case <-tick:
	case <-appended:
	case <-f.signals.full:
		return true
	case <-f.stopping:
		return true
	case <-f.filled:
		return false
	case <-ctx.Done():
		return false
	}
	if f.jitter <= 0 {
		return true
	}
	t := time.NewTimer(schedule.Jitter(f.jitter))
	defer t.Stop()
	select {
	case <-t.C:
	case <-f.signals.full:
	case <-f.stopping:
	case <-f.filled:
	case <-ctx.Done():
		return false
	}
	return true
}

// signals wake a delivery when records are appended to its queue.
type signals struct {
	request  int64         // bytes of records in a full Push
	unsent   atomic.Int64  // bytes appended since the last flush
	appended chan struct{} // holds a token if a record was appended
	full     chan struct{} // holds a token if the queue is half full or has a full request
}

func newSignals(request int64) *signals {
	return &signals{request: request, appended: make(chan struct{}, 1), full: make(chan struct{}, 1)}
}

// appendedBytes is called when n bytes of records were appended.
func (s *signals) appendedBytes(n int64, halfFull bool) {
	put(s.appended)
	if s.unsent.Add(n) >= s.request || halfFull {
		put(s.full)
	}
}

// flushed is called when a flush begins.
func (s *signals) flushed() {
	s.unsent.Store(0)
	select {
	case <-s.full:
	default:
	}
}

// put puts a token into a channel with room for one.
func put(token chan<- struct{}) {
	select {
	case token <- struct{}{}:
	default:
	}
}
