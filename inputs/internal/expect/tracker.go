package expect

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/metric"
)

// A Moment is the time of a scan of all listeners.
type Moment struct {
	Time time.Time
	Mono time.Duration // CLOCK_MONOTONIC, which begins at the boot and stands still while the host is suspended
	Boot string        // the boot id
}

// A Scan is the result of one complete scan.
type Scan struct {
	Moment
	Listeners []Judged      // every listening socket
	Window    time.Duration // since the previous complete scan, even across a restart; 0 if there was none
	WhileDown bool          // it is the first scan after the program started
}

// TrackerOptions are what a Tracker needs in addition to the rules.
type TrackerOptions struct {
	Point      string        // prefix of the names of points, such as "tcp_listen"
	Loaded     time.Time     // when the rules were read
	Settle     time.Duration // how long a listener must be gone before its violation is cleared
	SettleBoot time.Duration // how long after a boot nothing is reported as missing or gone
	OwnerWait  time.Duration // how long the event of a violation waits for a pending owner
	MaxPerUser int           // maximum violations of one user with their own points and events; 0: 1,000
	Max        int           // the same for all users together, at most 10,000; 0: 10,000
}

// A Tracker follows the verdicts of all listeners over time. Its methods must not be
// called concurrently.
type Tracker struct {
	rules      *Rules
	options    TrackerOptions
	outcomes   map[*rule]*outcome // of expect and forbid rules
	violations violations
	stale      []string // keys of records that are no longer needed

	due    time.Duration  // on the monotonic clock: when Evaluate must be called next
	points []metric.Point // of the last Evaluate; published, never changed
}

// NewTracker returns a Tracker without any history.
func NewTracker(r *Rules, o TrackerOptions) *Tracker {
	if o.Max <= 0 || o.Max > maxViolations {
		o.Max = maxViolations
	}
	if o.MaxPerUser <= 0 {
		o.MaxPerUser = 1000
	}
	t := &Tracker{
		rules: r, options: o, outcomes: make(map[*rule]*outcome),
		violations: violations{byKey: make(map[violationKey]*violation)},
	}
	for _, n := range r.rules {
		if n.kind != kindAllow {
			t.outcomes[n] = &outcome{}
		}
	}
	return t
}

// A Result is the outcome of a scan.
type Result struct {
	// Events are complete, with a time, except for the fields history and sequence.
	Events []metric.Point
	// Set contains the records that have changed. Their keys begin with "r:". A nil record
	// deletes its key.
	Set map[string]json.RawMessage
}

// Evaluate evaluates the rules for a scan. It need not be called if no verdict has changed
// and Unchanged returns false.
func (t *Tracker) Evaluate(l *Scan) Result {
	e := evaluation{scan: l, tracker: t, set: make(map[string]json.RawMessage), due: never}
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

// Unchanged is called instead of Evaluate if a scan found the same listeners and verdicts as
// the previous one. It reports whether something is due, such as the end of a rule's `for`;
// if so, Evaluate must be called. Its cost is negligible.
func (t *Tracker) Unchanged(m Moment) (due bool) { return m.Mono >= t.due }

// Points returns the sorted points of the last Evaluate. They are never modified. Points
// returns the same slice until a point has changed.
func (t *Tracker) Points() []metric.Point { return t.points }

// Idle reports whether there is nothing to evaluate: the rules are not active, and no state
// of earlier rules is left.
func (t *Tracker) Idle() bool {
	return !t.rules.active && len(t.violations.byKey) == 0 && len(t.stale) == 0
}

// never is the due time if nothing is due.
const never = time.Duration(1<<63 - 1)

// An evaluation collects the results of one scan.
type evaluation struct {
	scan    *Scan
	tracker *Tracker
	events  []metric.Point
	set     map[string]json.RawMessage
	due     time.Duration
}

// begin returns the start of something that first appears in this scan.
func (e *evaluation) begin() start {
	l := e.scan
	return start{Time: l.Time.UnixNano(), Mono: int64(l.Mono), Boot: l.Boot, Window: int64(l.Window), WhileDown: l.WhileDown}
}

// lasted reports whether something has lasted for hold, and the uptime is at least notBefore.
// If not, it schedules another evaluation for when this may be the case.
func (e *evaluation) lasted(s *start, hold, notBefore time.Duration) bool {
	elapsed := s.elapsed(e.scan.Moment)
	if wait := max(hold-elapsed, notBefore-e.scan.Mono); wait > 0 {
		e.due = min(e.due, e.scan.Mono+wait)
		return false
	}
	return true
}

// event adds an event that has the time of s.
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

// A start is when something began: the time of the first scan that found it. It is stored in
// records.
type start struct {
	Time      int64  `json:"t"`           // Unix time in ns
	Mono      int64  `json:"m"`           // in ns
	Boot      string `json:"b"`           // the boot that Mono counts from
	Window    int64  `json:"w,omitempty"` // precision in ns
	WhileDown bool   `json:"d,omitempty"`
}

// elapsed returns the time since the start on the monotonic clock. If the start was before
// the boot, it returns the time since the boot.
func (s *start) elapsed(m Moment) time.Duration {
	if s.Boot != m.Boot || s.Mono < 0 {
		return m.Mono
	}
	return max(0, m.Mono-time.Duration(s.Mono))
}

// until returns the time from s to end. If the host was rebooted in between, it uses the
// wall clock.
func (s *start) until(end *start) time.Duration {
	if s.Boot == end.Boot {
		return time.Duration(max(0, end.Mono-s.Mono))
	}
	return time.Duration(max(0, end.Time-s.Time))
}

// seconds returns a field with a duration, with millisecond precision.
func seconds(key string, d time.Duration) metric.Field {
	return metric.Field{Key: key, Value: metric.Float(float64(d.Milliseconds()) / 1000)}
}

func text(key, value string) metric.Field {
	return metric.Field{Key: key, Value: metric.String(value)}
}

// recordPrefix is the prefix of the keys of all records of this package.
const recordPrefix = "r:"

// violationPrefix is the prefix of the keys of violation records.
const violationPrefix = recordPrefix + "violation:"

func encode(record any) json.RawMessage {
	text, err := json.Marshal(record)
	if err != nil {
		panic(err) // cannot happen: plain data
	}
	return text
}

// Restore restores the state from the records of an earlier run: those of Result.Set, by
// key. It skips and deletes damaged records and records of rules that no longer exist. It is
// called before Evaluate.
func (t *Tracker) Restore(records map[string]json.RawMessage) {
	byKey := make(map[string]*outcome)
	for n, o := range t.outcomes {
		byKey[n.recordKey()] = o
	}
	for key, record := range records {
		switch {
		case !strings.HasPrefix(key, recordPrefix):
		case strings.HasPrefix(key, violationPrefix):
			if v := restoreViolation(record); v == nil || v.key.recordKey() != key || !t.violations.add(v) {
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

// InheritFrom takes over the state of a Tracker with other rules. Rules that have the same
// kind and name in both keep their state. It is called before Evaluate.
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
	t.violations.scans = old.violations.scans // the violations' scan numbers are compared with it
	for _, v := range old.violations.byKey {
		t.violations.add(v)
	}
	t.stale = append(t.stale, old.stale...)
}
