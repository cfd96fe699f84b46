// Package plugin holds the contracts between the agent and its plugins, and how a plugin
// is defined. It imports only package metric.
//
// plugin.go has the contracts and the Board, optional.go the optional interfaces,
// errors.go the errors that have a meaning to the agent, define.go the definition of a
// plugin, types.go the types of options, optionerror.go their errors, glob.go the globs in
// them (regex.go warns of regular expressions in their place), and lists.go the lists of
// globs and ports that people type. nearest.go finds the word that was probably meant.
package plugin

import (
	"context"
	"time"

	"sockwatch/agent/metric"
)

// An Input takes snapshots. Its life:
//
//  1. NewInput builds it from validated options. It opens nothing.
//  2. If it replaces another Input with the same name at a reload and is an Inheritor,
//     the agent calls InheritFrom.
//  3. The agent calls Gather at each tick of the interval, and when an endpoint asks for
//     it.
//  4. After the last Gather has returned, the agent calls Close, if it is an io.Closer.
//
// An Input that a reload does not use is dropped after step 1.
type Input interface {
	// Gather returns a complete snapshot.
	//
	// If it cannot list everything, it returns an error. Only secondary data may be
	// missing because of the deadline, and Batch.Partial then says so.
	// After an error the batch is discarded, and endpoints stop showing the input's
	// series. Gather itself retries transient errors.
	// Events of a discarded batch must not be lost: they belong in the next one. Events of
	// a published batch are safe when the agent calls Batch.EventsStored. An Input that
	// keeps its events on disk until then returns those without that call again after a
	// restart, unchanged.
	//
	// Gather is never called concurrently with itself.
	// It returns soon after ctx is done.
	// If it has not returned at its timeout, the gather counts as failed and its series
	// are withdrawn. The agent never starts another Gather of the same Input meanwhile:
	// it skips ticks until Gather returns, and then publishes the late batch.
	//
	// The batch belongs to the agent. The plugin must not change it afterwards, but may
	// return the same points again.
	Gather(ctx context.Context) (metric.Batch, error)
}

// A Pusher delivers points to a destination, in order. Its life:
//
//  1. NewPusher builds it from validated options. It opens nothing.
//  2. If it replaces another Pusher with the same name at a reload and is a
//     PushInheritor, the agent calls InheritFrom.
//  3. The agent calls Encode for each point, and Push for the encoded records. The first
//     Push may come before the first Encode, with records that were queued before a
//     restart or by a replaced Pusher.
//  4. At a stop the agent drains the queue for at most shutdown_timeout. Then it cancels
//     the context of the last Push.
//  5. After the last Push has returned, the agent calls Close, if it is an io.Closer.
//     Close returns within a second, even if the destination hangs.
//
// A Pusher that a reload does not use is dropped after step 1.
type Pusher interface {
	// Encode appends one point to dst as one record. If it appends nothing, the destination
	// has no use for the point, such as one with only strings: it is left out.
	//
	// Point.Time is always set. Encode must not change the point.
	// An error rejects only this point.
	// Encode is never called concurrently with itself. It may be called concurrently
	// with Push.
	Encode(dst []byte, p *metric.Point) ([]byte, error)
	// Push sends at least one record.
	//
	// nil means that the destination has stored all of them.
	// A RejectedError means that it can never store some of them. These go to the
	// dead-letter file.
	// A PartialError means that it has rejected some without saying which. These are counted.
	// ErrTooLarge means that fewer records may fit. The agent then sends half as many.
	// A ProgressError means that one of two destinations works.
	// After any other error the agent pushes the same records again, with backoff.
	//
	// Push is never called concurrently with itself.
	// It returns soon after ctx is done. If it does not at a stop, the watchdog ends the
	// program a second after the grace period, with exit code 1. If it does not when a
	// reload replaces its output, it is abandoned, and its result is ignored.
	// The records belong to the agent. Push must not change them, nor keep them after it
	// has returned.
	Push(ctx context.Context, records [][]byte) error
}

// An Endpoint serves the latest batches on request. Its life:
//
//  1. NewEndpoint builds it from validated options. It opens nothing.
//  2. The agent calls Listen, at the start or at a reload. After an error the program
//     does not start, or keeps the running configuration.
//  3. The agent calls Serve with a context that ends when the endpoint is removed or
//     replaced, or the program stops.
//  4. If another instance cannot be opened, the agent does not call Serve. It then calls
//     Close, if the Endpoint is an io.Closer.
//
// At a reload the new Endpoint listens before the context of the old one ends. The agent
// calls its Serve when the Serve of the old one has returned, or after a second.
type Endpoint interface {
	// Listen binds with Env.Listen. It is called once and does not wait for clients.
	Listen(ctx context.Context) error
	// Serve answers requests until ctx is done. It then closes the listeners and returns
	// within a second.
	// If it returns before ctx is done, the error is logged, and the endpoint is down.
	Serve(ctx context.Context, board Board) error
}

