package plugin

import (
	"context"
	"time"

	"sockwatch/agent/metric"
)

// This file lists the optional interfaces that a plugin may implement, and the errors
// that have a meaning to the agent.
//
//	interface       implemented by  meaning
//	Inheritor       Input           takes over the state of a replaced Input
//	Watcher         Input           asks for a gather when something has changed
//	TagLister       Input           has tags that its Definition does not name
//	Detailer        Input           knows more about a point than it publishes
//	LimitReporter   Input           says what it cannot see, and why
//	EventRecaller   Input           remembers events from before the start
//	PushInheritor   Pusher          takes over the stream of a replaced Pusher
//	Bounded         Pusher          limits the bytes of one Push
//	Restamper       Pusher          gives a record a new time
//	EventEncoder    Pusher          encodes events in another way than points, or leaves them out
//	DescUser        Pusher          encodes points together with the types of their fields
//	EndedEncoder    Pusher          tells its destination which series have ended
//	HealthReporter  Endpoint        reports that it has stopped answering
//	Reloader        Endpoint        is notified of a reload that keeps it
//	Exclusive       Options         names resources that only one instance may have (define.go)
//	Includer        Options         names files that hold some of the options (define.go)
//	Warner          Options         finds options that are valid, but look wrong (define.go)
//	Defaulter       element         sets the defaults of an element of a list of tables (define.go)
//	io.Closer       all             releases its resources, as the last call
//
//	error            returned by  meaning
//	RejectedError    Push         some records can never be stored
//	ErrTooLarge      Push         fewer records may fit
//	PartialError     Push         some records were rejected, and the destination does not say which
//	ProgressError    Push         one of two destinations has failed, the other one has not
//	RetryAfterError  Push         the destination said when to retry
//	ErrGone          Push         the destination cannot come back: a stop does not wait for it

// An Inheritor is an Input that can take over the state of another one. When a reload
// replaces an Input by one with other options, the agent calls InheritFrom with the old
// one. The call comes at most once: before the first Gather of the new Input, and after
// the old one has returned from its last Gather and is closed. If that Gather hangs, there
// is no call.
type Inheritor interface{ InheritFrom(predecessor Input) }

// A Watcher is an Input that notices changes between two gathers.
type Watcher interface {
	// Watch calls changed when something has changed since the last Gather.
	//
	// The agent calls it once, after the first Gather has returned, and waits for it
	// before Close. It returns soon after ctx is done. If it returns earlier or panics,
	// it is not called again.
	// Gather and Watch may run concurrently.
	// changed asks for a gather at once, or, if one is in flight, for another one after
	// it. It does not block, may be called concurrently, and does nothing after ctx is
	// done. One gather may answer many calls; there is no other limit.
	Watch(ctx context.Context, changed func())
}

// A TagLister is an Input whose options add tags to those that its Definition names.
type TagLister interface {
	// ExtraTags returns their keys. It may be called at any time, concurrently.
	ExtraTags() []string
}

// A Detailer is an Input that knows more about a point than the tags and fields that it
// publishes, for people who look at one point.
type Detailer interface {
	// Details returns what is known about a point, in sections for people to read.
	//
	// p is a point that Gather has returned, as Gather returned it: the agent undoes what
	// options do to names, tags and fields. If p no longer exists, Details returns nil.
	// Details may be called concurrently, until Close. It may wait for a gather in flight,
	// but returns soon after ctx is done. No gather waits for it.
	// It costs nothing as long as nobody calls it.
	Details(ctx context.Context, p *metric.Point) ([]DetailSection, error)
}

// A DetailSection is one section of the details of a point.
type DetailSection struct {
	Title   string // "Socket", "Holder 2 of 3"
	Details []Detail
}

// A Detail is one fact.
type Detail struct {
	Name  string // "exe", named like tags and fields
	Value string // UTF-8 that is not escaped for any output
	// Sensitive details are shown only to readers on this host or with authentication.
	Sensitive bool
}

// A LimitReporter is an Input that can say what it cannot see.
type LimitReporter interface {
	// Limits returns one sentence for each thing that the last gather could not see: what
	// is missing, why, and what to do about it, without a final period. Nothing is missing if
	// it is empty.
	// It may be called at any time, concurrently, and returns at once. The result is not
	// changed afterwards.
	Limits() []string
}

