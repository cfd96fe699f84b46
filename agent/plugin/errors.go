package plugin

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// ErrTooLarge is wrapped by the error of a Push that may succeed with fewer records. If
// there is only one record, it is rejected.
var ErrTooLarge = errors.New("too large")

// ErrGone is wrapped by the error of a Push whose destination cannot come back while the
// program runs, such as a pipe without a reader. A stop does not wait for it.
var ErrGone = errors.New("gone")

// ErrRejected is wrapped by the error of a Push if at least one record can never be
// stored, and the destination has stored none and does not say which. The agent then
// bisects: it pushes halves until it has found the rejected records. Every RejectedError
// is also an ErrRejected.
var ErrRejected = errors.New("rejected")

// A RejectedError is the error of a Push if some records can never be stored.
type RejectedError struct {
	// Records holds the reason for each rejected record, by index in the Push. The agent
	// writes them to the dead-letter file. If Records is empty, the destination does not
	// say which records it rejects, and the agent bisects.
	Records map[int]error
	// OthersStored says that the destination has stored all other records of the Push.
	// If it is false, the agent pushes them again.
	OthersStored bool
}

// RejectAll returns the error of a Push of n records if the destination rejects all of
// them for the same reason.
func RejectAll(n int, reason error) *RejectedError {
	e := &RejectedError{Records: make(map[int]error, n), OthersStored: true}
	for i := range n {
		e.Records[i] = reason
	}
	return e
}

// Error returns the reason for the first rejected record and the number of the others.
func (e *RejectedError) Error() string {
	if len(e.Records) == 0 {
		return ErrRejected.Error()
	}
	first := e.Records[slices.Min(slices.Collect(maps.Keys(e.Records)))]
	if n := len(e.Records) - 1; n > 0 {
		return fmt.Sprintf("%v (and %d more rejected records)", first, n)
	}
	return first.Error()
}

// Is reports whether target is ErrRejected.
func (e *RejectedError) Is(target error) bool { return target == ErrRejected }

// A PartialError is the error of a Push if the destination has stored all records except
// some that it rejects for good and does not name, and that must not be sent again to find
// them. The agent pushes none of the records again. It counts and logs the rejected ones,
// but cannot save them.
type PartialError struct {
	Rejected int // at most the number of records in the Push
	Err      error
}

// Error returns the destination's answer.
func (e *PartialError) Error() string { return e.Err.Error() }

// Unwrap returns the destination's answer.
func (e *PartialError) Unwrap() error { return e.Err }

// A ProgressError is the error of a Push to two destinations, if one of them has failed and
// the other one has not, even if it had nothing to store. The Pusher remembers what was
// stored. The agent pushes the same records again, and with them those that are new: the
// destination that works gets them without delay.
type ProgressError struct{ Err error }

// Error returns the failure.
func (e *ProgressError) Error() string { return e.Err.Error() }

// Unwrap returns the failure.
func (e *ProgressError) Unwrap() error { return e.Err }

// A RetryAfterError is the error of a Push if the destination said when to retry. The
// agent waits that long, but at most ten minutes.
type RetryAfterError struct {
	Wait time.Duration
	Err  error
}

// Error returns the destination's answer and the wait that it asked for.
func (e *RetryAfterError) Error() string {
	return fmt.Sprintf("%v (retry after %v)", e.Err, e.Wait)
}

// Unwrap returns the destination's answer.
func (e *RetryAfterError) Unwrap() error { return e.Err }
