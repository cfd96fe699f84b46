package buffer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A reader hands out the records of the segments, the oldest first, and notes how
// far they are delivered.
type reader struct {
	*store
	zstd    *zstd.Decoder
	payload []byte // for use again

	last   uint64   // the index of the segment opened last
	cur    *cursor  // in that segment; nil: it is closed
	chunks []*chunk // loaded and not acked, oldest first
	out    int      // records handed out

	acks  *acks
	acked uint64 // the sequence after the last record acked
}

// A cursor is where a reader is in a segment. What it skips because it is damaged
// it counts, once.
type cursor struct {
	seg  *segment
	f    file
	r    *retryReader // of f
	off  int64        // where the next frame is looked for
	want uint64       // the sequence of the next record of seg
	head *header      // of the frame at off, once it is found

	lostRecords  int
	skippedBytes int64
}

// A chunk is a frame in memory: what of it is not acked.
type chunk struct {
	seg     *segment
	records [][]byte
	next    uint64 // the sequence after the last of the records
	off     int64  // of the frame
	time    time.Time
}

func (r *reader) peek(maxRecords, maxBytes int) ([][]byte, error) {
	r.forgetDropped()
	records, last, err := r.collect(maxRecords, maxBytes)
	r.out = len(records)
	r.catalog.release(last)
	if len(records) > 0 || errors.Is(err, io.EOF) {
		return records, nil
	}
	return records, err
}

// collect returns the oldest records and the index of the segment of the last.
// Every segment that it touches is held.
func (r *reader) collect(maxRecords, maxBytes int) (records [][]byte, last uint64, err error) {
	bytes := 0
	for i := 0; ; i++ {
		if i == len(r.chunks) {
			c, err := r.load()
			if err != nil {
				return records, last, err
			}
			r.chunks = append(r.chunks, c)
		}
		c := r.chunks[i]
		for _, record := range c.records {
			bytes += len(record) + 1
			if len(records) > 0 && (len(records) >= maxRecords || bytes > maxBytes) {
				return records, last, nil
			}
			records, last = append(records, record), c.seg.index
		}
	}
}

func (r *reader) ack(n int) error {
	r.take(min(n, r.out))
	r.out = 0
	err := r.reap()
	r.lookAhead()
	return err
}

// take removes the first n records in memory.
func (r *reader) take(n int) {
	for n > 0 {
		c := r.chunks[0]
		k := min(n, len(c.records))
		c.records = c.records[k:]
		n -= k
		r.acked = c.next - uint64(len(c.records))
		if len(c.records) == 0 {
			r.chunks[0] = nil
			r.chunks = r.chunks[1:]
		}
		r.catalog.deliver(c.seg, k)
	}
}

// reap notes the position acked and removes the segments that lie before it, once
// it is durable. What is not acked of them is damaged.
func (r *reader) reap() error {
	finished, position := r.catalog.finished(r.acked)
	r.acked = position
	if r.acked > r.acks.last { // also if that failed the last time
		if err := r.acks.write(r.dir, r.acked); err != nil {
			return err
		}
	}
	if len(finished) == 0 {
		return nil
	}
	if err := r.acks.sync(r.dir); err != nil {
		return err
	}
	var errs []error
	for _, s := range finished {
		errs = append(errs, r.remove(s))
	}
	return errors.Join(errs...)
}

// lookAhead finds the oldest record while none is handed out. A fault is met again
// by the next peek.
func (r *reader) lookAhead() {
	r.forgetDropped()
	if len(r.chunks) > 0 {
		c := r.chunks[0]
		r.catalog.ahead(c.seg, c.time, c.off)
	} else if r.find() == nil {
		r.catalog.ahead(r.cur.seg, r.cur.head.time, r.cur.off)
	}
	r.catalog.release(0)
}

// forgetDropped forgets what was loaded of segments that were dropped since, and
// holds the others.
func (r *reader) forgetDropped() {
	kept := r.chunks[:0]
	for _, c := range r.chunks {
		if !r.catalog.hold(c.seg).gone {
			kept = append(kept, c)
		}
	}
	clear(r.chunks[len(kept):])
	r.chunks = kept
}

