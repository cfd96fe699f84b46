package delivery

import (
	"errors"
	"math"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/plugin"
	"sockwatch/agent/schedule"
)

// A catchUp bounds how fast an output sends a backlog: the records that have waited for
// more than two periods, mostly because the destination was down. After an outage every
// host of a fleet has one. So each host spreads its own over twice the time that it took to
// build up: with the new records, the fleet sends one and a half times as much as usual.
// After a long outage that would take too long. Then it takes maxCatchUp.
type catchUp struct {
	period time.Duration // as in delivery; 0: there is no bound
	phase  time.Duration // when within a period it sends: not at the time when the destination came back
	step   int           // records of the backlog to send in each period; 0: no backlog
	keep   int           // records that stay queued in this period
	all    bool          // one of two destinations is up to date: it gets new records at once
}

// maxCatchUp is the maximum time for sending a backlog.
const maxCatchUp = 30 * time.Minute

// minStep is how many records of a backlog are always sent at once: fewer are not worth a
// request.
const minStep = 10

// due returns how many records may be sent now. 0 means that the rest waits for the next
// period.
func (c *catchUp) due(s buffer.Stats) int {
	switch age := time.Since(s.Oldest); {
	case c.period <= 0 || s.Records == 0 || c.all:
		c.step = 0
		return math.MaxInt
	case s.Used > s.Limit/4*3: // a burst is better than a full queue, which drops records
		return math.MaxInt
	case c.step == 0 && age <= 2*c.period:
		return math.MaxInt
	case c.step == 0:
		share := float64(c.period) / float64(min(2*age, maxCatchUp))
		c.step = max(minStep, int(math.Ceil(share*float64(s.Records))))
		c.keep = s.Records - c.step
	}
	c.keep = min(c.keep, s.Records) // the queue may have dropped some
	return s.Records - max(0, c.keep)
}

// failed is called when the records were not sent. While they wait, the backlog grows.
func (c *catchUp) failed(err error) {
	_, progress := errors.AsType[*plugin.ProgressError](err)
	c.step, c.all = 0, progress
}

// resumed is called when records were sent.
func (c *catchUp) resumed() { c.all = false }

// wait returns the time until the next period.
func (c *catchUp) wait() time.Duration {
	return schedule.UntilTick(time.Now(), c.period, c.phase, true)
}

// next begins the next period.
func (c *catchUp) next() {
	if c.keep -= c.step; c.keep <= 0 {
		c.step = 0
	}
}
