// Package plugin holds the contracts between the agent and its plugins, and the
// definitions by which a plugin says what it is. It imports nothing but metric.
//
// plugin.go has the contracts and the Board, optional.go the list of everything that
// a plugin may implement besides, errors.go the errors that the agent acts upon,
// define.go the definitions, types.go the types of options, glob.go the globs in them.
package plugin

import (
	"context"
	"time"

	"sockwatch/agent/metric"
)

// An Input takes snapshots. Its life:
//
//  1. NewInput builds it from validated options. It opens nothing.
//  2. If it replaces another Input of its name at a reload and is an Inheritor, the
//     agent calls InheritFrom.
//  3. The agent calls Gather at each tick of the interval, and when an endpoint asks
//     for it.
//  4. At the end, after the last Gather has returned, the agent calls Close if there
//     is one.
//
// An Input that a reload does not use is dropped after step 1.
type Input interface {
	// Gather returns everything there is now.
	//
	// The listing is complete, or Gather returns an error. Only what decorates the
	// listing may be cut short by the deadline, and Batch.Partial says so.
	// An error discards the batch, and endpoints no longer show the input's series.
	// Transient faults are retried inside of Gather.
	// A discarded batch must not lose events: they are in the next one.
	//
	// Gather is never called concurrently with itself.
	// It returns soon after ctx is done.
	// If it has not returned at its timeout, its series are withdrawn and the gather
	// counts as failed. The agent never abandons it for another Gather of the same
	// Input: ticks are skipped until it returns, and what it then returns is published.
	//
	// The batch belongs to the agent. The plugin changes nothing of it afterwards, and
	// may return the same points again.
	Gather(ctx context.Context) (metric.Batch, error)
}

// A Pusher delivers points to a destination, in order. Its life:
//
//  1. NewPusher builds it from validated options. It opens nothing.
//  2. If it replaces another Pusher of its name at a reload and is a PushInheritor, the
//     agent calls InheritFrom.
//  3. The agent calls Encode for each point, and Push for the records that Encode
//     made. The first Push may come before the first Encode: with records that the
//     queue has kept from before a restart, or from the Pusher that this one replaces.
//  4. At a stop the agent pushes what is queued for as long as shutdown_timeout lets
//     it. Then it ends the context of the last Push.
//  5. After the last Push has returned the agent calls Close if there is one. Close
//     returns within a second, even if the destination hangs.
//
// A Pusher that a reload does not use is dropped after step 1.
type Pusher interface {
	// Encode appends one point to dst as one record.
	//
	// Point.Time is always set. Encode must not change the point.
	// An error rejects this point alone.
	// Encode is never called concurrently with itself. It may be called concurrently
	// with Push.
	Encode(dst []byte, p *metric.Point) ([]byte, error)
	// Push sends records. There is at least one.
	//
	// nil means that the destination has stored all of them.
	// A RejectedError means that it can never store some of them: these go to the dead
	// letters.
	// ErrTooLarge means that fewer records may fit: the agent sends half as many.
	// After any other error the agent pushes the same records again, with backoff.
	//
	// Push is never called concurrently with itself.
	// It returns soon after ctx is done. If it does not, the program ends a second after
	// the grace period, by exit code 1. A Push that does not return when a reload replaces
	// its output is abandoned: what it returns later is ignored.
	// The records belong to the agent. Push changes none of them, and keeps none after
	// it has returned.
	Push(ctx context.Context, records [][]byte) error
}

