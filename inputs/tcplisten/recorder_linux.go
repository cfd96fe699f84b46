package tcplisten

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/changes"
	"sockwatch/inputs/internal/expect"
	"sockwatch/inputs/internal/history"
	"sockwatch/inputs/internal/host"
)

// A recorder finds what has changed since the last scan and evaluates the rules, and writes
// both to the history before they are published.
type recorder struct {
	changes *changes.Tracker
	rules   *expect.Rules
	expect  *expect.Tracker
	history *history.Store

	opened time.Time // when the history was opened
	boot   string    // the boot id
	scope  string    // identifies the host and the namespaces that are listed

	restored bool           // the history was not empty at the start
	before   []metric.Point // events from before the start; nil after recall
	scanned  bool           // an observation was recorded in this run
	last     lastScan
	backlog  backlog
	points   []metric.Point // of rules, totals and backlog
}

// A lastScan is what the next observation is compared with, apart from the listeners.
type lastScan struct {
	namespaces    []changes.Namespace
	version       uint32 // of the rules
	hadShortLived bool   // it had listeners that were seen only between gathers
}

// openRecorder reads the history of the input.
func openRecorder(o *Options, rules *expect.Rules, env plugin.Env, h host.Host) *recorder {
	r := &recorder{opened: time.Now()}
	store, records := history.Open(historyOptions(env, h))
	r.history, r.restored, r.before = store, len(records) > 0, store.Recent()
	r.configure(o, rules, h)
	if damaged := r.changes.Restore(records); damaged > 0 {
		env.Log.Warn("skipped damaged records of the history", "records", damaged)
	}
	firstSeen, err := store.FirstSeen()
	if err != nil {
		env.Log.Warn("cannot read the first-seen times of the previous version, starting without them", "error", err)
	}
	r.changes.Import(firstSeen)
	r.expect.Restore(records)
	return r
}

// recall returns the last events from before the start, oldest first, without those that events
// returns again. It forgets them.
func (r *recorder) recall() []metric.Point {
	before := r.before
	r.before = nil
	return before
}

// reopen continues with the recorder of a replaced input, with new options.
func (r *recorder) reopen(o *Options, rules *expect.Rules, env plugin.Env, h host.Host) {
	r.history = r.history.Inherit(historyOptions(env, h))
	r.configure(o, rules, h)
}

// configure applies options. The known state stays.
func (r *recorder) configure(o *Options, rules *expect.Rules, h host.Host) {
	r.boot, r.scope = h.BootID(), fmt.Sprintf("proc=%s namespaces=%v", h.Proc, o.Namespaces)
	r.rules = rules
	c := changes.Options{
		Point:  pointListener,
		Settle: time.Duration(o.Settle), SettleBoot: time.Duration(o.SettleBoot),
		OwnerWait: time.Duration(o.OwnerWait), Remember: time.Duration(o.Remember),
		MaxKnown: 10_000, MaxPerUser: max(1000, o.MaxListeners),
	}
	if r.rules.Active() {
		c.Expected = []string{expect.Forbidden, expect.No, expect.Undecided, expect.Yes}
	}
	known := r.expect
	r.expect = expect.NewTracker(r.rules, expect.TrackerOptions{
		Point: pointListener, Loaded: time.Now(), Settle: c.Settle, SettleBoot: c.SettleBoot,
		OwnerWait: c.OwnerWait, MaxPerUser: maxViolators, Max: max(maxViolators, o.MaxListeners/4),
	})
	if known != nil {
		r.expect.InheritFrom(known)
	}
	if r.changes == nil {
		r.changes = changes.New(c)
	} else {
		r.changes.Reconfigure(c)
	}
}

func historyOptions(env plugin.Env, h host.Host) history.Options {
	o := history.Options{MachineID: h.MachineID(), Log: env.Log}
	if env.StateDir != "" {
		o.Path = historyPath(env.StateDir, env.Name)
		o.FirstSeen = filepath.Join(env.StateDir, env.Name+".first_seen.json")
	}
	return o
}

// historyPath returns the path of the history of the input with that name.
func historyPath(stateDir, name string) string {
	return filepath.Join(stateDir, name+".history.jsonl")
}

// readClocks returns the time of a scan that begins now. The recorder adds the boot.
func readClocks() changes.Moment { return readTogether(clock, time.Now) }

// togetherWithin is how long the clocks may take to be read, unless the program is always
// interrupted meanwhile. The times of what the kernel reports are converted by their difference.
const togetherWithin = 50 * time.Microsecond

// readTogether reads the clocks, again if the program was interrupted meanwhile.
func readTogether(clock func(id int32) time.Duration, now func() time.Time) (m changes.Moment) {
	best := time.Duration(-1)
	for tries := 0; tries < 10 && (best < 0 || best > togetherWithin); tries++ {
		began := clock(unix.CLOCK_BOOTTIME)
		read := changes.Moment{Time: now(), Mono: clock(unix.CLOCK_MONOTONIC)}
		ended := clock(unix.CLOCK_BOOTTIME)
		read.Uptime = began + (ended-began)/2
		if took := ended - began; best < 0 || took < best {
			best, m = took, read
		}
	}
	return m
}

func clock(id int32) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(id, &t); err != nil {
		panic(err) // every kernel that Go supports has both clocks
	}
	return time.Duration(t.Nano())
}

// mayHaveEvents reports whether the next scan may have events: it is not the first one, or there
// are rules that its listeners may violate.
func (r *recorder) mayHaveEvents() bool {
	return r.restored || r.scanned || r.rules.Active()
}

// unchanged records a scan between gathers that found nothing new.
func (r *recorder) unchanged(m changes.Moment) {
	m.Boot = r.boot
	r.changes.Listed(m)
}