// An EventRecaller is an Input that remembers events from before the start.
type EventRecaller interface {
	// RecallEvents returns the last events that were published before the start, oldest
	// first, at most MaxEvents, without those that Gather returns again.
	// The agent calls it once, between the first Gather that succeeds and the publication of
	// its batch, so that endpoints can show them. It does not call it if it has called that
	// of an Input with the same name before: endpoints still have these events.
	// It returns at once: the Input reads its files in Gather.
	RecallEvents() []metric.Point
}

// A PushInheritor is a Pusher that can take over the resources of another one, such as a
// stream in the middle of a record. When a reload replaces a Pusher by one with other
// options, the agent calls InheritFrom with the old one. The call comes at most once:
// before the first Encode and Push of the new Pusher, and after the last Push of the old
// one has returned, but before its Close, which must leave the resources open that were
// taken over. If the old Push hangs, there is no call. The new Pusher pushes the records
// that the old one has not stored.
type PushInheritor interface{ InheritFrom(predecessor Pusher) }

// A Bounded is a Pusher that takes at most MaxBytes of records in one Push, unless a
// single record is larger. Each record counts one byte more, for its separator.
type Bounded interface{ MaxBytes() int }

// A Restamper is a Pusher that can give a record a new time. Most points of a batch have
// the same tags and fields as in the batch before. The agent keeps the records of the last
// batch of each source, and encodes only changed points.
type Restamper interface {
	// Restamp appends record to dst with the time t, as Encode would encode the same
	// point at that time.
	//
	// The point has the same Start, and its batch the same Descs, as when it was encoded.
	// record was encoded by this Pusher. Restamp must not change it.
	// After an error the agent calls Encode.
	// Restamp and Encode are never called concurrently with each other or themselves.
	Restamp(dst, record []byte, t time.Time) ([]byte, error)
}

// An EventEncoder is a Pusher whose records of events differ from those of other points.
type EventEncoder interface {
	// EncodeEvent is called instead of Encode for each point of Batch.Events that passes the
	// output's filter. All promises of Encode apply. An event for which it appends nothing is
	// left out.
	EncodeEvent(dst []byte, event *metric.Point) ([]byte, error)
}

// A DescUser is a Pusher whose records depend on the documentation of the fields: their
// types, units and help texts.
type DescUser interface {
	// UseDescs is called before Encode, Restamp or EncodeEnded with the Descs of the batch
	// that the following points, events or series belong to, unless they are equal to those
	// of the call before.
	//
	// It is never called concurrently with Encode, Restamp or EncodeEnded.
	// The Pusher may keep descs, but must not change them.
	UseDescs(descs []metric.Desc)
}

// An EndedEncoder is a Pusher whose destination has to be told that a series has ended,
// because it would otherwise show the last value for some time.
type EndedEncoder interface {
	// EncodeEnded appends one record to dst that ends the series of a point: one for each
	// of its fields. It appends nothing if none of the fields is a series for its
	// destination, such as strings.
	//
	// series was encoded before, by this Pusher or by one with the same name, and queued.
	// After a crash of the program it may be ended twice, or without having been delivered.
	// Its fields have the keys and kinds of the last values, but the values are zero. Fields
	// that the point still has are not among them. series has no Time.
	// t is the time of the first batch without the series, or of the failed gather, if that
	// is at least a millisecond after the last sample of the series, else a time that is.
	// Later samples of the series are later than t. Only if the clock was set back by more
	// than five minutes, earlier samples do not count.
	// The record is queued in the same block as the points of the batch, before them, and
	// Push gets it in this order. The agent never restamps it.
	// An error is logged. The series then ends by itself.
	// EncodeEnded is never called concurrently with Encode, Restamp or itself.
	EncodeEnded(dst []byte, series *metric.Point, t time.Time) ([]byte, error)
}

// A HealthReporter is an Endpoint that can fail while Serve runs, for example if its
// certificate is replaced by an invalid one.
type HealthReporter interface {
	// ReportHealth is called once, before Serve. The Endpoint calls report with the
	// reason when it stops answering, and with nil when it answers again. The agent logs
	// each change once and publishes it as sockwatch_output_up. report does not block.
	// It may be called concurrently, until Serve returns.
	ReportHealth(report func(error))
}

// A Reloader is an Endpoint that depends on more than its options, for example on files.
type Reloader interface {
	// Reload is called while Serve runs, at each reload of the configuration that keeps
	// the Endpoint. It must not block: Serve does the work.
	Reload()
}
