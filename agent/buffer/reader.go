package buffer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A reader returns the records of the segments, oldest first, and saves the delivered
// position.
type reader struct {
	*store
	zstd    *zstd.Decoder
	payload []byte // buffer for reuse

	last   uint64   // index of the segment opened last
	cur    *cursor  // in that segment; nil: it is closed
	chunks []*chunk // loaded and not acked, oldest first
	out    int      // how many records the last peek returned

	acks  *acks
	acked uint64 // sequence number after the last acked record
}

// A cursor is the position of a reader in a segment. It counts the damage that it skips,
// once.
type cursor struct {
	seg  *segment
	f    file
	r    *retryReader // of f
	off  int64        // where to look for the next frame
	want uint64       // sequence number of the next record of seg
	head *header      // of the frame at off, once found

	lostRecords  int
	skippedBytes int64
}

// A chunk holds the records of one frame that are not acked.
type chunk struct {
	seg     *segment
	records [][]byte
	next    uint64 // sequence number after the last of records
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

// collect returns the oldest records and the index of the segment of the last one. It
// holds every segment that it touches.
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

// take removes the first n loaded records.
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

// reap saves the acked position and, once it is durable, removes the segments before it.
// Records of these that are not acked were damaged.
func (r *reader) reap() error {
	finished, position := r.catalog.finished(r.acked)
	r.acked = position
	if r.acked > r.acks.last { // true again after a failed write
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

// lookAhead finds the oldest record for the catalog. It must not be called between peek
// and ack. It ignores errors, which the next peek returns.
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

// forgetDropped discards loaded records whose segments were dropped since, and holds the
// other segments.
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
			r.damage(0, 1) // find counts the rest
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

// find moves the cursor to the next frame with unread records, and holds its segment. It
// returns io.EOF if there is none.
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

// skipTo moves the cursor to the header at offset at, and counts what it skips.
func (r *reader) skipTo(s *segment, h header, at int64) {
	c := r.cur
	switch {
	case at == s.size:
		r.damage(int(s.end-c.want), s.size-c.off)
		c.want, c.off = s.end, s.size
	case h.end() <= c.want || h.end() > s.end: // acked, or left over from a failed sync
		r.damage(0, at-c.off)
		c.off = at + h.size()
	default:
		r.damage(int(max(h.first, c.want)-c.want), at-c.off)
		c.want = max(h.first, c.want)
		c.off, c.head = at, &h
	}
}

// damage counts lost records and skipped bytes of the current segment.
func (r *reader) damage(records int, bytes int64) {
	r.cur.lostRecords += records
	r.cur.skippedBytes += bytes
	r.catalog.damage(r.cur.seg, records, bytes)
}

// openNext closes the current segment and opens the next one that has records. It
// returns io.EOF if there is none.
func (r *reader) openNext() error {
	r.closeCurrent()
	for {
		s := r.catalog.after(r.last)
		if s == nil {
			return io.EOF
		}
		f, err := r.dir.open(s.name())
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotRegular) {
			r.log.Error("queue segment is missing, its points are lost", "segment", s.name(), "error", err, "points_lost", r.catalog.missing(s))
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

// closeCurrent closes the current segment and logs its damage.
func (r *reader) closeCurrent() {
	c := r.cur
	if c == nil {
		return
	}
	c.f.Close() // only read: nothing can be lost
	if c.skippedBytes > 0 || c.lostRecords > 0 {
		r.log.Warn("skipped corrupt queue data (damage, or a write cut off by a kill)",
			"segment", c.seg.name(), "bytes", c.skippedBytes, "points_lost", c.lostRecords)
	}
	r.cur = nil
}

func (r *reader) close() error {
	r.closeCurrent()
	r.zstd.Close()
	return errors.Join(r.reap(), r.acks.sync(r.dir), r.acks.close())
}
