// Package history keeps what an input must not forget: its state as keyed JSON records,
// and the events that not every output has yet. It knows the meaning of neither.
package history

import (
	"encoding/json"
	"log/slog"
	"time"

	"sockwatch/agent/metric"
)

// Options say where a history is kept.
type Options struct {
	// Path is that of the file, STATE_DIRECTORY/NAME.history.jsonl. If it is "",
	// everything is kept in memory, from start to stop.
	Path string
	// FirstSeen is the path of the file that the version before kept,
	// STATE_DIRECTORY/NAME.first_seen.json; "": none.
	FirstSeen string
	// MachineID is that of this host. The history of another machine is discarded. If it
	// is "", that is not known, and the history is taken to be of this machine.
	MachineID string
	Log       *slog.Logger
}

// A Write is what one gather has changed. It is written as a whole or not at all. The
// store keeps what it refers to: the caller must not change it afterwards.
type Write struct {
	Set    map[string]json.RawMessage // records by key; null or nil deletes
	Events []metric.Point             // each has a Time
}

// A Store is the history of one input. Its methods may be called concurrently.
type Store struct{}

// Open reads the history. It waits for the disk, and never fails: a damaged file is set aside, with a
// warning, and the content is empty.
func Open(o Options) (*Store, map[string]json.RawMessage) { panic("not written yet") }

// FirstSeen returns what the file of the version before holds: Unix times by tags. It is nil
// if there is a history already. The file is removed after the first write.
func (s *Store) FirstSeen() map[string]int64 { panic("not written yet") }

// Append starts to write. It never waits for the disk.
func (s *Store) Append(w Write) { panic("not written yet") }

// Events returns the events whose write has ended and that were not handed out yet,
// oldest first. It waits for writes under way, for that long at most. stored is for
// Batch.EventsStored, and nil if there are no events. A caller makes it the last step of Gather: events that it
// hands out and does not publish come again only after a restart.
func (s *Store) Events(wait time.Duration) (events []metric.Point, stored func()) {
	panic("not written yet")
}

// Recent returns the last 2,000 events that were handed out, oldest first, also those
// from before a restart. The caller must not change them.
func (s *Store) Recent() []metric.Point { panic("not written yet") }

// ID returns the random id of the history, the field `history` of its events.
func (s *Store) ID() string { panic("not written yet") }

// Dropped returns how many events were dropped since Open because 10,000 were waiting.
func (s *Store) Dropped() uint64 { panic("not written yet") }

// Close writes what is left. It waits for a disk that is not responding for a second at most.
func (s *Store) Close() error { panic("not written yet") }

// Inherit lets the store go on after Close, for an input that replaces the one that it
// was opened for, perhaps at another path. It returns the same store.
func (s *Store) Inherit(o Options) *Store { panic("not written yet") }
