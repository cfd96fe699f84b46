package buffer

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// A catalog knows what every segment of a queue holds and what may be done with it.
// It does no I/O: none of its methods waits for a disk.
type catalog struct {
	mu           sync.Mutex
	limit        int64
	segments     []*segment // in order of index
	held         uint64     // segments up to this index are handed out or being read: they are not dropped
	oldest       time.Time  // of the oldest record, if there is one
	damaged      int
	damagedBytes int64
}

// add takes in a new segment that will be written.
func (c *catalog) add(s *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.writing = true
	c.segments = append(c.segments, s)
}

// room returns the offset at which n bytes can be added to s; false: they cannot.
func (c *catalog) room(s *segment, n int64) (off int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.size, s.writing && (s.size == 0 || s.size+n <= segmentSize(c.limit))
}

// commit makes records that were written to s visible to the reader; false: s is
// not there any more.
func (c *catalog) commit(s *segment, records int, bytes int64, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.writing {
		return false
	}
	if c.lockedRecords() == 0 {
		c.oldest = now
	}
	s.size += bytes
	s.end += uint64(records)
	s.left += records
	return true
}

// seal ends the writing of s, and reports whether nothing was written to it.
func (c *catalog) seal(s *segment) (empty bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.writing = false
	return s.size == 0
}

// errHeld says that a block does not fit beside the records that are handed out.
var errHeld = errors.New("all that could make room is handed out")

// drop decides which segment is to go for n bytes more, which count against the
// limit, and how many records are lost with it; nil: they fit. An error: dropping
// would not help.
func (c *catalog) drop(n int64) (victim *segment, records int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	used, held := int64(0), int64(0)
	for _, s := range c.segments {
		used += s.cost()
		switch {
		case s.left == 0 && !s.writing: // not removed yet
			victim = s
		case s.index <= c.held:
			held += s.cost()
		case victim == nil:
			victim = s
		}
	}
	switch {
	case used+n <= c.limit:
		return nil, 0, nil
	case n > c.limit:
		return nil, 0, &TooLargeError{Size: n, Limit: c.limit}
	case held+n > c.limit:
		return nil, 0, errHeld
	}
	records = victim.left
	victim.left, victim.gone = 0, true
	return victim, records, nil
}

// remove takes out a segment whose file is gone.
func (c *catalog) remove(s *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.segments = slices.DeleteFunc(c.segments, func(g *segment) bool { return g == s })
}

// missing counts what is lost with a segment whose file somebody else removed or
// replaced. It is written no more.
func (c *catalog) missing(s *segment) (records int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	records = s.left
	c.damaged += records
	s.left, s.gone, s.writing = 0, true, false
	return records
}

// damage counts records of s that turned out to be lost, and bytes skipped. s is
// held, hence not dropped.
func (c *catalog) damage(s *segment, records int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.left -= records
	c.damaged += records
	c.damagedBytes += bytes
}

// after holds and returns the first segment after an index that has records; nil:
// none has.
func (c *catalog) after(index uint64) *segment {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.segments {
		if s.index > index && s.left > 0 {
			c.held = max(c.held, s.index)
			return s
		}
	}
	return nil
}

// hold keeps s from being dropped, if that has not happened, and returns it as it
// is now.
func (c *catalog) hold(s *segment) segment {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = max(c.held, s.index)
	return *s
}

// release holds only the segments up to an index.
func (c *catalog) release(index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = index
}

// deliver notes that the oldest records left of s are delivered.
func (c *catalog) deliver(s *segment, records int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.left -= records
}

// ahead notes when the oldest record, in s, was appended, and the offset of its
// frame.
func (c *catalog) ahead(s *segment, oldest time.Time, off int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.oldest, s.done = oldest, off
}

// finished returns the oldest segments as far as nothing is left of them, and the
// sequence after their last record, at least position.
func (c *catalog) finished(position uint64) ([]*segment, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, s := range c.segments {
		if s.left > 0 || s.writing {
			break
		}
		position = max(position, s.end)
		n++
	}
	return slices.Clone(c.segments[:n]), position
}

func (c *catalog) setLimit(limit int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = limit
}

func (c *catalog) stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{Records: c.lockedRecords(), Limit: c.limit, Damaged: c.damaged, DamagedBytes: c.damagedBytes}
	if s.Records > 0 {
		s.Oldest = c.oldest
	}
	for _, g := range c.segments {
		if g.left > 0 {
			s.Bytes += g.size - g.done
			s.Used += g.cost()
		}
	}
	return s
}

func (c *catalog) lockedRecords() (records int) {
	for _, s := range c.segments {
		records += s.left
	}
	return records
}
