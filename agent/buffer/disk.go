package buffer

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// OpenDisk opens the queue in a directory, and makes that, for its owner alone,
// where there is none; the parent must exist. One process at a time may have it
// open. What the directory holds is queued; it is read when it is its turn, so that
// neither the start nor memory grow with it. The limit is one of space on disk:
// of blocks as they are compressed, and a page for each of the segments.
//
// Once Append has returned, its records survive a kill and a loss of power. An
// ack survives a kill; a loss of power may undo the acks of the segment that is
// being delivered, which is then handed out again. Damaged records are skipped,
// logged, and counted in Stats. Foreign files are left alone.
func OpenDisk(dir string, limit int64, log *slog.Logger) (Queue, error) {
	q, err := openDisk(dir, limit, log)
	if err != nil {
		return nil, fmt.Errorf("queue %q: %w", dir, err)
	}
	return q, nil
}

func openDisk(dir string, limit int64, log *slog.Logger) (Queue, error) {
	if err := lockable(); err != nil {
		return nil, err
	}
	if err := mkdir(dir); err != nil {
		return nil, err
	}
	d, err := openDirectory(dir)
	if err != nil {
		return nil, err
	}
	err = d.own()
	if err == nil {
		var q Queue
		if q, err = newDisk(d, dir, limit, log); err == nil {
			return q, nil
		}
	}
	return nil, errors.Join(err, d.close())
}

// A disk is a queue in a folder. The records have sequence numbers without gaps
// as long as nothing is dropped. Append holds w, Peek and Ack hold r; mu, which
// is taken last, is never held during I/O.
type disk struct {
	path string
	dir  folder
	log  *slog.Logger

	w         sync.Mutex
	encoder   *encoder
	f         file   // of the active segment
	next      uint64 // the sequence of the next record
	lastIndex uint64

	r      sync.Mutex
	reader reader
	chunks []*chunk // loaded and not acked, oldest first
	out    int      // records handed out
	acked  uint64   // the sequence after the last record acked
	acks   *acks

	closed bool // changes under w and r

	mu           sync.Mutex
	limit        int64
	segments     []*segment // in order
	active       *segment   // the one that is written; nil: none
	guard        uint64     // segments up to this index are handed out or being read
	oldest       time.Time  // where there is a record
	damaged      int
	damagedBytes int64
}

func newDisk(d folder, path string, limit int64, log *slog.Logger) (*disk, error) {
	q := &disk{path: path, dir: d, log: log, limit: limit}
	l, err := list(d)
	if err != nil {
		return nil, err
	}
	if len(l.newer) > 0 {
		log.Warn("queue: files of another version of sockwatch are left alone", "queue", path, "files", l.newer)
	}
	if len(l.foreign) > 0 {
		log.Warn("queue: foreign files are ignored", "queue", path, "files", l.foreign)
	}
	var damaged bool
	if q.acks, damaged, err = openAcks(d); err != nil {
		return nil, err
	}
	if damaged {
		log.Warn("queue: the delivered position is damaged: delivered points may be sent again", "queue", path)
	}
	if err := keepReserve(d); isFull(err) {
		log.Warn("queue: the disk is full", "queue", path, "error", err)
	} else if err != nil {
		return nil, errors.Join(err, q.acks.close())
	}
	q.acked, q.segments, q.lastIndex = q.acks.last, l.segments, l.lastIndex
	if err := survey(d, q.segments, q.acked); err != nil {
		return nil, errors.Join(err, q.acks.close())
	}
	q.next = q.acked
	if n := len(q.segments); n > 0 {
		q.next = max(q.next, q.segments[n-1].end)
	}
	if q.encoder, err = newEncoder(); err == nil {
		q.reader.zstd, err = newDecoder()
	}
	if err != nil {
		return nil, errors.Join(err, q.acks.close())
	}
	q.lookAhead()
	return q, nil
}

func (q *disk) Append(block [][]byte) (dropped int, err error) {
	q.w.Lock()
	defer q.w.Unlock()
	if q.closed {
		return 0, q.fault("append", os.ErrClosed)
	}
	if len(block) == 0 {
		return 0, nil
	}
	now := time.Now()
	frame, err := q.encoder.encode(q.next, now, block)
	if err != nil {
		return 0, q.fault("append", err)
	}
	dropped, fits, err := q.makeRoom(int64(len(frame)) + segmentOverhead)
	if err != nil {
		return dropped, q.fault("make room", err)
	}
	if !fits {
		return len(block), nil
	}
	err = q.write(frame)
	if isFull(err) && q.giveBack() {
		err = q.write(frame)
	}
	if err != nil {
		return dropped, q.fault("append", err)
	}
	q.next += uint64(len(block))
	q.commit(len(block), int64(len(frame)), now)
	return dropped, nil
}

