package buffer

import (
	"errors"
	"io/fs"
	"slices"
	"time"
)

// write writes a frame and syncs it. After a failed write the segment is cut back
// to its whole frames; after a failed sync nobody knows what of it is on disk, so
// it is abandoned and the frame written once more, elsewhere.
func (q *disk) write(frame []byte) error {
	for again := true; ; again = false {
		size, err := q.openActive(int64(len(frame)))
		if err != nil {
			return err
		}
		if _, err := q.f.WriteAt(frame, size); err != nil {
			if q.f.Truncate(size) != nil {
				q.abandon()
			}
			return err
		}
		err = q.f.Sync()
		if err == nil && size == 0 {
			err = q.dir.sync()
		}
		if err == nil {
			if size == 0 {
				keepReserve(q.dir) // it may have been given up; if there is no space for it, later
			}
			return nil
		}
		q.f.Truncate(size) // at best it is not read again after a restart
		q.abandon()
		if !again {
			return err
		}
	}
}

// openActive makes sure of an active segment that has place for n bytes, and
// returns its size.
func (q *disk) openActive(n int64) (size int64, err error) {
	q.mu.Lock()
	full := q.active != nil && q.active.size > 0 && q.active.size+n > segmentSize(q.limit)
	q.mu.Unlock()
	if full {
		q.abandon()
	}
	if q.f == nil {
		q.lastIndex++
		s := &segment{index: q.lastIndex, first: q.next, end: q.next}
		if q.f, err = q.dir.create(s.name()); err != nil {
			q.f = nil
			return 0, err
		}
		q.mu.Lock()
		q.segments, q.active = append(q.segments, s), s
		q.mu.Unlock()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.active.size, nil
}

// commit makes what was written visible.
func (q *disk) commit(records int, bytes int64, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.lockedLeft() == 0 {
		q.oldest = now
	}
	q.active.size += bytes
	q.active.end += uint64(records)
	q.active.left += records
}

// abandon ends the active segment.
func (q *disk) abandon() {
	if q.f == nil {
		return
	}
	q.f.Close() // what counts is synced
	q.mu.Lock()
	s := q.active
	q.f, q.active = nil, nil
	q.mu.Unlock()
	if s.size == 0 {
		q.remove(s) // if that fails, it is removed with the segments before it
	}
}

// giveBack removes the segments of a queue that holds nothing, the active one among
// them, which goes on otherwise: a full disk must not silence an output that
// delivers everything. false: there was nothing to give.
func (q *disk) giveBack() bool {
	q.r.Lock()
	defer q.r.Unlock()
	q.mu.Lock()
	spent := q.lockedLeft() == 0 && slices.ContainsFunc(q.segments, func(s *segment) bool { return s.size > 0 })
	q.mu.Unlock()
	if !spent {
		return false
	}
	q.abandon()
	err := q.reap()
	q.lookAhead() // closes the file that was read, which holds its space until then
	return err == nil
}

// makeRoom drops the oldest segments that are not handed out until there is room
// for n bytes. If dropping them all would not do, none goes.
func (q *disk) makeRoom(n int64) (dropped int, fits bool, err error) {
	for {
		q.mu.Lock()
		victim, fits := q.lockedVictim(n)
		if victim != nil {
			dropped += victim.left
			victim.left, victim.gone = 0, true
		}
		q.mu.Unlock()
		if victim == nil {
			return dropped, fits, nil
		}
		if victim == q.active {
			q.abandon()
		}
		if err := q.remove(victim); err != nil {
			return dropped, true, err
		}
	}
}

// lockedVictim returns the segment that is to go for n more bytes. nil: they fit,
// or cannot be made to.
func (q *disk) lockedVictim(n int64) (victim *segment, fits bool) {
	used, held := int64(0), int64(0)
	for _, s := range q.segments {
		used += s.cost()
		switch {
		case s.left == 0 && s != q.active: // not removed yet
			victim = s
		case s.index <= q.guard:
			held += s.cost()
		case victim == nil:
			victim = s
		}
	}
	switch {
	case used+n <= q.limit:
		return nil, true
	case held+n > q.limit:
		return nil, false
	default:
		return victim, true
	}
}

// reap notes the position acked and removes the segments that lie before it, once
// it is durable.
func (q *disk) reap() error {
	drained := q.drained()
	if q.acked > q.acks.last { // also where that failed the last time
		if err := q.acks.write(q.acked); err != nil {
			return err
		}
	}
	if len(drained) == 0 {
		return nil
	}
	if err := q.acks.sync(); err != nil {
		return err
	}
	var errs []error
	for _, s := range drained {
		errs = append(errs, q.remove(s))
	}
	return errors.Join(errs...)
}

// drained returns the oldest segments as far as nothing is left of them, and
// moves the position past them: what is not acked of them is damaged.
func (q *disk) drained() (segments []*segment) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.segments {
		if s.left > 0 || s == q.active {
			break
		}
		segments = append(segments, s)
		q.acked = max(q.acked, s.end)
	}
	return segments
}

// remove unlinks a segment of which nothing is needed any more.
func (q *disk) remove(s *segment) error {
	err := withReserve(q.dir, func() error { return q.dir.remove(s.name()) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lockedRemove(s)
	return nil
}

func (q *disk) lockedRemove(s *segment) {
	if i := slices.Index(q.segments, s); i >= 0 {
		q.segments = slices.Delete(q.segments, i, i+1)
	}
}
