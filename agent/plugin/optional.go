package plugin

import (
	"context"
	"time"
)

// This file lists what a plugin may implement or return besides its contract.
//
//	interface       implemented by  meaning
//	Inheritor       Input           takes over what a replaced Input knew
//	Watcher         Input           asks for a gather when something has changed
//	PushInheritor   Pusher          takes over the stream of a replaced Pusher
//	Bounded         Pusher          limits the bytes of one Push
//	Restamper       Pusher          gives a record another time
//	HealthReporter  Endpoint        says that it no longer answers
//	Reloader        Endpoint        is told of a reload that keeps it
//	Exclusive       Options         names what only one instance may have (define.go)
//	io.Closer       all             releases what it holds, as the last call
//
//	error            returned by  meaning
//	RejectedError    Push         some records can never be stored
//	ErrTooLarge      Push         fewer records may fit
//	RetryAfterError  Push         the destination named the time of the next attempt
//	ErrGone          Push         the destination does not come back: a stop does not wait for it

// An Inheritor is an Input that can take over what another one knew. When a reload
// replaces an Input by one with other options, the agent calls InheritFrom with the
// old one. It is called at most once, before the first Gather, after the last Gather
// of the old Input has returned and it is closed. It is not called if that Gather
// hangs.
type Inheritor interface{ InheritFrom(predecessor Input) }

// A Watcher is an Input that notices changes between two ticks.
type Watcher interface {
	// Watch calls changed when something has changed since the last Gather.
	//
	// The agent calls it once, after the first Gather has returned, and waits for it
	// before Close. It returns soon after ctx is done. If it returns earlier or panics,
	// it is not called again.
	// Gather and Watch may run concurrently.
	// changed asks for a gather at once, or, if one is in flight, for another one after
	// it. It does not block, may be called concurrently, and does nothing after ctx is
	// done. Many calls may be answered by one gather; there is no other limit.
	Watch(ctx context.Context, changed func())
}

// A PushInheritor is a Pusher that can take over what another one holds, such as a
// stream that has taken a part of a record. When a reload replaces a Pusher by one with
// other options, the agent calls InheritFrom with the old one. It is called at most
// once, before the first Encode and Push, after the last Push of the old Pusher has
// returned and before its Close: what is taken over must survive that. It is not called
// if the old Push hangs. The records that the old Pusher has not stored are pushed by
// the new one.
type PushInheritor interface{ InheritFrom(predecessor Pusher) }

// A Bounded is a Pusher that wants at most MaxBytes of records in one Push, unless a
// single record is larger. Each record counts one byte more than it has, for what
// separates it from the next.
type Bounded interface{ MaxBytes() int }

// A Restamper is a Pusher that can give a record another time. Most points of a batch
// have the tags and fields that they had in the batch before: the agent keeps the
// records of the last batch of each source, and encodes only what has changed.
type Restamper interface {
	// Restamp appends record to dst, with the time t: what Encode would make of the
	// same point at that time.
	//
	// record is one that Encode of this Pusher made. Restamp must not change it.
	// After an error the agent calls Encode.
	// Restamp and Encode are never called concurrently with each other or themselves.
	Restamp(dst, record []byte, t time.Time) ([]byte, error)
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
