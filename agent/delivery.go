package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"sockwatch/agent/buffer"
	"sockwatch/agent/calls"
	"sockwatch/agent/health"
	"sockwatch/agent/plugin"
	"sockwatch/agent/schedule"
)

// A delivery empties the queue of one output.
type delivery struct {
	sender     sender
	queue      *outputQueue
	rejects    *rejects
	health     *health.Output
	maxBytes   int  // of records in one Push
	persistent bool // the queue outlives the output: no retries while it ends
	flush      flushSchedule
	period     time.Duration // flush_interval, or min_interval if that is longer; 0: everything is sent at once
	catchUp    catchUp
	bisect     bisect
	outage     outage
	handedOver func() bool   // reports whether a reload gave the queue to another output
	done       chan struct{} // closed when deliver has returned

	using     chan struct{} // holds a token while the queue or a field below is used
	abandoned bool          // deliver does not return and must no longer use the queue
	leftOpen  bool          // deliver has ended; the output that takes over closes the pusher
}

// A sender calls the Pusher of one output.
type sender struct {
	name    string // for the watchdog's message
	pusher  plugin.Pusher
	timeout time.Duration // of one Push
	overdue func()        // called when a Push has not returned pushGrace after its timeout
	health  *health.Output
	calls   *calls.Pending
	log     *slog.Logger
}

// pushGrace is how long after its timeout a Push may take to return.
const pushGrace = time.Second

// push sends records. If the destination names records that it rejects and stores none
// of the others, push sends the others again. It returns the reasons of the rejected
// records by index.
func (s *sender) push(ctx context.Context, records [][]byte) (rejected map[int]error, err error) {
	rejected = map[int]error{}
	rest, index := records, []int(nil) // records to send next, and their indexes; nil: all
	for {
		err := s.callPush(ctx, rest)
		named, ok := errors.AsType[*plugin.RejectedError](err)
		if !ok {
			return rejected, err
		}
		var others [][]byte
		var othersIndex []int
		for i, r := range rest {
			at := i
			if index != nil {
				at = index[i]
			}
			if reason := named.Records[i]; reason != nil {
				rejected[at] = reason
			} else {
				others, othersIndex = append(others, r), append(othersIndex, at)
			}
		}
		switch {
		case len(others) == len(rest): // none is named
			return rejected, err
		case len(others) == 0 || named.OthersStored:
			return rejected, nil
		}
		rest, index = others, othersIndex
	}
}

func (s *sender) callPush(ctx context.Context, records [][]byte) (err error) {
	defer s.calls.Begin(s.name + ": Push")()
	noted := make(chan struct{})
	overdue := time.AfterFunc(s.timeout+pushGrace, func() {
		defer close(noted)
		s.overdue()
	})
	defer func() {
		if !overdue.Stop() {
			<-noted
		}
	}()
	defer s.health.Panics.Recover(&err, s.log)
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.pusher.Push(ctx, records)
}

func (s *sender) close() {
	defer s.calls.Begin(s.name + ": Close")()
	calls.Close(s.pusher, s.log)
}

// due returns how many records may be sent now. All of them while the output ends.
func (d *delivery) due() int {
	if calls.IsClosed(d.flush.stopping) || calls.IsClosed(d.flush.filled) {
		return math.MaxInt
	}
	return d.catchUp.due(d.queue.Stats())
}

// peek returns the records for the next Push, at most the given number.
func (d *delivery) peek(atMost int) ([][]byte, error) {
	defer d.sender.calls.Begin(d.sender.name + ": reading its queue")()
	d.using <- struct{}{}
	defer func() { <-d.using }()
	if d.abandoned {
		return nil, errAbandoned
	}
	return d.queue.Peek(min(atMost, d.bisect.size()), d.maxBytes)
}

// commit applies the result of a Push to the queue. Records that are stored leave it,
// and so do rejected ones once they are in the dead-letter file; named holds the reasons
// of those that the destination named, by index. commit reports whether any record
// left the queue. It returns an error if all records have to be pushed again.
func (d *delivery) commit(records [][]byte, named map[int]error, err error) (progress bool, _ error) {
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
		dead = deadLetters(records, allFor(n, err))
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
	d.queue.ack(n)
	return n > 0, err
}

// errAbandoned is returned by a delivery that has lost its queue.
var errAbandoned = errors.New("abandoned")

func allFor(n int, reason error) map[int]error { return plugin.RejectAll(n, reason).Records }

// deadLetters returns an entry for each record that has a reason, in order.
func deadLetters(records [][]byte, reasons map[int]error) []buffer.DeadLetter {
	dead := make([]buffer.DeadLetter, 0, len(reasons))
	for _, i := range slices.Sorted(maps.Keys(reasons)) {
		dead = append(dead, buffer.DeadLetter{Record: records[i], Reason: reasons[i]})
	}
	return dead
}

