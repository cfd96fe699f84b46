package expect

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/metric"
)

// A Moment is the time of a look at all listeners.
type Moment struct {
	Time time.Time
	Mono time.Duration // CLOCK_MONOTONIC, which begins at the boot and stands still while the host is suspended
	Boot string        // the boot id
}

// A Look is what one complete look has found.
type Look struct {
	Moment
	Listeners []Judged      // every listening socket
	Window    time.Duration // since the complete look before it, also before a restart; 0 if there was none
	WhileDown bool          // it is the first one after the program was started
}

// TrackerOptions are what a Tracker needs beside the rules.
type TrackerOptions struct {
	Point      string        // "tcp_listen": what the names of points begin with
	Loaded     time.Time     // when the rules were read
	Settle     time.Duration // how long a listener must be gone until its violation is cleared
	SettleBoot time.Duration // how long after a boot nothing is reported as missing or gone
	OwnerWait  time.Duration // how long the event of a violation waits for an owner that is pending
	MaxPerUser int           // violations of a user that have points and events of their own; 0: 1,000
	Max        int           // the same of all users, at most 10,000; 0: 10,000
}

// A Tracker follows the verdicts of all listeners over time. Its methods must not be
// called concurrently.
type Tracker struct {
	rules      *Rules
	options    TrackerOptions
	outcomes   map[*rule]*outcome // of expect and forbid rules
	violations violations
	stale      []string // keys of records that nobody needs any more

	due    time.Duration  // on the monotonic clock: when Evaluate must be called next
	points []metric.Point // of the last Evaluate; published, never changed
}

// NewTracker returns a Tracker that knows nothing of the past.
func NewTracker(r *Rules, o TrackerOptions) *Tracker {
	if o.Max <= 0 || o.Max > maxViolations {
		o.Max = maxViolations
	}
	if o.MaxPerUser <= 0 {
		o.MaxPerUser = 1000
	}
	t := &Tracker{
		rules: r, options: o, outcomes: make(map[*rule]*outcome),
		violations: violations{byKey: make(map[string]*violation)},
	}
	for _, n := range r.rules {
		if n.kind != kindAllow {
			t.outcomes[n] = &outcome{}
		}
	}
	return t
}

// A Result is what follows from a look.
type Result struct {
	// Events have their time and everything but the fields history and sequence.
	Events []metric.Point
	// Set holds the state that has changed, by keys that begin with "r:". A nil deletes
	// its key.
	Set map[string]json.RawMessage
}

// Evaluate compares what a look has found with the rules. It need not be called if no
// verdict has changed and Unchanged returns false.
func (t *Tracker) Evaluate(l *Look) Result {
	e := evaluation{look: l, tracker: t, set: make(map[string]json.RawMessage), due: never}
	counts := t.rules.count(l.Listeners)
	for _, n := range t.rules.rules {
		if o := t.outcomes[n]; o != nil {
			e.follow(n, o, counts[n.index])
		}
	}
	e.followViolations()
	for _, key := range t.stale {
		if _, again := e.set[key]; !again {
			e.set[key] = nil
		}
	}
	t.stale, t.due = nil, e.due
	if points := t.makePoints(l.Listeners, counts); !equalPoints(points, t.points) {
		t.points = points
	}
	return Result{Events: e.events, Set: e.set}
}

// Unchanged is called instead of Evaluate for a look that has found no other listeners
// and verdicts than the one before. It reports whether something is due, such as the end of
// a rule's `for`: then Evaluate must be called. It costs nothing to speak of.
func (t *Tracker) Unchanged(m Moment) (due bool) { return m.Mono >= t.due }

// Points returns the points of the last Evaluate, sorted. They are not changed afterwards,
// and are the same slice until one of them has changed.
func (t *Tracker) Points() []metric.Point { return t.points }

// Idle reports whether there is nothing to evaluate: the rules are not active, and nothing
// is remembered of others.
func (t *Tracker) Idle() bool {
	return !t.rules.active && len(t.violations.byKey) == 0 && len(t.stale) == 0
}

// never is when something is due that is not.
const never = time.Duration(1<<63 - 1)

// An evaluation collects what follows from one look.
type evaluation struct {
	look    *Look
	tracker *Tracker
	events  []metric.Point
	set     map[string]json.RawMessage
	due     time.Duration
}

// begin returns the beginning of something that this look is the first to show.
func (e *evaluation) begin() start {
	l := e.look
	return start{Time: l.Time.UnixNano(), Mono: int64(l.Mono), Boot: l.Boot, Window: int64(l.Window), WhileDown: l.WhileDown}
}

// lasted reports whether something has lasted for some time, and not before a moment of
// this boot. If it has not, it is looked at again when it may.
func (e *evaluation) lasted(s *start, hold, notBefore time.Duration) bool {
	elapsed := s.elapsed(e.look.Moment)
	if wait := max(hold-elapsed, notBefore-e.look.Mono); wait > 0 {
		e.due = min(e.due, e.look.Mono+wait)
		return false
	}
	return true
}

// event adds an event with the time of its start.
func (e *evaluation) event(kind string, s *start, tags []metric.Tag, fields ...metric.Field) {
	all := append(slices.Clone(tags), metric.Tag{Key: "event", Value: kind})
	metric.SortTags(all)
	fields = append(fields, metric.Field{Key: "while_down", Value: metric.Bool(s.WhileDown)})
	if s.Window > 0 {
		fields = append(fields, seconds("window_seconds", time.Duration(s.Window)))
	}
	e.events = append(e.events, metric.Point{
		Name: e.tracker.options.Point + "_rule_event", Tags: all, Fields: fields, Time: time.Unix(0, s.Time).UTC(),
	})
}

