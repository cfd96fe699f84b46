// Package lines writes records as lines to a stream that may be slow, full or
// gone: every line whole, in order, and none twice because of a fault.
//
// lines.go has the Writer. write_unix.go writes to a file that another process may
// have made non-blocking.
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

// A Writer writes records as lines to one stream. It is not safe for concurrent use.
//
// A write to a stream that hangs cannot be interrupted on every kind of file. So each
// write has a goroutine of its own: Push waits for it no longer than its context lets
// it, and the next Push first waits for the write that is still in flight. There is
// never more than one, and a stream that hangs for ever costs that one.
//
// A Writer knows what the stream has taken of records that will be pushed again. An
// output that replaces another on the same stream therefore goes on with its Writer.
type Writer struct {
	seed maphash.Seed

	// begun holds the hashes of the records that the stream took, the last perhaps
	// in part, though the Push that brought them has failed: those records will be
	// pushed again, but for the oldest if the queue had to drop them.
	begun []uint64
	rest  []byte // what the stream has not taken of the last of them

	inFlight chan written // of the write in flight; nil if there is none
	buf      []byte       // what it writes: rest, then the lines of hashes
	hashes   []uint64
}

// written is the result of a write.
type written struct {
	n   int
	err error
}

// NewWriter returns the Writer of a stream to which nothing has been written yet.
func NewWriter() *Writer { return &Writer{seed: maphash.MakeSeed()} }

// Push writes each record and a newline by write. On an error the stream has taken
// some of them, perhaps none: the next Push is to bring them again, and goes on behind
// the byte that was taken last.
//
// write writes whole lines, after the rest of the line that it wrote in part last. It
// returns how many bytes the stream took, and an error unless those are all. It may
// still run when Push has returned, but never while another write does.
func (w *Writer) Push(ctx context.Context, records [][]byte, write func(lines []byte) (int, error)) error {
	if err := w.await(ctx); err != nil {
		return err
	}
	taken := w.skip(records)
	w.begin(records[taken:], write)
	if err := w.await(ctx); err != nil {
		return err
	}
	w.begun = w.begun[min(len(records), len(w.begun)):]
	return nil
}

// closeTimeout is how long Close waits for a write in flight: less than the second that
// the agent gives it.
const closeTimeout = time.Second / 2

// Close calls end, which closes the stream: now or, if the write in flight hangs, when
// that has returned. Nothing may follow.
func (w *Writer) Close(end func() error) error {
	if w.inFlight == nil {
		return end()
	}
	select {
	case <-w.inFlight:
		return end()
	case <-time.After(closeTimeout):
	}
	go func() {
		<-w.inFlight
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

// begin begins to write what is left of a line, and records.
func (w *Writer) begin(records [][]byte, write func([]byte) (int, error)) {
	w.buf = append(w.buf[:0], w.rest...)
	w.hashes = w.hashes[:0]
	for _, r := range records {
		w.buf = append(append(w.buf, r...), '\n')
		w.hashes = append(w.hashes, maphash.Bytes(w.seed, r))
	}
	if len(w.buf) == 0 {
		return
	}
	result := make(chan written, 1)
	w.inFlight = result
	go func(b []byte) {
		n, err := write(b)
		result <- written{n, err}
	}(w.buf)
}

// await waits for the write in flight and notes what the stream took.
func (w *Writer) await(ctx context.Context) error {
	if w.inFlight == nil {
		return nil
	}
	var result written
	select {
	case result = <-w.inFlight:
	default:
		select {
		case result = <-w.inFlight:
		case <-ctx.Done():
			return fmt.Errorf("%d bytes wait to be taken: %w", len(w.buf), ctx.Err())
		}
	}
	w.inFlight = nil

	if result.n < len(w.rest) {
		w.rest = bytes.Clone(w.rest[result.n:])
		return result.err
	}
	end := len(w.rest)
	w.rest = nil
	for _, h := range w.hashes {
		if end >= result.n {
			break
		}
		w.begun = append(w.begun, h)
		end += bytes.IndexByte(w.buf[end:], '\n') + 1
	}
	if end > result.n {
		w.rest = bytes.Clone(w.buf[result.n:end])
	}
	return result.err
}

// Cut returns the length of the whole lines at the beginning of b that have at
// most limit bytes together, or of the first line if that alone has more.
func Cut(b []byte, limit int) int {
	if len(b) <= limit {
		return len(b)
	}
	if n := bytes.LastIndexByte(b[:max(limit, 0)], '\n'); n >= 0 {
		return n + 1
	}
	return bytes.IndexByte(b, '\n') + 1
}
