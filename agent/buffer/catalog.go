package buffer

import (
	"slices"
	"sync"
	"time"
)

// A catalog knows what each segment of a queue holds and which may be dropped. It does
// no I/O, so its methods never wait for a disk.
type catalog struct {
	mu           sync.Mutex
	limit        int64
	segments     []*segment // in order of index
	held         uint64     // segments up to this index are in use by the reader and are not dropped
	oldest       time.Time  // when the oldest record was appended, if there is one
	damaged      int
	damagedBytes int64
}

// add adds a new segment, the active one.
func (c *catalog) add(s *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.writing = true
	c.segments = append(c.segments, s)
}

// room returns the offset for n more bytes in s. It reports false if they do not fit.
func (c *catalog) room(s *segment, n int64) (off int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.size, s.writing && (s.size == 0 || s.size+n <= segmentSize(c.limit))
}

// commit makes records that were written to s visible to the reader. It reports false
// if s is gone.
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

// seal ends writing to s. It reports whether s is empty.
func (c *catalog) seal(s *segment) (empty bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.writing = false
	return s.size == 0
}

// drop chooses the segment to drop so that n more bytes fit under the limit, and returns
// how many records are lost with it. It returns nil if the bytes fit already, and an
// error if dropping would not help.
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
		return nil, 0, ErrFull
	}
	records = victim.left
	victim.left, victim.gone = 0, true
	return victim, records, nil
}

// remove removes a segment whose file has been removed.
func (c *catalog) remove(s *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.segments = slices.DeleteFunc(c.segments, func(g *segment) bool { return g == s })
}

// missing counts the records lost with a segment whose file was removed or replaced by
// something else. The segment is no longer written.
func (c *catalog) missing(s *segment) (records int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	records = s.left
	c.damaged += records
	s.left, s.gone, s.writing = 0, true, false
	return records
}

// damage counts lost records and skipped bytes of s, which must be held.
func (c *catalog) damage(s *segment, records int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.left -= records
	c.damaged += records
	c.damagedBytes += bytes
}

// after returns the first segment after index that has records, and holds it. It returns
// nil if there is none.
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

// hold keeps s from being dropped, unless it already is. It returns a copy of s.
func (c *catalog) hold(s *segment) segment {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = max(c.held, s.index)
	return *s
}

// release keeps holding only the segments up to index.
func (c *catalog) release(index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = index
}

// deliver marks the oldest records of s as delivered.
func (c *catalog) deliver(s *segment, records int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.left -= records
}

// ahead sets when the oldest record was appended, and the offset of its frame in s.
func (c *catalog) ahead(s *segment, oldest time.Time, off int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.oldest, s.done = oldest, off
}

// finished returns the oldest segments that have no records left, and the sequence
// number after their last record, but at least position.
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
