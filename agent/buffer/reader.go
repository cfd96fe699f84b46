package buffer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A reader walks the frames of the queue, the oldest first. What it skips because
// it is damaged it counts, once.
type reader struct {
	zstd    *zstd.Decoder
	payload []byte // for use again

	last uint64   // the index of the segment entered last
	seg  *segment // the same; nil: it is left
	f    file     // of seg
	off  int64    // where the next frame is looked for
	want uint64   // the sequence of the next record of seg
	head *header  // of the frame at off, once it is found

	tries        int   // failed reads of seg
	lostRecords  int   // in seg
	skippedBytes int64 // of seg
}

// A chunk is a frame in memory: what of it is not acked.
type chunk struct {
	seg     *segment
	records [][]byte
	next    uint64 // the sequence after the last of the records
	end     int64  // the offset after the frame
	time    time.Time
}

// find makes r.head the header of the next frame with records not read yet;
// io.EOF: there is none now. Its segment is guarded from then on.
func (q *disk) find() error {
	r := &q.reader
	for {
		s, writing := q.guardSegment()
		switch {
		case s.gone:
			if err := q.enterNext(); err != nil {
				return err
			}
		case r.head != nil:
			return nil
		case r.want < s.end && r.off < s.size:
			h, at, err := scan(patchedAfter(r.f, r.tries), r.off, s.size)
			if err != nil {
				r.tries++
				return fmt.Errorf("%q: %w", s.name(), err)
			}
			q.skipTo(&s, h, at)
		case writing:
			return io.EOF
		default:
			q.lost(int(s.end-min(r.want, s.end)), s.size-r.off)
			if err := q.enterNext(); err != nil {
				return err
			}
		}
	}
}

// skipTo goes on to the header at an offset, and counts what lies between.
func (q *disk) skipTo(s *segment, h header, at int64) {
	r := &q.reader
	switch {
	case at == s.size:
		q.lost(int(s.end-r.want), s.size-r.off)
		r.want, r.off = s.end, s.size
	case h.end() <= r.want || h.end() > s.end: // acked, or abandoned after a failed sync
		q.lost(0, at-r.off)
		r.off = at + h.size()
	default:
		if h.first > r.want {
			q.lost(int(h.first-r.want), at-r.off)
			r.want = h.first
		} else {
			q.lost(0, at-r.off)
		}
		r.off, r.head = at, &h
	}
}

// load reads the next frame.
func (q *disk) load() (*chunk, error) {
	r := &q.reader
	for {
		if err := q.find(); err != nil {
			return nil, err
		}
		h := r.head
		if cap(r.payload) < h.payload || cap(r.payload) > keepBuffer {
			r.payload = make([]byte, h.payload)
		}
		r.payload = r.payload[:h.payload]
		if err := readAt(patchedAfter(r.f, r.tries), r.payload, r.off+headerSize); err != nil {
			r.tries++
			return nil, fmt.Errorf("%q: %w", r.seg.name(), err)
		}
		records, err := decode(r.zstd, h, r.payload)
		r.head = nil
		if err != nil {
			q.lost(0, 1) // find counts the rest of it
			r.off++
			continue
		}
		c := &chunk{
			seg:     r.seg,
			records: records[r.want-h.first:],
			next:    h.end(),
			end:     r.off + h.size(),
			time:    h.time,
		}
		r.want, r.off = c.next, c.end
		return c, nil
	}
}

// guardSegment returns a copy of the segment being read, which is not dropped
// from now on unless it is gone already, and whether it is still being written.
func (q *disk) guardSegment() (s segment, writing bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.reader.seg == nil {
		return segment{gone: true}, false
	}
	q.guard = max(q.guard, q.reader.seg.index)
	return *q.reader.seg, q.reader.seg == q.active
}

// enterNext leaves the segment being read and opens the next that holds records.
func (q *disk) enterNext() error {
	q.leave()
	r := &q.reader
	for {
		s := q.nextSegment()
		if s == nil {
			return io.EOF
		}
		f, err := q.dir.open(s.name())
		if errors.Is(err, fs.ErrNotExist) {
			q.forget(s)
			continue
		}
		if err != nil {
			return err
		}
		*r = reader{
			zstd: r.zstd, payload: r.payload,
			last: s.index, seg: s, f: f, want: max(s.first, q.acked),
		}
		return nil
	}
}

// nextSegment guards and returns the segment after the one read last, nil where
// there is none.
func (q *disk) nextSegment() *segment {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.segments {
		if s.index > q.reader.last && s.left > 0 {
			q.guard = max(q.guard, s.index)
			return s
		}
	}
	return nil
}

// leave closes the segment being read, and tells what was damaged in it.
func (q *disk) leave() {
	r := &q.reader
	if r.seg == nil {
		return
	}
	r.f.Close() // read only: nothing can be lost
	if r.skippedBytes > 0 || r.lostRecords > 0 {
		q.log.Warn("queue: skipped what is no whole block (damage, or a write that a kill cut off)",
			"queue", q.path, "segment", r.seg.name(), "bytes", r.skippedBytes, "points_lost", r.lostRecords)
	}
	r.seg, r.f, r.head = nil, nil, nil
}

// lost counts records that turned out to be damaged, and skipped bytes, of the
// segment being read: it is guarded, hence not dropped.
func (q *disk) lost(records int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := &q.reader
	r.lostRecords += records
	r.skippedBytes += bytes
	r.seg.left -= records
	q.damaged += records
	q.damagedBytes += bytes
}

// forget counts a segment that somebody removed.
func (q *disk) forget(s *segment) {
	q.mu.Lock()
	n := s.left
	q.damaged += n
	s.left, s.gone = 0, true
	q.lockedRemove(s)
	q.mu.Unlock()
	if n > 0 {
		q.log.Error("queue: a segment is missing", "queue", q.path, "segment", s.name(), "points_lost", n)
	}
}
