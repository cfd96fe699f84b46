package plugin

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// ErrTooLarge is wrapped by the errors of a Push that may succeed with fewer records.
// A single record that is too large is rejected.
var ErrTooLarge = errors.New("too large")

// ErrGone is wrapped by the errors of a Push whose destination does not come back
// while the program runs, such as a pipe without a reader: a stop does not wait
// for it.
var ErrGone = errors.New("gone")

// ErrRejected is wrapped by the errors of a Push of which at least one record can
// never be stored, if the destination does not say which and has stored none. The
// agent bisects: it pushes halves until the rejected records are found. Every
// RejectedError is an ErrRejected, too.
var ErrRejected = errors.New("rejected")

// A RejectedError is an error of a Push of which some records can never be stored.
type RejectedError struct {
	// Records holds the reason of each rejected record, by its index in the Push. Each
	// goes to the dead letters with its own reason. If Records is empty, the destination
	// has named none, and the agent bisects.
	Records map[int]error
	// OthersStored reports that the destination has stored all other records of the
	// Push. If it is false, the agent pushes the others again.
	OthersStored bool
}

// RejectAll returns the error of a Push of n records that the destination rejects all
// for one reason.
func RejectAll(n int, reason error) *RejectedError {
	e := &RejectedError{Records: make(map[int]error, n), OthersStored: true}
	for i := range n {
		e.Records[i] = reason
	}
	return e
}

// Error gives the reason of the first rejected record, and the number of the others.
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

// A RetryAfterError is an error of a Push whose destination said when to come
// back. The agent waits that long, ten minutes at most, before it tries again.
type RetryAfterError struct {
	Wait time.Duration
	Err  error
}

// Error says what the destination answered and when the agent asks again.
func (e *RetryAfterError) Error() string {
	return fmt.Sprintf("%v (to be tried again after %v)", e.Err, e.Wait)
}

// Unwrap returns what the destination answered.
func (e *RetryAfterError) Unwrap() error { return e.Err }
