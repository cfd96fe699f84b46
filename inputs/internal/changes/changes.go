// Package changes reports what has changed between two scans of the listening sockets of
// a host: snapshots in, events out. It does not use the kernel, files or clocks.
//
//	snapshot ──▶ endpoints ──▶ match: owner of each socket ──▶ difference ──▶ events
//	                                                              │
//	                   nothing is reported before the search for owners, or settle, has ended
//
// docs/changes.md describes what the events mean.
package changes

import (
	"encoding/json"
	"time"

	"sockwatch/agent/metric"
)

// A Tracker compares each snapshot with its state. It is not safe for concurrent use.
type Tracker struct {
	options   Options
	endpoints map[Endpoint]*endpoint // present, or not closed yet
	memory    memory                 // of closed endpoints
	totals    totals
	last      view                // of the last scan
	started   bool                // there was a scan in this run; earlier changes happened while it was down
	due       due                 // when a waiting change must be reported
	imported  map[importKey]int64 // Unix time
	match     match               // of one endpoint at a time
}

// New returns a Tracker without state: its first snapshot is a baseline.
func New(o Options) *Tracker {
	return &Tracker{options: o, endpoints: make(map[Endpoint]*endpoint), memory: newMemory(), totals: newTotals()}
}

// Reconfigure changes the options on a reload. Waiting changes keep waiting.
func (t *Tracker) Reconfigure(o Options) {
	t.options = o
	t.due = due{now: true}
}

// Observe compares a complete scan with the known state. It must not be called for a failed
// scan; the next one reports what has changed meanwhile. Observe keeps the tags, which must
// not change afterwards, and nothing else of the snapshot.
func (t *Tracker) Observe(s *Snapshot) Result {
	l := t.begin(s)
	l.reportShortLived(s.ShortLived)
	present, absent := l.assign(s.Sockets)
	absent = l.indexMissing(l.followRenames(present, absent))
	l.limitBrief(absent)
	for _, e := range present {
		l.step(e)
	}
	for _, e := range absent {
		if t.endpoints[e.Endpoint] == e { // not replaced by another
			l.stepAbsent(e)
		}
	}
	return l.end()
}

// Unchanged is called instead of Observe if a complete scan found nothing changed, including
// the facts of holders. It is cheap. It reports whether something is due, in which case
// Observe must be called.
func (t *Tracker) Unchanged(now Moment) (due bool) {
	if !t.started || now.Boot != t.last.Boot || t.due.reached(now) {
		return true
	}
	t.last.Moment, t.last.Gathered = now, now
	return false
}

// Listed is called if a listing of the sockets between two scans found nothing changed. It
// makes the times of sockets that open and close more exact.
func (t *Tracker) Listed(now Moment) {
	if t.started && now.Boot == t.last.Boot {
		t.last.Moment = now
	}
}

// Since returns the time since the last complete scan, even if that was before a restart, or
// 0 if there was none.
func (t *Tracker) Since(m Moment) time.Duration {
	if t.last.Number == 0 {
		return 0
	}
	return t.last.gathered().until(m)
}

// Times returns the values of the fields first_seen_time_seconds and changed_time_seconds
// of a socket that the last Observe saw; 0: the field is absent. Only Observe changes
// them.
func (t *Tracker) Times(at Endpoint, id SocketID) (firstSeen, changed int64) {
	e := t.endpoints[at]
	if e == nil {
		return 0, 0
	}
	if e.Changed != 0 && t.last.Time.Unix() < e.Changed+changedFor {
		changed = e.Changed
	}
	if s := e.known(id); s != nil {
		return e.Owners[s.Owner].FirstSeen, changed
	}
	if e.Change != nil {
		return e.Change.Time.Unix(), changed
	}
	return e.FirstSeen, changed
}

// changedFor is how long changed_time_seconds is shown, in seconds.
const changedFor = 24 * 60 * 60

// Totals returns the points NAME_events, which count events since the first scan. All values of the tags are
// present from the start. Only Observe changes them.
func (t *Tracker) Totals() []metric.Point { return t.totals.points(t.options, t.last.Began) }

// Stop returns the records to write at a clean stop: the time of the last scan, which tells
// the next run how exact the times of its first events are.
func (t *Tracker) Stop() map[string]json.RawMessage {
	if !t.started {
		return nil
	}
	return map[string]json.RawMessage{viewKey: encode(&t.last)}
}

// A due is the next time at which a waiting change must be reported.
type due struct {
	now  bool
	mono time.Duration // 0: nothing is due
	wall int64         // Unix time; 0: nothing is due
}

func (d *due) reached(now Moment) bool {
	return d.now || d.mono != 0 && now.Mono >= d.mono || d.wall != 0 && now.Time.Unix() >= d.wall
}

func (d *due) atMono(at time.Duration) {
	if d.mono == 0 || at < d.mono {
		d.mono = max(at, 1)
	}
}

func (d *due) atWall(at int64) {
	if d.wall == 0 || at < d.wall {
		d.wall = max(at, 1)
	}
}