// A Board gives an Endpoint access to batches, events and states. All methods may be
// called concurrently. All except Refresh and Details return at once. Results are read-only.
type Board interface {
	// Latest returns the latest batch of every source, filtered for this endpoint and
	// ordered by source.
	//
	// A batch is the same pointer until its source publishes again. Each gather publishes
	// another pointer, even if nothing has changed.
	// A source whose last gather failed has no batch.
	// Latest is empty until the first gather of every input has ended.
	Latest() []*metric.Batch
	// Events returns the last MaxEvents events that passed the filter of this endpoint, in
	// the order of their arrival. Each has its own Time. Events from before the start come
	// first, if their input is an EventRecaller.
	Events() []metric.Point
	// Sources returns the state of every input, ordered by name. It shows whether a
	// source without a batch has failed or has not gathered yet. The agent's own points
	// are a source, too.
	Sources() []SourceState
	// Health returns the state of the program, its outputs and its configuration.
	Health() Health
	// Details asks the input of a source for what it knows about one of its points: p is a
	// point of Latest, or has its name and tags. It returns nil if the input is not a
	// Detailer or the point no longer exists. It waits until ctx is done at most, and delays
	// neither a gather nor a reload nor a stop. Details with the names of tags and fields that
	// the filter of this endpoint removes are left out.
	Details(ctx context.Context, source string, p *metric.Point) ([]DetailSection, error)
	// Changed returns a channel that is closed at the next change: a gather has ended, with
	// a batch or an error, events have arrived, an output has gone down or up, or the
	// configuration was reloaded, with or without success. To miss no change, call it before
	// reading what may have changed. One gather may cause several changes. The sizes of queues
	// change without a signal.
	Changed() <-chan struct{}
	// Refresh gathers the inputs whose batch is older than maxAge and waits for them.
	//
	// It joins a gather in flight, so that concurrent calls share one gather. The gather
	// goes on if ctx ends.
	// A failed gather is not an error of Refresh. The only error is that of ctx.
	// It returns at once during the first gathers after the start. It does not wait for
	// an input that is itself waiting for its predecessor at a reload.
	Refresh(ctx context.Context, maxAge time.Duration) error
}

// MaxEvents is how many events a Board keeps.
const MaxEvents = 2000

// A SourceState is the state of one input.
type SourceState struct {
	// Name is the Source of its batches.
	Name string
	// Gathered is true after the first gather has ended.
	Gathered bool
	// Err is the error of the last gather, or nil if it succeeded. While Err is not nil,
	// the source's batch is withdrawn.
	Err error
	// Since is when Err last changed from or to nil, or when the first gather ended. It
	// is zero before that.
	Since time.Time
	// Tags are the keys of all tags that its points can have, sorted: those of the
	// plugin's Definition and the configured ones. It is nil if the Definition has none.
	Tags []string
	// Limits says what the input cannot see, one sentence each: see LimitReporter.
	Limits []string

	// Duration is how long the last gather took, and Points the number of its points.
	Duration time.Duration
	Points   int
	// Counters since the input was added.
	Gathers, FailedGathers, SkippedGathers, PartialGathers int64
}

// Health is the state of the program, its outputs and its configuration.
type Health struct {
	Version string        // of the program
	Started time.Time     // when the program started
	Outputs []OutputState // including endpoints, ordered by name
	Config  ConfigState
}

// An OutputState is the state of one output.
type OutputState struct {
	Name     string
	Endpoint bool // an endpoint has neither a queue nor counters
	// Err is the error of the last attempt to deliver, or the reason why an endpoint is
	// down. It is nil if the output delivers or serves.
	Err error
	// Since is when Err last changed from or to nil, or when the output was started.
	Since time.Time

	QueuedPoints int
	QueuedBytes  int64     // as stored
	OldestQueued time.Time // when the oldest queued point was queued; zero if there is none

	// Counters since the output was added.
	WrittenPoints, RejectedPoints, DroppedPoints, RetriedPoints, DamagedPoints int64
}

// A ConfigState is the state of the configuration.
type ConfigState struct {
	Loaded time.Time // when the running configuration was adopted
	// Err is the error of the last reload, or nil if it succeeded. After a failed
	// reload the previous configuration is still running.
	Err error
	// Failed is the time of the last failed reload, or zero.
	Failed time.Time
}
