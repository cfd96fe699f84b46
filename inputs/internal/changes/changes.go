// Package changes reports what has changed between two looks at the listening sockets of
// a host: snapshots in, events out. It does not use the kernel, files or clocks.
//
//	snapshot ──▶ endpoints ──▶ match: owner of each socket ──▶ difference ──▶ events
//	                                                              │
//	                   nothing is reported before the search for owners, or settle, has ended
//
// docs/changes.md says what the events mean.
package changes

import (
	"encoding/json"
	"slices"
	"time"

	"sockwatch/agent/metric"
)

// A Tracker compares each snapshot with what it knows. It is for one goroutine.
type Tracker struct {
	options   Options
	endpoints map[Endpoint]*endpoint // that are there, or not closed yet
	memory    memory                 // those that are closed
	totals    totals
	last      view                // of the last look
	started   bool                // it has looked: what changed before happened while it was down
	due       due                 // when something that waits is to be reported
	imported  map[importKey]int64 // Unix time
	match     match               // of one endpoint at a time
}

// New returns a Tracker that knows nothing: its first snapshot is a baseline.
func New(o Options) *Tracker {
	return &Tracker{options: o, endpoints: make(map[Endpoint]*endpoint), memory: newMemory(), totals: newTotals()}
}

// Reconfigure changes the options: a reload. What waits goes on waiting.
func (t *Tracker) Reconfigure(o Options) {
	t.options = o
	t.due = due{now: true}
}

// Observe compares a complete look with what is known. A look that has failed is not
// observed: what has changed since then is reported by the next one. Tags are kept, and must not
// change; nothing else of the snapshot is.
func (t *Tracker) Observe(s *Snapshot) Result {
	l := t.begin(s)
	l.glimpse(s.Glimpses)
	present, absent := l.place(s.Sockets)
	present, absent = l.reunite(present, absent)
	absent = l.indexMissing(absent)
	for _, e := range present {
		l.step(e)
	}
	for _, e := range absent {
		if t.endpoints[e.Endpoint] == e { // no other has taken its place
			l.stepAbsent(e)
		}
	}
	return l.end()
}

// Unchanged is called instead of Observe if a complete look has found all as it was, the
// facts of holders included. It costs nothing. It reports whether something is due, so that
// Observe must be called.
func (t *Tracker) Unchanged(now Moment) (due bool) {
	if !t.started || now.Boot != t.last.Boot || t.due.reached(now) {
		return true
	}
	t.last.Moment = now
	return false
}

// Since returns the time since the last complete look, also if that was before a restart;
// 0 if there was none. The next look makes it the window of what it finds.
func (t *Tracker) Since(m Moment) time.Duration {
	if t.last.Number == 0 {
		return 0
	}
	return t.last.until(m)
}

// Times returns the values of the fields first_seen_time_seconds and changed_time_seconds
// of a socket that the last Observe has seen; 0: the field is absent. Only Observe changes
// them.
func (t *Tracker) Times(at Endpoint, id SocketID) (firstSeen, changed int64) {
	e := t.endpoints[at]
	if e == nil {
		return 0, 0
	}
	if e.Changed != 0 && t.last.Time.Unix() < e.Changed+changedFor {
		changed = e.Changed
	}
	if i, known := slices.BinarySearchFunc(e.Sockets, id, func(s socket, id SocketID) int { return compareIDs(s.ID, id) }); known {
		return e.Owners[e.Sockets[i].Owner].FirstSeen, changed
	}
	if e.Change != nil {
		return e.Change.Time.Unix(), changed
	}
	return e.FirstSeen, changed
}

// changedFor is how long changed_time_seconds is shown, in seconds.
const changedFor = 24 * 60 * 60

// Totals returns the points NAME_events: how many events there were, for all values of
// the tags from the start. Only Observe changes them.
func (t *Tracker) Totals() []metric.Point { return t.totals.points(t.options) }

// Stop returns the records to write at a clean stop: the time of the last look, by which
// the next run knows how exact the times of its first events are.
func (t *Tracker) Stop() map[string]json.RawMessage {
	if !t.started {
		return nil
	}
	return map[string]json.RawMessage{viewKey: encode(&t.last)}
}

// A due is the next time at which something that waits is to be reported.
type due struct {
	now  bool
	mono time.Duration // 0: nothing is
	wall int64         // Unix time; 0: nothing is
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
