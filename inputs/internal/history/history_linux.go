// Package history persists the state of an input, as records with keys, and the events that
// some output has not received yet. It interprets neither.
//
// history_linux.go shows the path of a write from top to bottom: Append changes the content
// (content.go) and starts a writer, which gives them as a line (line.go) to the
// journal (journal_linux.go), which encodes it (encode.go, event.go, json.go). Events returns the events that are written.
package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"sockwatch/agent/metric"
)

// Options say where a history is stored.
type Options struct {
	// Path is the path of the file, STATE_DIRECTORY/NAME.history.jsonl. If it is "",
	// everything is kept in memory and lost when the program stops.
	Path string
	// FirstSeen is the path of the file that the previous version used,
	// STATE_DIRECTORY/NAME.first_seen.json; "": none.
	FirstSeen string
	// MachineID is the machine id of this host; "" if it is unknown. The history of another
	// machine is discarded. If either id is unknown, the history counts as this machine's.
	MachineID string
	Log       *slog.Logger
}

// A Write is the changes of one gather. It is written as a whole or not at all. The store
// retains the data that it refers to. The caller must not modify it afterwards.
type Write struct {
	Set    map[string]json.RawMessage // records by key; nil or null deletes
	Events []metric.Point             // each has a Time
}

// A Store is the history of one input. Its methods may be called concurrently. Only
// Open, FirstSeen, Events and Close wait for the disk; after Close, so does the function that
// Events returns.
//
// Guarantees: an event is returned once it and the records that changed with it are durable.
// Until it is delivered, it is returned again after each restart, unchanged. If a write
// fails, its events are returned anyway, and the records are written when the disk works
// again.
type Store struct {
	mu      sync.Mutex
	options Options
	content content
	pending pending       // not written yet
	journal journal       // nil: everything stays in memory
	writing chan struct{} // closed when the writer has ended; nil: there is none
	last    attempt
	closed  bool

	dropped  uint64
	dropping bool     // the last Append dropped events
	obsolete []string // files to be removed after the next write
}

// An attempt is the write in progress, or the last one.
type attempt struct {
	began time.Time
	err   error
	slow  bool // it was logged as hanging, or Close did not wait for it
}

const (
	// retryEvery is how often a failed write is repeated if nothing is appended.
	retryEvery = 10 * time.Second
	// closeWait is how long Close waits for the disk.
	closeWait = time.Second
	// slowWrite is how long a write may take before it is logged as hanging.
	slowWrite = 30 * time.Second
)

// Open reads the history, and returns its records. It waits for the disk. A damaged file is
// set aside with a warning, and the content is then empty. The caller may keep and modify
// the map, but must not modify the records.
func Open(o Options) (*Store, map[string]json.RawMessage) {
	s := &Store{options: o, content: newContent()}
	if o.Path == "" {
		return s, map[string]json.RawMessage{}
	}
	f, c, err := openJournal(o.Path, o.Log)
	switch {
	case errors.Is(err, errInUse):
		o.Log.Warn("the history is in use by another process, changes are not saved", "file", o.Path)
		return s, map[string]json.RawMessage{}
	case err != nil:
		o.Log.Warn("history set aside, starting with an empty one", "error", err)
	case c != nil && c.machine != "" && o.MachineID != "" && c.machine != o.MachineID:
		o.Log.Warn("history of another machine discarded, starting with an empty one", "file", o.Path)
		s.pending.all = true
	case c != nil:
		s.content = *c
	}
	s.journal, s.content.machine = f, o.MachineID
	if _, err := os.Lstat(o.FirstSeen); err == nil && o.FirstSeen != "" {
		s.obsolete = append(s.obsolete, o.FirstSeen)
	}
	return s, s.content.copyRecords()
}

// Append adds the changes of a gather, and starts to write them.
func (s *Store) Append(w Write) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, record := range w.Set {
		if record, changed := s.content.set(key, record); changed {
			s.pending.set(key, record)
		}
	}
	for i := range w.Events {
		e, err := s.content.stamp(w.Events[i], i)
		if err != nil { // the agent would discard the whole batch
			s.options.Log.Error("invalid event dropped", "error", err)
			s.dropped++
			continue
		}
		s.pending.events = append(s.pending.events, e)
	}
	over := s.content.overLimit()
	if len(over) > 0 && !s.dropping {
		s.options.Log.Error("changes dropped: too many are undelivered", "limit", maxWaiting)
	}
	s.pending.finish(over)
	s.dropped, s.dropping = s.dropped+uint64(len(over)), len(over) > 0
	s.lockedStart()
}

// Events returns the events that have been written and not returned yet, oldest first. It
// waits for writes in progress, but no longer than wait. stored is for Batch.EventsStored; it
// is nil if there are no events. Gather must call Events as its last step, because events
// that are returned but not published are returned again only after a restart. The caller
// must not modify the events.
func (s *Store) Events(wait time.Duration) (events []metric.Point, stored func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lockedRetry()
	s.lockedAwait(wait, func() bool { return s.content.unwritten() })
	out := s.content.handOut()
	if len(out) == 0 {
		return nil, nil
	}
	for _, e := range out {
		events = append(events, e.point)
	}
	return events, func() { s.delivered(out) }
}

// lockedRetry repeats a failed write, and logs a write that hangs.
func (s *Store) lockedRetry() {
	switch since := time.Since(s.last.began); {
	case s.writing == nil && (s.last.err == nil || since >= retryEvery || s.content.unwritten()):
		s.lockedStart()
	case s.writing != nil && since >= slowWrite && !s.last.slow:
		s.last.slow = true
		s.options.Log.Warn("cannot write the history, the disk is not responding: changes wait for it", "file", s.options.Path)
	}
}