// A start is when something began: the first look that showed it. It is part of records.
type start struct {
	Time      int64  `json:"t"`           // Unix time in ns
	Mono      int64  `json:"m"`           // in ns
	Boot      string `json:"b"`           // the boot that Mono counts from
	Window    int64  `json:"w,omitempty"` // how exact it is, in ns
	WhileDown bool   `json:"d,omitempty"`
}

// elapsed returns how long it has lasted on the monotonic clock; of something that began
// before the boot, since the boot.
func (s *start) elapsed(m Moment) time.Duration {
	if s.Boot != m.Boot || s.Mono < 0 {
		return m.Mono
	}
	return max(0, m.Mono-time.Duration(s.Mono))
}

// until returns how long it has lasted when something else began: by the clock, if the
// host was booted in between.
func (s *start) until(end *start) time.Duration {
	if s.Boot == end.Boot {
		return time.Duration(max(0, end.Mono-s.Mono))
	}
	return time.Duration(max(0, end.Time-s.Time))
}

// seconds returns a field with a duration, to the millisecond.
func seconds(key string, d time.Duration) metric.Field {
	return metric.Field{Key: key, Value: metric.Float(d.Truncate(time.Millisecond).Seconds())}
}

func text(key, value string) metric.Field {
	return metric.Field{Key: key, Value: metric.String(value)}
}

// An outcome is what is remembered of an expect or forbid rule. It is its record.
type outcome struct {
	Decided  bool  `json:"k,omitempty"` // Up is known
	Up       bool  `json:"u,omitempty"`
	Since    start `json:"s,omitzero"`  // of the failure, if the rule is not up
	Reported bool  `json:"e,omitempty"` // the failure has had its event
}

// follow brings what is remembered of a rule up to date. Only expect rules have events
// here: those of a forbid rule are of its violations.
func (e *evaluation) follow(n *rule, o *outcome, c count) {
	before := *o
	up, decided := n.up(c)
	switch {
	case !decided: // it stays what it was
	case up:
		if o.Reported {
			end := e.begin()
			e.event("restored", &end, n.tags(), seconds("lasted_seconds", o.Since.until(&end)))
		}
		*o = outcome{Decided: true, Up: true}
	default:
		if o.Up || !o.Decided {
			*o = outcome{Decided: true, Since: e.begin()}
		}
		if n.kind == kindExpect && !o.Reported && e.lasted(&o.Since, n.hold, e.tracker.options.SettleBoot) {
			o.Reported = true
			e.event("failed", &o.Since, n.tags(),
				text("why", e.tracker.rules.missing(n, c, e.look.Listeners)),
				metric.Field{Key: "matches", Value: metric.Int(int64(c.matches))},
				metric.Field{Key: "undecided", Value: metric.Int(int64(c.undecided))})
		}
	}
	if *o != before {
		e.set[n.recordKey()] = encode(o)
	}
}

// tags returns the tags that name a rule.
func (n *rule) tags() []metric.Tag { return metric.NewTags("name", n.name, "rule", n.kind) }

// recordKey is the key of the rule's outcome in the history.
func (n *rule) recordKey() string { return recordPrefix + n.kind + ":" + n.name }

// recordPrefix begins the keys of all records of this package.
const recordPrefix = "r:"

// violationPrefix begins the keys of the records of violations.
const violationPrefix = recordPrefix + "violation:"

func encode(record any) json.RawMessage {
	text, err := json.Marshal(record)
	if err != nil {
		panic(err) // plain data
	}
	return text
}

// Restore takes over what a Tracker has handed out before the program was started, by
// the keys of Result.Set. Records that are damaged, or of rules that no longer exist, are
// skipped and deleted. It is called before Evaluate.
func (t *Tracker) Restore(records map[string]json.RawMessage) {
	byKey := make(map[string]*outcome)
	for n, o := range t.outcomes {
		byKey[n.recordKey()] = o
	}
	for key, record := range records {
		switch {
		case !strings.HasPrefix(key, recordPrefix):
		case strings.HasPrefix(key, violationPrefix):
			if v := restoreViolation(record); v == nil || v.recordKey() != key || !t.violations.add(v) {
				t.stale = append(t.stale, key)
			}
		default:
			var o outcome
			if to := byKey[key]; to == nil || json.Unmarshal(record, &o) != nil {
				t.stale = append(t.stale, key)
			} else {
				*to = o
			}
		}
	}
}

// InheritFrom takes over what a Tracker with other rules knows: a rule that stays, by
// kind and name, keeps its state. It is called before Evaluate.
func (t *Tracker) InheritFrom(old *Tracker) {
	byKey := make(map[string]*outcome)
	for n, o := range t.outcomes {
		byKey[n.recordKey()] = o
	}
	for n, o := range old.outcomes {
		if to := byKey[n.recordKey()]; to != nil {
			*to = *o
		} else {
			t.stale = append(t.stale, n.recordKey())
		}
	}
	t.violations.looks = old.violations.looks // which those of its violations are compared with
	for _, v := range old.violations.byKey {
		t.violations.add(v)
	}
	t.stale = append(t.stale, old.stale...)
}