// An observation is what one gather has found.
type observation struct {
	changes.Moment
	namespaces []changes.Namespace
	listeners  []*listener
	shortLived []*listener          // seen only between the previous gather and this one
	changed    bool                 // some of the listeners have changed
	closed     map[uint64]time.Time // when sockets closed, by cookie, if the kernel reported it
}

// record compares an observation with the previous one, and writes the changes. It reports whether
// its points, or the record of any listener, may have changed.
func (r *recorder) record(o *observation, users userNames) (changed bool) {
	o.Boot = r.boot
	judged := r.judge(o, users)
	window := r.changes.Since(o.Moment)
	var w history.Write
	o.changed = o.changed || judged || len(o.shortLived) > 0 || len(o.closed) > 0 || !slices.Equal(o.namespaces, r.last.namespaces)
	if o.changed || r.changes.Unchanged(o.Moment) {
		result := r.changes.Observe(r.snapshot(o))
		w.Events, w.Set = result.Events, result.Set
		changed = true
	}
	if !r.expect.Idle() && (o.changed || r.last.hadShortLived || r.expect.Unchanged(expectMoment(o.Moment))) {
		result := r.expect.Evaluate(r.rulesScan(o, window))
		w.Events = append(w.Events, result.Events...)
		if w.Set == nil {
			w.Set = result.Set
		} else {
			maps.Copy(w.Set, result.Set)
		}
		r.last.hadShortLived = len(o.shortLived) > 0
		changed = true
	}
	if len(w.Events) > 0 || len(w.Set) > 0 {
		r.history.Append(w)
	}
	backlog := backlog{r.history.Waiting(), r.history.Dropped()}
	changed = changed || backlog != r.backlog
	r.backlog = backlog
	if changed {
		r.points = append(r.changes.Totals(), backlog.point(r.opened))
		if !r.expect.Idle() {
			r.points = slices.Concat(r.expect.Points(), r.points)
		}
	}
	r.scanned, r.last.namespaces = true, o.namespaces
	return changed
}

// A backlog counts the events that have not reached every output.
type backlog struct {
	waiting int
	dropped uint64
}

// point returns the point of a backlog whose history was opened at a time.
func (b backlog) point(opened time.Time) metric.Point {
	return metric.Point{Name: pointHistory, Start: opened, Fields: []metric.Field{
		{Key: "waiting_events", Value: metric.Int(int64(b.waiting))},
		{Key: "dropped_events_total", Value: metric.Uint(b.dropped)},
	}}
}

// judge evaluates the rules for the listeners that have changed, or for all of them if a rule
// has expired. It reports whether any verdict may have changed.
func (r *recorder) judge(o *observation, users userNames) (changed bool) {
	if r.expect.Idle() {
		return false
	}
	version := r.rules.Version(o.Time)
	all := version != r.last.version
	r.last.version = version
	for _, listeners := range [][]*listener{o.listeners, o.shortLived} {
		for _, l := range listeners {
			if l.judged == nil || all {
				l.judge(r.rules, users, o.Time)
				changed = true
			}
		}
	}
	return changed
}

// judge sets the verdict of the rules for a listener.
func (l *listener) judge(rules *expect.Rules, users userNames, now time.Time) {
	if l.judged == nil {
		l.judged = l.forRules(users)
	}
	if !rules.Active() { // events that earlier rules began may still have to end
		return
	}
	l.verdict = rules.Verdict(l.judged, now)
	reason := rules.Why(l.judged, now)
	if l.verdict.Expected == "" && reason.Rule == "" { // no rule says anything about it
		reason.Why = ""
	}
	l.observed.Verdict = changes.Verdict{Expected: l.verdict.Expected, Rule: l.verdict.Rule, Why: reason.Why}
}

func (r *recorder) snapshot(o *observation) *changes.Snapshot {
	s := &changes.Snapshot{
		Moment: o.Moment, Scope: r.scope, Namespaces: o.namespaces,
		Sockets: make([]changes.Socket, 0, len(o.listeners)), Closed: o.closed,
	}
	for _, l := range o.listeners {
		s.Sockets = append(s.Sockets, l.observed)
	}
	for _, l := range o.shortLived {
		s.ShortLived = append(s.ShortLived, changes.ShortLived{Time: l.seen, Socket: l.observed})
	}
	return s
}

func (r *recorder) rulesScan(o *observation, window time.Duration) *expect.Scan {
	e := &expect.Scan{
		Moment: expectMoment(o.Moment), Window: window, WhileDown: r.restored && !r.scanned,
		Listeners: make([]expect.Judged, 0, len(o.listeners)),
	}
	for _, listeners := range [][]*listener{o.listeners, o.shortLived} {
		for _, l := range listeners {
			e.Listeners = append(e.Listeners, expect.Judged{Listener: l.judged, Verdict: l.verdict})
		}
	}
	return e
}

func expectMoment(m changes.Moment) expect.Moment {
	return expect.Moment{Time: m.Time, Mono: m.Mono, Boot: m.Boot}
}

// writeWait is how long a gather waits for the disk, so that its events are in its own
// batch. Events whose write takes longer are in the next batch.
const writeWait = 100 * time.Millisecond

// events returns the events to publish, and a function to call when all outputs have them. It
// waits for the disk.
func (r *recorder) events(wait time.Duration) (events []metric.Point, stored func()) {
	return r.history.Events(wait)
}

// close saves the state for the next run.
func (r *recorder) close() error {
	if set := r.changes.Stop(); len(set) > 0 {
		r.history.Append(history.Write{Set: set})
	}
	return r.history.Close()
}