// delivered records that the outputs have events. After Close it waits for the disk, because
// the program may be about to end.
func (s *Store) delivered(events []*event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending.finish(s.content.finish(events))
	s.lockedStart()
	if s.closed && !s.last.slow {
		s.last.slow = !s.lockedAwait(closeWait, func() bool { return true })
	}
}

// Recent returns the last 2,000 events that Events has returned, including those before a
// restart, oldest first. The caller must not modify them.
func (s *Store) Recent() []metric.Point {
	s.mu.Lock()
	defer s.mu.Unlock()
	points := make([]metric.Point, 0, len(s.content.recent))
	for _, e := range s.content.lastRecent() {
		points = append(points, e.point)
	}
	return points
}

// ID returns the random id of the history that the next event will get.
func (s *Store) ID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.content.id
}

// Dropped returns how many events have been dropped since Open, because there were more than
// 10,000 undelivered events, or because they were invalid.
func (s *Store) Dropped() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

// Waiting returns how many events have not been delivered to all outputs yet.
func (s *Store) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.content.waiting)
}

// FirstSeen returns the data that the previous version stored instead of a history: Unix times
// by tags. It waits for the disk. It returns nothing if there is a history, or no such file.
// The file is removed after the first write.
func (s *Store) FirstSeen() (map[string]int64, error) {
	s.mu.Lock()
	path, isNew := s.options.FirstSeen, s.content.isNew
	s.mu.Unlock()
	if path == "" || !isNew {
		return nil, nil
	}
	return readFirstSeen(path)
}

// Close writes the remaining changes. If the disk is not responding, it gives up after a
// second. Deliveries after that are still recorded.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.lockedStart()
	switch {
	case !s.lockedAwait(closeWait, func() bool { return true }):
		return fmt.Errorf("write %s: the disk is not responding", s.options.Path)
	case s.journal == nil:
		return nil
	}
	s.journal.close()
	return s.last.err
}

// Inherit reopens the store after Close, for an input that replaces the one that it was
// opened for. The path may differ: a file at the new path is set aside, and the file at the
// old path is removed after the first write.
func (s *Store) Inherit(o Options) *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.options.Path
	s.options, s.content.machine, s.closed = o, o.MachineID, false
	if o.Path == old {
		return s
	}
	s.journal, s.writing, s.last = nil, nil, attempt{} // a write that hangs is abandoned
	s.content.newID()
	if o.Path == "" {
		s.pending = pending{}
		s.content.written(s.content.waiting)
		return s
	}
	s.journal, s.pending = newJournal(o.Path, o.Log), pending{all: true, events: s.content.notWritten()}
	if old != "" {
		s.obsolete = append(s.obsolete, old)
	}
	s.lockedStart()
	return s
}

// lockedAwait waits until the writer has ended or needed returns false, but no longer than the
// given time. It reports whether there is nothing left to wait for. The lock is released
// while it waits.
func (s *Store) lockedAwait(wait time.Duration, needed func() bool) bool {
	if s.writing == nil || !needed() {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for s.writing != nil && needed() {
		writing := s.writing
		s.mu.Unlock()
		select {
		case <-writing:
			s.mu.Lock()
		case <-timer.C:
			s.mu.Lock()
			return s.writing == nil
		}
	}
	return true
}

// lockedStart starts the writer if there is something to write.
func (s *Store) lockedStart() {
	if s.journal == nil {
		s.pending = pending{}
		s.content.written(s.content.waiting)
		return
	}
	if s.writing != nil || s.pending.empty() {
		return
	}
	s.writing, s.last.began, s.last.slow = make(chan struct{}), time.Now(), false
	go s.write(s.journal, s.writing)
}

// write writes until everything is written or a write fails. It has exclusive use of the
// journal until it returns.
func (s *Store) write(j journal, ended chan struct{}) {
	defer close(ended)
	for {
		whole := j.whole()
		s.mu.Lock()
		if s.journal != j || s.pending.empty() {
			s.lockedEnd(j)
			s.mu.Unlock()
			return
		}
		taken := s.pending
		s.pending, s.last.began, s.last.slow = pending{}, time.Now(), false
		line := s.content.line(&taken, whole || taken.all)
		obsolete := s.obsolete
		s.mu.Unlock()

		err := j.write(line)
		if err == nil {
			removeAll(obsolete)
		}

		s.mu.Lock()
		if s.journal == j {
			s.lockedWritten(taken, err)
		}
		if err != nil {
			s.lockedEnd(j)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

// lockedEnd records that the writer has ended.
func (s *Store) lockedEnd(j journal) {
	if s.journal == j {
		s.writing = nil
	}
	if s.journal != j || s.closed {
		j.close()
	}
}

// lockedWritten records the result of a write. The events of a failed write are returned
// anyway. The file may not contain them, and after a restart their numbers may be assigned to
// other events. Therefore they get another id.
func (s *Store) lockedWritten(taken pending, err error) {
	if err != nil {
		s.content.newID()
	}
	s.content.written(taken.events)
	switch {
	case err == nil:
		s.obsolete, s.content.isNew = nil, false
		if s.last.err != nil {
			s.options.Log.Info("writing the history resumed", "file", s.options.Path)
		}
	case s.last.err == nil:
		s.options.Log.Warn("cannot write the history: until it recovers, a crash may lose or repeat changes", "error", err)
	}
	if err != nil {
		taken.merge(s.pending)
		s.pending = taken
		if taken.size() > maxRecent { // a snapshot contains everything
			s.pending = pending{all: true, events: s.content.notWritten()}
		}
	}
	s.last.err = err
}