// load reads the next frame.
func (r *reader) load() (*chunk, error) {
	for {
		if err := r.find(); err != nil {
			return nil, err
		}
		c := r.cur
		h := c.head
		if cap(r.payload) < h.payload || cap(r.payload) > keepBuffer {
			r.payload = make([]byte, h.payload)
		}
		r.payload = r.payload[:h.payload]
		if err := readAt(c.r, r.payload, c.off+headerSize); err != nil {
			return nil, fmt.Errorf("%q: %w", c.seg.name(), err)
		}
		records, err := decode(r.zstd, h, r.payload)
		c.head = nil
		if err != nil {
			r.damage(0, 1) // find counts the rest of it
			c.off++
			continue
		}
		loaded := &chunk{
			seg:     c.seg,
			records: records[c.want-h.first:],
			next:    h.end(),
			off:     c.off,
			time:    h.time,
		}
		c.want, c.off = h.end(), c.off+h.size()
		return loaded, nil
	}
}

// find moves the cursor to the next frame with records not read yet; io.EOF: there
// is none now. Its segment is held from then on.
func (r *reader) find() error {
	for {
		s := segment{gone: true}
		if r.cur != nil {
			s = r.catalog.hold(r.cur.seg)
		}
		switch c := r.cur; {
		case s.gone:
			if err := r.openNext(); err != nil {
				return err
			}
		case c.head != nil:
			return nil
		case c.want < s.end && c.off < s.size:
			h, at, err := scan(c.r, c.off, s.size)
			if err != nil {
				return fmt.Errorf("%q: %w", s.name(), err)
			}
			r.skipTo(&s, h, at)
		case s.writing:
			return io.EOF
		default:
			r.damage(int(s.end-min(c.want, s.end)), s.size-c.off)
			if err := r.openNext(); err != nil {
				return err
			}
		}
	}
}

// skipTo goes on to the header at an offset, and counts what lies between.
func (r *reader) skipTo(s *segment, h header, at int64) {
	c := r.cur
	switch {
	case at == s.size:
		r.damage(int(s.end-c.want), s.size-c.off)
		c.want, c.off = s.end, s.size
	case h.end() <= c.want || h.end() > s.end: // acked, or left behind by a failed sync
		r.damage(0, at-c.off)
		c.off = at + h.size()
	default:
		r.damage(int(max(h.first, c.want)-c.want), at-c.off)
		c.want = max(h.first, c.want)
		c.off, c.head = at, &h
	}
}

// damage counts records of the current segment that are lost, and bytes skipped.
func (r *reader) damage(records int, bytes int64) {
	r.cur.lostRecords += records
	r.cur.skippedBytes += bytes
	r.catalog.damage(r.cur.seg, records, bytes)
}

// openNext closes the current segment and opens the next that holds records; io.EOF:
// none does.
func (r *reader) openNext() error {
	r.closeCurrent()
	for {
		s := r.catalog.after(r.last)
		if s == nil {
			return io.EOF
		}
		f, err := r.dir.open(s.name())
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotRegular) {
			r.log.Error("queue: a segment is missing", "segment", s.name(), "error", err, "points_lost", r.catalog.missing(s))
			continue
		}
		if err != nil {
			return err
		}
		r.last = s.index
		r.cur = &cursor{seg: s, f: f, r: &retryReader{r: f}, want: max(s.first, r.acked)}
		return nil
	}
}

// closeCurrent closes the current segment, and logs what was damaged in it.
func (r *reader) closeCurrent() {
	c := r.cur
	if c == nil {
		return
	}
	c.f.Close() // read only: nothing can be lost
	if c.skippedBytes > 0 || c.lostRecords > 0 {
		r.log.Warn("queue: skipped corrupt data (damage, or a write that a kill cut off)",
			"segment", c.seg.name(), "bytes", c.skippedBytes, "points_lost", c.lostRecords)
	}
	r.cur = nil
}

func (r *reader) close() error {
	r.closeCurrent()
	r.zstd.Close()
	return errors.Join(r.reap(), r.acks.sync(r.dir), r.acks.close())
}
