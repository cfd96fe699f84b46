// Package expect compares listeners with rules: what must listen, what may, and what
// must not. It knows no kernel, no file and no clock.
//
// Rules are compiled once. Rules.Verdict says of one listener what the rules make of it,
// and is called when something of the listener has changed, or Rules.Version. A Tracker
// makes points and events of the verdicts of all listeners, and remembers from one look to
// the next what has failed since when.
package expect

import (
	"encoding/json"
	"time"

	"sockwatch/agent/metric"
)

// The values of Options.Unlisted.
const (
	UnlistedAuto       = "auto"
	UnlistedUnexpected = "unexpected"
	UnlistedIgnore     = "ignore"
)

// The values of Verdict.Expected and of the field expected.
const (
	Forbidden = "forbidden" // a forbid rule matches
	Yes       = "yes"       // an expect or allow rule matches
	Undecided = "undecided" // a rule matches in all that is known, and the owner is not
	No        = "no"        // none of these; only if Options.Unlisted applies
)

const defaultFor = 60e9

// Rules are compiled rules. They do not change, and may be used concurrently.
type Rules struct{}

// Compile compiles options that ValidateRules has found to be right.
func Compile(o Options) (*Rules, error) { panic("to come") }

// Active reports whether there is anything to report: rules, rule files, or
// unlisted = "unexpected". If not, no point gets fields and there are no points.
func (r *Rules) Active() bool { panic("to come") }

// Digest returns 12 hexadecimal digits that rules of the same meaning share, in whatever
// files and order they are written.
func (r *Rules) Digest() string { panic("to come") }

// Version changes when a rule expires: then all verdicts must be made again.
func (r *Rules) Version(now time.Time) uint32 { panic("to come") }

// Verdict says what the rules make of a listener at that time. It costs what the
// rules for the listener's port cost.
func (r *Rules) Verdict(l *Listener, now time.Time) Verdict { panic("to come") }

// Why says why a listener has its verdict: which rule is the nearest, and what of it
// does not match. It compares the listener with every rule.
func (r *Rules) Why(l *Listener, now time.Time) Reason { panic("to come") }

// A Reason is a sentence and the rule that it is about.
type Reason struct {
	Rule string // "" if no rule is near
	Why  string // "port 8443 is not in 80,443 of rule web"
}

// Expiring returns the rules whose approval ends within 14 days or has ended.
func (r *Rules) Expiring(now time.Time) []Expiry { panic("to come") }

// An Expiry is the end of the approval of a rule.
type Expiry struct {
	Kind    string // "expect", "allow" or "forbid"
	Rule    string
	Expires string // the last day, "2027-03-31"
	Expired bool
}

// A Verdict is what the rules make of one listener.
type Verdict struct {
	Expected string // Forbidden, Yes, Undecided, No, or "" for no verdict
	Rule     string // the name of the rule that decided; "" if none did

	matches []match
}

// A match is an expect or forbid rule that matches a listener.
type match struct{}

// Worst returns the verdict of the point that several listeners share: the worst of
// theirs.
func Worst(a, b Verdict) Verdict { panic("to come") }

// A Judged is a listener with its verdict.
type Judged struct {
	*Listener
	Verdict
}

// A Moment is the time of a look at all listeners.
type Moment struct {
	Time time.Time
	Mono time.Duration // CLOCK_MONOTONIC: without the time that the host is suspended
	Boot string        // the boot id
}

// A Look is what one complete look has found.
type Look struct {
	Moment
	Listeners []Judged      // every listening socket
	Window    time.Duration // since the complete look before it; 0 if there was none
	WhileDown bool          // it is the first one after the program was started
}

// TrackerOptions are what a Tracker needs beside the rules.
type TrackerOptions struct {
	Point      string        // "tcp_listen": what the names of points begin with
	Loaded     time.Time     // when the rules were read
	Settle     time.Duration // how long a violation must be gone before it is cleared
	SettleBoot time.Duration // how long after a boot nothing is reported as missing
	MaxPerUser int           // violations of a user that have points and events of their own
}

// A Tracker follows the verdicts of all listeners over time. Its methods must not be
// called concurrently.
type Tracker struct{}

// NewTracker returns a Tracker that knows nothing of the past.
func NewTracker(r *Rules, o TrackerOptions) *Tracker { panic("to come") }

// Restore takes over what a Tracker has handed out before the program was started, by
// the keys of Result.Set. Records that are unknown or damaged are skipped, and so are those
// of rules that no longer exist. It is called before Evaluate.
func (t *Tracker) Restore(records map[string]json.RawMessage) { panic("to come") }

// InheritFrom takes over what a Tracker with other rules knows: a rule that stays, by
// kind and name, keeps its state. It is called before Evaluate.
func (t *Tracker) InheritFrom(old *Tracker) { panic("to come") }

// Evaluate compares what a look has found with the rules. It need not be called if no
// verdict has changed and Unchanged returns false.
func (t *Tracker) Evaluate(l *Look) Result { panic("to come") }

// Unchanged is called instead of Evaluate for a look that has found no other listeners
// and verdicts than the one before. It reports whether something is due, such as the end of
// a rule's `for`: then Evaluate must be called. It costs nothing to speak of.
func (t *Tracker) Unchanged(m Moment) (due bool) { panic("to come") }

// Points returns the points of the last Evaluate, sorted. They are not changed afterwards,
// and are the same slice until one of them has changed.
func (t *Tracker) Points() []metric.Point { panic("to come") }

// A Result is what follows from a look.
type Result struct {
	// Events have their time and everything but the fields history and sequence.
	Events []metric.Point
	// Set holds the state that has changed, by keys that begin with "r:". A null deletes
	// its key.
	Set map[string]json.RawMessage
}

// Descs describe the fields of the points, for a plugin whose points are called point.
func Descs(point string) []metric.Desc { panic("to come") }

// Tags returns the keys of the tags of the points, without those of labels.
func Tags() []string { panic("to come") }
