// Package lines writes records as lines to a stream that may be slow, full or
// gone: every line whole, in order, and none twice because of a fault.
package lines

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"time"
)

// MaxBytes is what a Pusher that stands on a Writer should take in one Push: what
// the Writer may have to hold until a stream that hangs takes it.
const MaxBytes = 64 << 10

// A Writer writes records as lines. It is not safe for concurrent use.
//
// A stream that hangs cannot be interrupted on every kind of file, so each write
// is a goroutine of its own: Push waits for it no longer than its context lets it,
// and the next Push first waits for what is still under way. There is never more
// than one, and a stream that hangs for ever costs that one.
type Writer struct {
	// write writes whole lines, after the rest of the line that it cut last. It
	// returns how many bytes the stream took, and an error unless those are all.
	write func(lines []byte) (int, error)
	seed  maphash.Seed

	// begun holds the hashes of the records that the stream took, the last perhaps
	// in part, though the Push that brought them has failed: those records will be
	// brought again, but for the oldest if the queue had to drop them.
	begun []uint64
	rest  []byte // what the stream has not taken of the last of them

	flight chan landing // of the write under way; nil where there is none
	buf    []byte       // what it writes: rest, then the lines of hashes
	hashes []uint64
}

// A landing is what came of a write.
type landing struct {
	n   int
	err error
}

// NewWriter returns a Writer that writes by write, which is not called
// concurrently with itself.
func NewWriter(write func(lines []byte) (int, error)) *Writer {
	return &Writer{write: write, seed: maphash.MakeSeed()}
}

// Push writes each record and a newline. On an error the stream has taken some of
// them, perhaps none: the next Push is to bring them again, and goes on behind
// the byte that was taken last.
func (w *Writer) Push(ctx context.Context, records [][]byte) error {
	if err := w.land(ctx); err != nil {
		return err
	}
	taken := w.skip(records)
	w.launch(records[taken:])
	if err := w.land(ctx); err != nil {
		return err
	}
	w.begun = w.begun[min(len(records), len(w.begun)):]
	return nil
}

// closePatience is how long Close waits for a write that does not hang: less than the
// second that the agent gives it.
const closePatience = time.Second / 2

// Close calls end, which closes what write writes to: now, or, where the write
// under way hangs, when that ends. Nothing may follow.
func (w *Writer) Close(end func() error) error {
	if w.flight == nil {
		return end()
	}
	select {
	case <-w.flight:
		return end()
	case <-time.After(closePatience):
	}
	go func() {
		<-w.flight
		end()
	}()
	return nil
}

// skip returns how many of the records the stream has taken, and forgets those
// that were dropped before them.
func (w *Writer) skip(records [][]byte) int {
	for i := range w.begun {
		n := min(len(w.begun)-i, len(records))
		if w.equal(w.begun[i:i+n], records[:n]) {
			w.begun = w.begun[i:]
			return n
		}
	}
	w.begun = nil
	return 0
}

func (w *Writer) equal(hashes []uint64, records [][]byte) bool {
	for i, h := range hashes {
		if maphash.Bytes(w.seed, records[i]) != h {
			return false
		}
	}
	return true
}

// launch begins to write what is left of a line, and records.
func (w *Writer) launch(records [][]byte) {
	w.buf = append(w.buf[:0], w.rest...)
	w.hashes = w.hashes[:0]
	for _, r := range records {
		w.buf = append(append(w.buf, r...), '\n')
		w.hashes = append(w.hashes, maphash.Bytes(w.seed, r))
	}
	if len(w.buf) == 0 {
		return
	}
	flight := make(chan landing, 1)
	w.flight = flight
	go func(b []byte) {
		n, err := w.write(b)
		flight <- landing{n, err}
	}(w.buf)
}

// land waits for the write under way and notes what the stream took.
func (w *Writer) land(ctx context.Context) error {
	if w.flight == nil {
		return nil
	}
	var l landing
	select {
	case l = <-w.flight:
	default:
		select {
		case l = <-w.flight:
		case <-ctx.Done():
			return fmt.Errorf("%d bytes wait to be taken: %w", len(w.buf), ctx.Err())
		}
	}
	w.flight = nil

	if l.n < len(w.rest) {
		w.rest = bytes.Clone(w.rest[l.n:])
		return l.err
	}
	end := len(w.rest)
	w.rest = nil
	for _, h := range w.hashes {
		if end >= l.n {
			break
		}
		w.begun = append(w.begun, h)
		end += bytes.IndexByte(w.buf[end:], '\n') + 1
	}
	if end > l.n {
		w.rest = bytes.Clone(w.buf[l.n:end])
	}
	return l.err
}

// Cut returns the length of the whole lines at the beginning of b that have at
// most limit bytes together, or of the first line where that alone has more.
func Cut(b []byte, limit int) int {
	if len(b) <= limit {
		return len(b)
	}
	if n := bytes.LastIndexByte(b[:max(limit, 0)], '\n'); n >= 0 {
		return n + 1
	}
	return bytes.IndexByte(b, '\n') + 1
}
