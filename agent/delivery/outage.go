package delivery

import (
	"log/slog"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/health"
)

// An outage logs when delivery begins to fail and when it resumes. In between it logs
// changed errors at most once a minute: some differ at each attempt.
type outage struct {
	log    *slog.Logger
	health *health.Output
	queue  *Queue
	once   bool // nothing is retried, and the caller reports the error: log nothing

	logged error // the last one logged; nil if there is no outage
	limit  calls.Throttle
}

func (o *outage) failed(err error, retryIn time.Duration) {
	o.health.SetState(err)
	switch {
	case o.once:
		return
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