// abandon takes the queue away from a deliver that does not return. It blocks while a
// disk hangs.
func (d *delivery) abandon() {
	d.using <- struct{}{}
	d.abandoned = true
	<-d.using
}

// leaveOpen reports whether deliver must leave the pusher open, for the output that
// takes over to close it.
func (d *delivery) leaveOpen() bool {
	d.using <- struct{}{}
	defer func() { <-d.using }()
	d.leftOpen = d.handedOver() && !d.abandoned
	return d.leftOpen
}

// passOn lets the pusher of another delivery inherit from this one's, which it then
// closes. It does nothing unless deliver has ended and left its pusher open.
func (d *delivery) passOn(to *delivery) {
	d.using <- struct{}{}
	open := d.leftOpen
	<-d.using
	if !open {
		return
	}
	defer d.sender.close()
	if inheritor, ok := to.sender.pusher.(plugin.PushInheritor); ok {
		var err error // logged by recover
		defer to.health.Panics.Recover(&err, to.sender.log)
		inheritor.InheritFrom(d.sender.pusher)
	}
}

// pause waits before the next attempt. It returns early when the output starts to end.
// It reports false if there must be no further attempt.
func (d *delivery) pause(ctx context.Context, wait time.Duration, gone bool) bool {
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

// A retry computes the wait after each failure in a row: exponential backoff with full
// jitter, so that the hosts of a fleet do not retry at the same time. On average it is at
// least the period of the flushes: a fleet sends fewer than twice as many requests to a
// server that fails as to one that works.
type retry struct {
	*backoff.ExponentialBackOff
	period time.Duration
}

func newRetry(period time.Duration) retry {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.Multiplier, b.MaxInterval = max(time.Second, period), 2, max(30*time.Second, period)
	b.RandomizationFactor = 1
	return retry{b, period}
}

// maxRetryAfter caps the wait that a destination asks for.
const maxRetryAfter = 10 * time.Minute

// wait returns the wait after err. If the destination names a time, it may have named the
// same to all hosts, so they come back at random within two periods after it.
func (r retry) wait(err error) time.Duration {
	if after, ok := errors.AsType[*plugin.RetryAfterError](err); ok && after.Wait > 0 {
		return min(after.Wait, maxRetryAfter) + schedule.Jitter(plugin.Duration(2*r.period))
	}
	return r.NextBackOff()
}

// An outage logs when delivery begins to fail and when it resumes. In between it logs
// changed errors at most once a minute: some differ at each attempt.
type outage struct {
	log    *slog.Logger
	health *health.Output
	queue  *outputQueue

	logged error // the last one logged; nil if there is no outage
	limit  calls.Throttle
}

func (o *outage) failed(err error, retryIn time.Duration) {
	o.health.SetState(err)
	switch {
	case o.logged == nil:
		o.limit = calls.Throttle{}
	case err.Error() == o.logged.Error():
		return
	}
	if o.limit.Add(1) > 0 {
		o.log.Warn("delivery failed, will retry", "error", err, "queued", o.queue.Stats().Records, "retry_in", retryIn.Round(time.Millisecond))
		o.logged = err
	}
}

func (o *outage) ended() {
	o.health.SetState(nil)
	if o.logged != nil {
		o.log.Info("delivery resumed", "queued", o.queue.Stats().Records)
		o.logged = nil
	}
}

// rejects saves and counts the records that can never be stored.
type rejects struct {
	file     *buffer.DeadLetters
	health   *health.Output
	log      *slog.Logger
	throttle calls.Throttle
}

// keep counts entries and writes them to the dead-letter file, if there is one. If that
// fails, they are not counted.
func (r *rejects) keep(entries []buffer.DeadLetter) error {
	if len(entries) == 0 {
		return nil
	}
	if err := r.file.Add(entries); err != nil {
		return err
	}
	r.health.Rejected.Add(int64(len(entries)))
	n := r.throttle.Add(len(entries))
	switch first := entries[0]; {
	case n == 0:
	case r.file.Path() == "":
		r.log.Warn("points rejected, not saved without a state directory", "points", n, "error", first.Reason, "first", excerpt(first.Record))
	default:
		r.log.Warn("points rejected, saved in the dead-letter file", "points", n, "error", first.Reason, "file", r.file.Path())
	}
	return nil
}

// lost counts rejected points that could not be saved.
func (r *rejects) lost(n int, err error) {
	r.health.Rejected.Add(int64(n))
	if n := r.throttle.Add(n); n > 0 {
		r.log.Error("points rejected and not saved", "points", n, "error", err)
	}
}

// excerpt returns the beginning of a record, for the log.
func excerpt(record []byte) string { return string(record[:min(len(record), 300)]) }
