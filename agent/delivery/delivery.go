// Package delivery empties the queue of one output: it pushes records to the destination and applies
// the results.
//
// delivery.go is the path of the data: Run, drain, then peek, push and commit. sender.go calls the
// Pusher. flush.go decides when to drain, catchup.go how fast a backlog is sent, and retry.go when to
// try again. bisect.go finds rejected records that the destination does not name, and rejects.go
// saves them. outage.go logs outages. queue.go wraps a buffer.Queue. receipts.go confirms to inputs
// that their events are stored.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/calls"
	"sockwatch/agent/health"
	"sockwatch/agent/plugin"
	"sockwatch/agent/schedule"
)

// A Config says what one output delivers, where and when.
type Config struct {
	Name        string // of the output, such as "influxdb"
	Pusher      plugin.Pusher
	Timeout     time.Duration // of one Push
	MinInterval time.Duration // how often the output queues points
	FlushEvery  time.Duration // 0: at once
	FlushJitter plugin.Duration
	Host        string // decides when flushes happen (see schedule.HostPhase)
	BufferLimit plugin.Size
	QueueDir    string // the directory of a queue on disk; "": in memory
	DeadLetters string // the path of the dead-letter file; "": none

	Stopping   <-chan struct{} // closed when the program stops
	Filled     <-chan struct{} // closed when nothing more will be queued
	HandedOver func() bool     // reports whether a reload gave the queue to another output

	Health *health.Output
	Calls  *calls.Pending
	Log    *slog.Logger
}

// A Delivery empties the queue of one output.
type Delivery struct {
	Queue   *Queue // the output fills it
	rejects *rejects

	sender     sender
	flush      flushSchedule
	catchUp    catchUp
	bisect     bisect
	outage     outage
	health     *health.Output
	maxBytes   int           // of records in one Push
	persistent bool          // the queue outlives the output: no retries while it ends
	handedOver func() bool   // reports whether a reload gave the queue to another output
	done       chan struct{} // closed when Run has returned

	using     chan struct{} // holds a token while the queue or a field below is used
	abandoned bool          // Run does not return and must no longer use the queue
	leftOpen  bool          // Run has ended; the output that takes over closes the pusher
}

// maxPushBytes bounds one Push of an output that is not a plugin.Bounded.
const maxPushBytes = 1 << 20

// New prepares a delivery. Its queue has yet to be opened or taken over.
func New(c Config) *Delivery {
	period := time.Duration(0) // of the requests; what is sent at once has no server that a fleet could overload
	if c.FlushEvery > 0 {
		period = max(c.FlushEvery, c.MinInterval)
	}
	phase := func(interval time.Duration) time.Duration { return schedule.HostPhase(c.Host, c.Name, interval) }
	maxBytes := maxPushBytes
	if b, ok := c.Pusher.(plugin.Bounded); ok {
		maxBytes = b.MaxBytes()
	}
	q := newQueue(c, maxBytes)
	d := &Delivery{
		Queue:   q,
		rejects: &rejects{file: buffer.NewDeadLetters(c.DeadLetters), health: c.Health, log: c.Log},
		sender:  sender{name: "outputs." + c.Name, pusher: c.Pusher, timeout: c.Timeout, health: c.Health, calls: c.Calls, log: c.Log},
		flush: flushSchedule{
			interval: c.FlushEvery, jitter: c.FlushJitter, phase: phase(c.FlushEvery),
			signals: q.signals, stopping: c.Stopping, filled: c.Filled,
		},
		catchUp: catchUp{period: period, phase: phase(period)},
		outage:  outage{log: c.Log, health: c.Health, queue: q},
		health:  c.Health, maxBytes: maxBytes, persistent: c.QueueDir != "",
		handedOver: c.HandedOver, done: make(chan struct{}), using: make(chan struct{}, 1),
	}
	d.sender.overdue = func() { // Run is waiting for Push, so the outage is not in use
		if c.HandedOver() {
			return // the health is that of the other output
		}
		d.outage.failed(fmt.Errorf("delivery has not ended after %v", plugin.Duration(c.Timeout)), 0)
	}
	return d
}

// Run drains the queue at every flush, and once more after the last record was queued, until ctx is
// done. It then closes the pusher, unless another output takes over.
func (d *Delivery) Run(ctx context.Context) {
	defer close(d.done)
	d.Queue.started()
	for d.flush.await(ctx) {
		d.drain(ctx)
	}
	d.drain(ctx)
	if !d.leaveOpen() {
		d.sender.close()
	}
}

// Done returns a channel that is closed when Run has returned.
func (d *Delivery) Done() <-chan struct{} { return d.done }

// RunOnce delivers what is queued, and gives up at the first attempt that fails. The health of the
// output then has the error, which is not logged.
func (d *Delivery) RunOnce(ctx context.Context) {
	d.persistent, d.outage.once = true, true // no retries
	d.Run(ctx)
}

// drain sends records, oldest first, until the queue is empty, ctx is done, or the
// output is handed over. It sends a backlog slowly (see catchUp), except while the output
// ends. Then a persistent queue is not retried after a failure. If the destination rejects
// records without naming them, bisecting finds them. If the dead-letter file cannot be
// written, rejected records stay queued and are retried.
func (d *Delivery) drain(ctx context.Context) {
	d.flush.signals.flushed()
	retry := newRetry(d.catchUp.period)
	for ctx.Err() == nil && !d.handedOver() {
		due := d.due()
		if due == 0 {
			if !d.pause(ctx, d.catchUp.wait(), false) {
				return
			}
			d.catchUp.next()
			continue
		}
		records, err := d.peek(due)
		if len(records) == 0 && err == nil {
			return
		}
		var rejected map[int]error
		if err == nil {
			rejected, err = d.sender.push(ctx, records)
		}
		progress, err := d.commit(records, rejected, err)
		if progress {
			retry.Reset()
			d.catchUp.resumed()
		}
		if err == nil {
			continue
		}
		if ctx.Err() != nil || errors.Is(err, errAbandoned) {
			return
		}
		wait := retry.wait(err)
		d.outage.failed(err, wait)
		d.catchUp.failed(err)
		if !d.pause(ctx, wait, errors.Is(err, plugin.ErrGone)) {
			return
		}
	}
}

