package buffer

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
)

// OpenDisk opens the queue in a directory. It creates the directory with mode 0700 if it
// does not exist; the parent must exist. The directory must belong to this user or root,
// and nobody else may have write access. Only one process can have it open. Records are
// read from disk when they are due, so that neither the time to open nor memory grows
// with the queue. The limit is disk space: compressed blocks, plus a page for each
// segment.
//
// When Append has returned, its records survive a kill and a power failure. An ack
// survives a kill. A power failure may undo the acks of the segment that is being
// delivered; its records are then delivered again. Damaged records are skipped, logged,
// and counted in Stats. So are records whose file is removed, replaced or truncated by
// something else; later records go to a new file and, if necessary, a new directory.
// Foreign files are left alone.
func OpenDisk(dir string, limit int64, log *slog.Logger) (Queue, error) {
	q, err := openDisk(dir, limit, log)
	if err != nil {
		return nil, fmt.Errorf("queue %q: %w", dir, err)
	}
	return q, nil
}

func openDisk(path string, limit int64, log *slog.Logger) (Queue, error) {
	d, err := makeFolder(path)
	if err != nil {
		return nil, err
	}
	q, err := newDisk(d, path, limit, log)
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return q, nil
}

// A disk is a queue in a folder. Sequence numbers of records have no gaps unless records
// are dropped.
type disk struct {
	*store
	path string

	w      sync.Mutex // held by Append
	writer writer

	r      sync.Mutex // held by Peek and Ack; taken after w
	reader reader

	closed bool // changes under w and r
}

func newDisk(d folder, path string, limit int64, log *slog.Logger) (q *disk, err error) {
	log = log.With("queue", path)
	l, err := list(d)
	if err != nil {
		return nil, err
	}
	if len(l.newer) > 0 {
		log.Warn("queue directory has files of another sockwatch version, ignoring them", "files", l.newer)
	}
	if len(l.foreign) > 0 {
		log.Warn("queue directory has foreign files, ignoring them", "files", l.foreign)
	}
	acks, damaged, err := openAcks(d)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, acks.close())
		}
	}()
	if damaged {
		log.Warn("delivered position of the queue is damaged, delivered points may be sent again")
	}
	if err := keepReserve(d); isFull(err) {
		log.Warn("disk is full, cannot create the reserve of the queue", "error", err)
	} else if err != nil {
		return nil, err
	}
	if err := survey(d, l.segments, acks.last); err != nil {
		return nil, err
	}
	s := &store{dir: d, catalog: &catalog{limit: limit, segments: l.segments}, log: log}
	q = &disk{store: s, path: path, writer: writer{store: s}, reader: reader{store: s, acks: acks, acked: acks.last}}
	q.writer.next, q.writer.lastIndex = acks.last, l.lastIndex
	if n := len(l.segments); n > 0 {
		q.writer.next = max(q.writer.next, l.segments[n-1].end)
	}
	if q.writer.encoder, err = newEncoder(); err != nil {
		return nil, err
	}
	if q.reader.zstd, err = newDecoder(); err != nil {
		return nil, err
	}
	q.reader.lookAhead()
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
	b, err := q.writer.encode(block)
	if err != nil {
		return 0, q.fault("append", err)
	}
	dropped, err = q.writer.makeRoom(int64(len(b.frame)) + segmentOverhead)
	if err != nil {
		return dropped, q.fault("make room", err)
	}
	if err = q.writer.write(b); err != nil {
		if err = q.repair(err); err == nil {
			err = q.writer.write(b)
		}
	}
	return dropped, q.fault("append", err)
}

// repair removes the cause of a failed write. It returns an error if it cannot.
func (q *disk) repair(cause error) error {
	q.r.Lock()
	defer q.r.Unlock()
	switch {
	case isFull(cause):
		return q.freeDelivered(cause)
	case errors.Is(cause, errReplaced), errors.Is(cause, fs.ErrNotExist):
		// The reader finishes the file that it has open, and reports the others of the
		// old directory as missing.
		d, err := q.dir.renew()
		if errors.Is(err, errSetAside) {
			cause = err
			d, err = q.dir.renew()
		}
		if err != nil {
			return err
		}
		q.dir = d
		q.log.Error("queue file or directory was removed or replaced, creating it again", "error", cause)
		return nil
	default:
		return cause
	}
}

// freeDelivered removes all segments of an empty queue, the active one included, which
// is otherwise kept. Without this, a full disk would stop an output that delivers
// everything.
func (q *disk) freeDelivered(cause error) error {
	if q.catalog.stats().Records > 0 {
		return cause
	}
	q.writer.seal()
	err := q.reader.reap()
	q.reader.lookAhead() // closes the last file read, which frees its space
	if err != nil {
		return cause
	}
	return nil
}

func (q *disk) Peek(maxRecords, maxBytes int) ([][]byte, error) {
	q.r.Lock()
	defer q.r.Unlock()
	if q.closed {
		return nil, q.fault("read", os.ErrClosed)
	}
	records, err := q.reader.peek(maxRecords, maxBytes)
	return records, q.fault("read", err)
}

func (q *disk) Ack(n int) error {
	q.r.Lock()
	defer q.r.Unlock()
	if q.closed {
		return q.fault("ack", os.ErrClosed)
	}
	return q.fault("ack", q.reader.ack(n))
}

func (q *disk) SetLimit(limit int64) { q.catalog.setLimit(limit) }

func (q *disk) Stats() Stats { return q.catalog.stats() }

// Close removes the segments that have no records left.
func (q *disk) Close() error {
	q.w.Lock()
	defer q.w.Unlock()
	q.r.Lock()
	defer q.r.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	q.writer.seal()
	return q.fault("close", errors.Join(q.reader.close(), q.dir.close()))
}

// fault adds the queue and the operation to an error. nil stays nil.
func (q *disk) fault(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("queue %q: %s: %w", q.path, what, err)
}