func (q *disk) Peek(maxRecords, maxBytes int) ([][]byte, error) {
	q.r.Lock()
	defer q.r.Unlock()
	if q.closed {
		return nil, q.fault("read", os.ErrClosed)
	}
	q.dropChunks()
	records, last, err := q.collect(maxRecords, maxBytes)
	q.out = len(records)
	q.release(last)
	if err != nil && err != io.EOF && len(records) == 0 {
		return nil, q.fault("read", err)
	}
	return records, nil
}

// collect returns the oldest records and the index of the segment of the last.
// Every segment that it touches is guarded.
func (q *disk) collect(maxRecords, maxBytes int) (records [][]byte, last uint64, err error) {
	bytes := 0
	for i := 0; ; i++ {
		if i == len(q.chunks) {
			c, err := q.load()
			if err != nil {
				return records, last, err
			}
			q.chunks = append(q.chunks, c)
		}
		c := q.chunks[i]
		for _, r := range c.records {
			bytes += len(r) + 1
			if len(records) > 0 && (len(records) >= maxRecords || bytes > maxBytes) {
				return records, last, nil
			}
			records, last = append(records, r), c.seg.index
		}
	}
}

func (q *disk) Ack(n int) error {
	q.r.Lock()
	defer q.r.Unlock()
	if q.closed {
		return q.fault("ack", os.ErrClosed)
	}
	q.take(min(n, q.out))
	q.out = 0
	err := q.reap()
	q.lookAhead()
	if err != nil {
		return q.fault("ack", err)
	}
	return nil
}

// take removes the first n records in memory.
func (q *disk) take(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for n > 0 {
		c := q.chunks[0]
		k := min(n, len(c.records))
		c.records = c.records[k:]
		c.seg.left -= k
		n -= k
		q.acked = c.next - uint64(len(c.records))
		if len(c.records) == 0 {
			c.seg.done = c.end
			q.chunks[0] = nil
			q.chunks = q.chunks[1:]
		}
	}
}

// lookAhead finds out what is the oldest record when none is handed out. A fault
// is met again by the next Peek.
func (q *disk) lookAhead() {
	q.dropChunks()
	var err error
	if len(q.chunks) == 0 {
		err = q.find()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case len(q.chunks) > 0:
		q.oldest = q.chunks[0].time
	case err == nil:
		q.oldest = q.reader.head.time
		q.reader.seg.done = q.reader.off
	}
	q.guard = 0
}

// dropChunks forgets what was loaded of segments that were dropped since, and
// guards the others.
func (q *disk) dropChunks() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.chunks = slices.DeleteFunc(q.chunks, func(c *chunk) bool { return c.seg.gone })
	if n := len(q.chunks); n > 0 {
		q.guard = max(q.guard, q.chunks[n-1].seg.index)
	}
}

// release guards no more than the segments up to an index.
func (q *disk) release(index uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.guard = index
}

func (q *disk) SetLimit(limit int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit = limit
}

func (q *disk) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := Stats{Records: q.lockedLeft(), Damaged: q.damaged, DamagedBytes: q.damagedBytes}
	if s.Records > 0 {
		s.Oldest = q.oldest
	}
	for _, g := range q.segments {
		if g.left > 0 {
			s.Bytes += g.size - g.done
		}
	}
	return s
}

func (q *disk) lockedLeft() (records int) {
	for _, s := range q.segments {
		records += s.left
	}
	return records
}

// Close leaves no segment behind of which nothing is left.
func (q *disk) Close() error {
	q.w.Lock()
	defer q.w.Unlock()
	q.r.Lock()
	defer q.r.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	q.abandon()
	q.leave()
	q.reader.zstd.Close()
	if err := errors.Join(q.reap(), q.acks.sync(), q.acks.close(), q.dir.close()); err != nil {
		return q.fault("close", err)
	}
	return nil
}

// fault says where an error happened.
func (q *disk) fault(what string, err error) error {
	return fmt.Errorf("queue %q: %s: %w", q.path, what, err)
}