// due returns how many records may be sent now. All of them while the output ends.
func (d *Delivery) due() int {
	if calls.IsClosed(d.flush.stopping) || calls.IsClosed(d.flush.filled) {
		return math.MaxInt
	}
	return d.catchUp.due(d.Queue.Stats())
}

// peek returns the records for the next Push, at most the given number.
func (d *Delivery) peek(atMost int) ([][]byte, error) {
	defer d.sender.calls.Begin(d.sender.name + ": reading its queue")()
	d.using <- struct{}{}
	defer func() { <-d.using }()
	if d.abandoned {
		return nil, errAbandoned
	}
	return d.Queue.peek(min(atMost, d.bisect.size()), d.maxBytes)
}

// commit applies the result of a Push to the queue. Records that are stored leave it,
// and so do rejected ones once they are in the dead-letter file; named holds the reasons
// of those that the destination named, by index. commit reports whether any record
// left the queue. It returns an error if all records have to be pushed again.
func (d *Delivery) commit(records [][]byte, named map[int]error, err error) (progress bool, _ error) {
	defer d.sender.calls.Begin(d.sender.name + ": writing its queue")()
	d.using <- struct{}{}
	defer func() { <-d.using }()
	if d.abandoned {
		return false, errAbandoned
	}
	n, o := len(records), d.bisect.classify(len(records), err)
	var dead []buffer.DeadLetter
	switch o {
	case stored:
		dead = deadLetters(records, named)
	case rejected:
		dead = deadLetters(records, plugin.RejectAll(n, err).Records)
	}
	if kerr := d.rejects.keep(dead); kerr != nil {
		o, err = failed, fmt.Errorf("rejected points cannot be saved: %w (rejection: %v)", kerr, dead[0].Reason) //nolint:errorlint // the rejection is described, not returned
	}
	switch o {
	case stored, rejected:
		d.bisect.commit(n, o)
		lost := len(dead)
		if partial, ok := errors.AsType[*plugin.PartialError](err); ok {
			unnamed := min(partial.Rejected, n-lost)
			d.rejects.lost(unnamed, err)
			lost += unnamed
		}
		if n > lost {
			d.health.Written.Add(int64(n - lost))
			d.outage.ended()
		}
		err = nil
	case split:
		n, err = 0, nil
	case failed:
		d.health.Errors.Add(1)
		d.health.Retried.Add(int64(n))
		n = 0
	}
	d.Queue.ack(n)
	return n > 0, err
}

// errAbandoned is returned by a delivery that has lost its queue.
var errAbandoned = errors.New("abandoned")

// deadLetters returns an entry for each record that has a reason, in order.
func deadLetters(records [][]byte, reasons map[int]error) []buffer.DeadLetter {
	dead := make([]buffer.DeadLetter, 0, len(reasons))
	for _, i := range slices.Sorted(maps.Keys(reasons)) {
		dead = append(dead, buffer.DeadLetter{Record: records[i], Reason: reasons[i]})
	}
	return dead
}

// RejectUnencoded rejects a point that cannot be encoded. It has no record that could stay queued,
// so the point is lost if the dead-letter file cannot be written.
func (d *Delivery) RejectUnencoded(series string, cause error) {
	defer d.sender.calls.Begin(d.sender.name + ": writing the dead-letter file")()
	dead := []buffer.DeadLetter{{Record: []byte(series), Reason: fmt.Errorf("encode: %w", cause)}}
	if err := d.rejects.keep(dead); err != nil {
		d.rejects.lost(1, err)
	}
}

// Abandon takes the queue away from a Run that does not return. It blocks while a
// disk hangs.
func (d *Delivery) Abandon() {
	d.using <- struct{}{}
	d.abandoned = true
	<-d.using
}

// leaveOpen reports whether Run must leave the pusher open, for the output that
// takes over to close it.
func (d *Delivery) leaveOpen() bool {
	d.using <- struct{}{}
	defer func() { <-d.using }()
	d.leftOpen = d.handedOver() && !d.abandoned
	return d.leftOpen
}

// PassOn lets the pusher of another delivery inherit from this one's, which it then
// closes. It does nothing unless Run has ended and left its pusher open.
func (d *Delivery) PassOn(to *Delivery) {
	d.using <- struct{}{}
	open := d.leftOpen
	<-d.using
	if !open {
		return
	}
	defer d.sender.close()
	if inheritor, ok := to.sender.pusher.(plugin.PushInheritor); ok {
		var err error // logged by Recover
		defer to.health.Panics.Recover(&err, to.sender.log)
		inheritor.InheritFrom(d.sender.pusher)
	}
}

// pause waits before the next attempt. It returns early when the output starts to end.
// It reports false if there must be no further attempt.
func (d *Delivery) pause(ctx context.Context, wait time.Duration, gone bool) bool {
	stopping, filled := d.flush.stopping, d.flush.filled
	ending := false
	for _, c := range []*<-chan struct{}{&stopping, &filled} {
		if calls.IsClosed(*c) {
			ending, *c = true, nil
		}
	}
	if ending && (d.persistent || gone) {
		return false
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-stopping:
	case <-filled:
	case <-ctx.Done():
		return false
	}
	return true
}
