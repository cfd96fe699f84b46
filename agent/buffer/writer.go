package buffer

import (
	"errors"
	"time"
)

// A writer appends blocks to the active segment. It starts another segment when that is
// full, cannot be written, or was replaced by something else.
type writer struct {
	*store
	encoder   *encoder
	seg       *segment // the active segment; nil: none
	f         file     // of seg
	next      uint64   // sequence number of the next record
	lastIndex uint64
}

// An encoded is a block in its encoded form.
type encoded struct {
	frame   []byte
	records int
	time    time.Time
}

func (w *writer) encode(block [][]byte) (encoded, error) {
	now := time.Now()
	frame, err := w.encoder.encode(w.next, now, block)
	return encoded{frame: frame, records: len(block), time: now}, err
}

// makeRoom drops the oldest segments that are not held until n bytes fit under the
// limit, and returns the number of dropped records. If dropping would not help, it drops
// none.
func (w *writer) makeRoom(n int64) (dropped int, err error) {
	for {
		victim, records, err := w.catalog.drop(n)
		dropped += records
		if victim == nil {
			return dropped, err
		}
		if victim == w.seg {
			w.seal()
		}
		if err := w.remove(victim); err != nil {
			return dropped, err
		}
	}
}

// write writes a block, syncs it, and makes it visible. After a failed sync it is unknown
// what is on disk, so the block is written once more, to another segment.
func (w *writer) write(b encoded) error {
	for again := true; ; again = false {
		off, err := w.open(int64(len(b.frame)))
		if err != nil {
			return err
		}
		if err := w.writeAt(b.frame, off); err != nil {
			return err
		}
		if err := w.sync(off); err == nil {
			return w.commit(b)
		} else if !again {
			return err
		}
	}
}

// open ensures that the active segment has room for n bytes, and returns their offset.
func (w *writer) open(n int64) (off int64, err error) {
	if w.seg != nil {
		if off, ok := w.catalog.room(w.seg, n); ok {
			return off, nil
		}
		w.seal()
	}
	w.lastIndex++
	s := &segment{index: w.lastIndex, first: w.next, end: w.next}
	if w.f, err = w.dir.create(s.name()); err != nil {
		return 0, err
	}
	w.seg = s
	w.catalog.add(s)
	return 0, nil
}

// writeAt writes a frame. On an error it truncates the segment to its whole frames.
func (w *writer) writeAt(frame []byte, off int64) error {
	_, err := w.f.WriteAt(frame, off)
	if err != nil && w.f.Truncate(off) != nil {
		w.seal()
	}
	return err
}

// sync makes the frame at off durable. For a new segment, that includes its name.
func (w *writer) sync(off int64) error {
	err := w.f.Sync()
	if err == nil && off == 0 {
		err = w.dir.sync()
	}
	if err != nil {
		w.f.Truncate(off) // best effort, so that a restart does not read the frame
		w.seal()
		return err
	}
	if off == 0 {
		keepReserve(w.dir) // it may have been used; if it fails, the next segment tries again
	}
	return nil
}

// errReplaced says that a segment's name no longer refers to the file being written.
var errReplaced = errors.New("removed or replaced by something else")

// commit makes a written block visible to the reader, unless the segment's name no
// longer refers to its file.
func (w *writer) commit(b encoded) error {
	if !w.dir.names(w.seg.name(), w.f) || !w.catalog.commit(w.seg, b.records, int64(len(b.frame)), b.time) {
		w.seal()
		return errReplaced
	}
	w.next += uint64(b.records)
	return nil
}

// seal ends the active segment.
func (w *writer) seal() {
	if w.seg == nil {
		return
	}
	w.f.Close() // all that matters is synced
	if w.catalog.seal(w.seg) {
		w.remove(w.seg) // if that fails, it is removed with the segments before it
	}
	w.seg, w.f = nil, nil
}