// An Endpoint shows the latest batches to those who ask. Its life:
//
//  1. NewEndpoint builds it from validated options. It opens nothing.
//  2. The agent calls Listen, at the start or at a reload. An error is one of the
//     configuration: the program does not start, or keeps what is running.
//  3. The agent calls Serve with a context that ends when the endpoint is removed,
//     replaced or the program stops.
//  4. If the agent does not call Serve after Listen, since another instance cannot be
//     opened, it calls Close if there is one.
//
// At a reload the new Endpoint listens before the context of the old one ends. Its Serve
// is called when that of the old one has returned, a second later at the latest.
type Endpoint interface {
	// Listen binds, by Env.Listen. It is called once, and does not wait for clients.
	Listen(ctx context.Context) error
	// Serve answers until ctx is done. It returns within a second after that, and has
	// then released what Listen bound.
	// An error before ctx is done is logged, and the endpoint is down.
	Serve(ctx context.Context, board Board) error
}

// A Board shows an Endpoint what the agent knows. All methods may be called
// concurrently. All but Refresh return at once. What they return must not be changed.
type Board interface {
	// Latest returns the latest batch of every source, filtered for this endpoint and
	// ordered by source.
	//
	// A batch is the same pointer until its source publishes again.
	// There is none of a source whose last gather failed.
	// Latest is empty until every input has gathered once, or has failed to.
	Latest() []*metric.Batch
	// Events returns the last MaxEvents events that passed the filter of this endpoint,
	// in the order of their arrival, oldest first. Each has a Time of its own.
	Events() []metric.Point
	// Sources returns the state of every input, ordered by name. It tells a source
	// whose last gather failed from one that has nothing. The agent's own points are a
	// source too.
	Sources() []SourceState
	// Health returns the state of the outputs and of the configuration.
	Health() Health
	// Changed returns a channel that is closed at the next change: a source has
	// published or failed, an output has gone down or up, or the configuration was
	// reloaded. To miss no change, call it before reading what may have changed.
	Changed() <-chan struct{}
	// Refresh gathers the inputs whose batch is older than maxAge and waits for them.
	//
	// It joins a gather that is in flight, and one gather serves all who ask at the
	// same time. The gather outlives the ctx of those who asked.
	// A failed gather is not an error of Refresh. Its only error is that of ctx.
	// It returns at once during the first gathers after the start, and does not wait
	// for an input that waits for its predecessor at a reload.
	Refresh(ctx context.Context, maxAge time.Duration) error
}

// MaxEvents is the number of events that a Board keeps.
const MaxEvents = 2000

// A SourceState is the state of one input.
type SourceState struct {
	// Name is the Source of its batches.
	Name string
	// Gathered reports that a gather has ended since the input was started.
	Gathered bool
	// Err is the error of the last gather, nil if it gave a batch. While it is not nil
	// the source's batch is withdrawn.
	Err error
	// Since is the time of the first gather after which Err has been nil, or has not
	// been nil. It is zero before the first gather has ended.
	Since time.Time
	// Tags are the keys of the tags that its points can have, sorted: those that its
	// plugin's Definition names and the global ones. It is nil if the Definition names
	// none.
	Tags []string
}

// Health is the state of the outputs and of the configuration.
type Health struct {
	Outputs []OutputState // of endpoints too, ordered by name
	Config  ConfigState
}

// An OutputState is the state of one output.
type OutputState struct {
	Name     string
	Endpoint bool // it serves, and has neither a queue nor counters
	// Err is the error of the last attempt to deliver, or with which an endpoint has
	// ended. It is nil if the output delivers or serves.
	Err error
	// Since is the time of the start, or since which Err has been nil, or has not been
	// nil.
	Since time.Time

	QueuedPoints int
	QueuedBytes  int64     // as they count against buffer_limit
	OldestQueued time.Time // when the oldest queued point was queued; zero if there is none

	// Counters since the output was added.
	WrittenPoints, RejectedPoints, DroppedPoints, RetriedPoints, DamagedPoints int64
}

// A ConfigState is the state of the configuration.
type ConfigState struct {
	Loaded time.Time // when the running configuration was adopted
	// Err is the error of the last reload, nil if it was adopted. The configuration
	// before it is still running then.
	Err error
	// Failed is the time of the last reload that was not adopted, zero if there was
	// none.
	Failed time.Time
}
