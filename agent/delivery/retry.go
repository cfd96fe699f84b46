package delivery

import (
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"sockwatch/agent/plugin"
	"sockwatch/agent/schedule"
)

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
