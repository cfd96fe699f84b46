package buffer

import (
	"errors"
	"time"
)

// A writer adds blocks to the active segment, and begins another when it is full,
// failed, or in the hands of somebody else.
type writer struct {
	*store
	encoder   *encoder
	seg       *segment // the active segment; nil: none
	f         file     // of seg
	next      uint64   // the sequence of the next record
	lastIndex uint64
}

// A block that was encoded.
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
// limit, and returns how many records it has dropped. If dropping would not help,
// none goes.
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

// write writes a block, syncs it, and makes it visible. After a failed sync nobody
// knows what of it is on disk, so it is written once more, to another segment.
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

// open makes sure of an active segment with room for n bytes, and returns the
// offset where they go.
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

// writeAt writes a frame. On an error it cuts the segment back to its whole frames.
func (w *writer) writeAt(frame []byte, off int64) error {
	_, err := w.f.WriteAt(frame, off)
	if err != nil && w.f.Truncate(off) != nil {
		w.seal()
	}
	return err
}

// sync makes the frame at off durable, and the name of a new segment.
func (w *writer) sync(off int64) error {
	err := w.f.Sync()
	if err == nil && off == 0 {
		err = w.dir.sync()
	}
	if err != nil {
		w.f.Truncate(off) // at best it is not read again after a restart
		w.seal()
		return err
	}
	if off == 0 {
		keepReserve(w.dir) // it may have been given up; without space for it, the next segment tries again
	}
	return nil
}

// errReplaced says that the file of a segment is not the one that was made for it.
var errReplaced = errors.New("removed or replaced by something else")

// commit makes the block visible that was written, unless its file cannot be found
// any more under its name.
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
	w.f.Close() // what counts is synced
	if w.catalog.seal(w.seg) {
		w.remove(w.seg) // if that fails, it is removed with the segments before it
	}
	w.seg, w.f = nil, nil
}
