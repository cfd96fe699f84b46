package plugin

// This file lists what a plugin may implement or return besides its contract.
//
//	interface   implemented by  meaning
//	Inheritor   Input           takes over what a replaced Input knew
//	Bounded     Pusher          limits the bytes of one Push
//	Exclusive   Options         names what only one instance may have (define.go)
//	io.Closer   all             releases what it holds, as the last call
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

// A Bounded is a Pusher that wants at most MaxBytes of records in one Push, unless a
// single record is larger. Each record counts one byte more than it has, for what
// separates it from the next.
type Bounded interface{ MaxBytes() int }
