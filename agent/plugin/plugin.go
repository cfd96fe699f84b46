// Package plugin holds the contracts between the agent and its plugins, and the
// definitions by which a plugin says what it is. It imports nothing but metric.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sockwatch/agent/metric"
)

// An Input takes snapshots.
type Input interface {
	// Gather returns everything there is now: the listing is whole or an error;
	// only what decorates it may be cut by the deadline, and Partial says so.
	// On error the batch is discarded and the input's series vanish from
	// endpoints; transient faults are retried inside; a discarded batch loses no
	// event. Gather is never called concurrently with itself, and returns soon
	// after ctx is done; one that does not is withdrawn from the board at its
	// timeout, counted, and awaited before the next. An io.Closer is closed last.
	Gather(ctx context.Context) (metric.Batch, error)
}

// An Inheritor is an Input that can take over what another one knew. When a reload
// replaces an Input by one with other options, the agent calls InheritFrom with the
// old one. It is called at most once, before the first Gather, after the last Gather
// of the old Input has returned and it is closed. It is not called if that Gather
// hangs.
type Inheritor interface{ InheritFrom(predecessor Input) }

// ErrRejected is wrapped by the errors of a Push of which at least one record
// can never be stored, ErrTooLarge by those that fewer records would mend.
//
// Two kinds of ErrRejected spare the agent a search: ErrAllRejected where the
// destination says that it takes none of the records, and ErrOthersStored where it
// has stored those that it does not reject.
var (
	ErrRejected     = errors.New("rejected")
	ErrTooLarge     = errors.New("too large")
	ErrAllRejected  = fmt.Errorf("%w, all of it", ErrRejected)
	ErrOthersStored = fmt.Errorf("%w in part", ErrRejected)
)

// ErrGone is wrapped by the errors of a Push whose destination does not come back
// while the program runs, such as a pipe without a reader: a stop does not wait
// for it.
var ErrGone = errors.New("gone")

// A RejectedError is an error of a Push whose destination named the records that it
// can never store. Each of them goes to the dead letters with its own reason.
type RejectedError struct {
	// Records holds the reason of each rejected record, by its index in the Push. It
	// is not empty.
	Records map[int]error
	// OthersStored reports that the destination has stored all other records of the
	// Push. If it is false, the agent pushes the others again.
	OthersStored bool
}

// Error gives the reason of the first rejected record, and the number of the others.
func (e *RejectedError) Error() string {
	if len(e.Records) == 0 {
		return "rejected"
	}
	first := e.Records[slices.Min(slices.Collect(maps.Keys(e.Records)))]
	if n := len(e.Records) - 1; n > 0 {
		return fmt.Sprintf("%v (and %d more rejected records)", first, n)
	}
	return first.Error()
}

// A RetryAfterError is an error of a Push whose destination said when to come
// back. The agent waits that long, ten minutes at most, before it tries again.
type RetryAfterError struct {
	Wait time.Duration
	Err  error
}

// Error says what the destination answered and when it is asked again.
func (e *RetryAfterError) Error() string {
	return fmt.Sprintf("%v (to be tried again after %v)", e.Err, e.Wait)
}

// Unwrap returns what the destination answered.
func (e *RetryAfterError) Unwrap() error { return e.Err }

// A Pusher delivers points to a destination, in order.
type Pusher interface {
	// Encode appends one point, its Time set, as one record. It is called before
	// the record enters the queue, never concurrently with itself, perhaps
	// concurrently with Push; an error rejects that point alone.
	Encode(dst []byte, p *metric.Point) ([]byte, error)
	// Push sends records, perhaps encoded before a restart. nil: all are stored.
	// The agent halves on ErrRejected and ErrTooLarge until what fails stands
	// alone, and dead-letters that; it retries everything else, after
	// RetryAfterError.Wait where the destination said so. Push is never called
	// concurrently with itself, keeps no record after it returns, and returns
	// soon after ctx is done. An io.Closer is closed last.
	Push(ctx context.Context, records [][]byte) error
}

// A Bounded is a Pusher that wants at most MaxBytes of records in one Push, each a
// byte more for what will end it, unless a single record is larger.
type Bounded interface{ MaxBytes() int }

// An Endpoint shows the latest batches to whoever asks.
type Endpoint interface {
	// Listen binds; its error is a start error. It is called once, before Serve.
	Listen(ctx context.Context) error
	// Serve answers until ctx is done, and has released what Listen bound when it
	// returns. An error before that is logged and the endpoint is down. An
	// Endpoint that is an io.Closer is closed where Serve is never called.
	Serve(ctx context.Context, board Board) error
}

// A HealthReporter is an Endpoint that can fail while Serve runs, such as one whose
// certificate is replaced by a broken one.
type HealthReporter interface {
	// ReportHealth is called once, before Serve. The Endpoint calls report with the
	// reason when it no longer answers, and with nil when it answers again. The agent
	// logs each change once and shows it as sockwatch_output_up. report does not block,
	// and may be called concurrently, until Serve returns.
	ReportHealth(report func(error))
}

// A Reloader is an Endpoint that depends on more than its options, such as on files.
type Reloader interface {
	// Reload is called at each reload of the configuration that leaves the Endpoint
	// as it is, while Serve runs. It does not block: what it causes is done by Serve.
	Reload()
}

// A Board holds the latest batch of every input.
type Board interface {
	// Latest returns them ordered by source, filtered for this endpoint; they
	// must not be changed, and are the same pointers until a source publishes.
	// It is empty until every input has gathered once (or failed to); a source
	// whose gather failed is missing.
	Latest() []*metric.Batch
	// Refresh gathers the inputs whose batch is older than maxAge, joining a
	// gather under way, one for all who ask at the same time; a failed input does
	// not fail it, and it outlives the ctx of whoever asked. Its only error is
	// that of ctx.
	Refresh(ctx context.Context, maxAge time.Duration) error
	// Sources returns the state of every input, ordered by name: it tells a source
	// whose last gather failed from one that has nothing. The agent's own points are
	// a source too.
	Sources() []SourceState
}

// A SourceState is the state of one input.
type SourceState struct {
	// Name is the Source of its batches.
	Name string
	// Gathered reports that a gather has ended since the input was started.
	Gathered bool
	// Err is the error of the last gather, nil if it gave a batch. While it is not nil
	// the source's batch is withdrawn.
	Err error
	// Tags are the keys of the tags that its points can have, sorted: those that its
	// plugin's Definition names and the global ones. It is nil if the Definition names
	// none.
	Tags []string
}
