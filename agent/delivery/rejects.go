package delivery

import (
	"log/slog"

	"sockwatch/agent/buffer"
	"sockwatch/agent/calls"
	"sockwatch/agent/health"
)

// rejects saves and counts the records that can never be stored.
type rejects struct {
	file     *buffer.DeadLetters
	health   *health.Output
	log      *slog.Logger
	throttle calls.Throttle
}

// keep counts entries and writes them to the dead-letter file, if there is one. If that
// fails, they are not counted.
func (r *rejects) keep(entries []buffer.DeadLetter) error {
	if len(entries) == 0 {
		return nil
	}
	if err := r.file.Add(entries); err != nil {
		return err
	}
	r.health.Rejected.Add(int64(len(entries)))
	n := r.throttle.Add(len(entries))
	switch first := entries[0]; {
	case n == 0:
	case r.file.Path() == "":
		r.log.Warn("points rejected, not saved without a state directory", "points", n, "error", first.Reason, "first", excerpt(first.Record))
	default:
		r.log.Warn("points rejected, saved in the dead-letter file", "points", n, "error", first.Reason, "file", r.file.Path())
	}
	return nil
}

// lost counts rejected points that could not be saved.
func (r *rejects) lost(n int, err error) {
	r.health.Rejected.Add(int64(n))
	if n := r.throttle.Add(n); n > 0 {
		r.log.Error("points rejected and not saved", "points", n, "error", err)
	}
}

// excerpt returns the beginning of a record, for the log.
func excerpt(record []byte) string { return string(record[:min(len(record), 300)]) }
