// Package lines writes records as lines to a stream that may be slow, full or gone. Every
// line is written whole and in order, and no fault makes a line appear twice.
//
// lines.go has the Writer. write_unix.go writes to a file that another process may have
// made non-blocking.
package lines

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"time"
)

// MaxBytes is the maximum size of one Push for a Pusher that uses a Writer, which may have
// to keep that much until a stream that hangs accepts it.
const MaxBytes = 64 << 10

// A Writer writes records as lines to one stream. It is not safe for concurrent use.
//
// A write to a stream that hangs cannot be interrupted on every kind of file. So each
// write runs in its own goroutine. Push waits for it until its context is done, and the
// next Push first waits for a write that is still in flight. There is never more than one
// such goroutine, even if a stream hangs forever.
//
// A Writer knows which of the records that will be pushed again the stream has already
// accepted. So an output that replaces another on the same stream continues with its
// Writer.
type Writer struct {
	seed maphash.Seed

	// begun holds the hashes of the records that the stream accepted, the last one
	// perhaps in part, in a Push that failed. These records will be pushed again, except
	// for the oldest ones if the queue has dropped them.
	begun []uint64
	rest  []byte // the part of the last of them that the stream has not accepted

	inFlight chan written // receives the result of the write in flight; nil if there is none
	buf      []byte       // what that writes: rest, then the lines of the records in hashes
	hashes   []uint64
}

// written is the result of a write.
type written struct {
	n   int
	err error
}

// NewWriter returns the Writer of a stream to which nothing has been written yet.
func NewWriter() *Writer { return &Writer{seed: maphash.MakeSeed()} }

// Push writes each record and a newline by calling write. After an error the stream may
// have accepted some of them: the next Push must bring the same records again, and
// continues after the last byte that was accepted.
//
// write gets the rest of an incomplete line, if there is one, and whole lines. It returns
// how many bytes the stream accepted, and an error unless it accepted all. It may still be
// running after Push has returned, but there is never more than one write at a time.
func (w *Writer) Push(ctx context.Context, records [][]byte, write func(lines []byte) (int, error)) error {
	if err := w.await(ctx); err != nil {
		return err
	}
	accepted := w.skip(records)
	w.begin(records[accepted:], write)
	if err := w.await(ctx); err != nil {
		return err
	}
	w.begun = w.begun[min(len(records), len(w.begun)):]
	return nil
}

// closeTimeout is how long Close waits for a write in flight: less than the second within
// which it must return.
const closeTimeout = time.Second / 2

// Close closes the stream by calling end: now or, if the write in flight hangs, after that
// has returned. It must be the last call.
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

// skip returns how many of the records the stream has already accepted. It forgets
// accepted records that the queue has dropped.
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

// begin starts to write the rest of an incomplete line, and records.
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

// await waits for the write in flight and records what the stream accepted.
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
			return fmt.Errorf("%d bytes not accepted yet: %w", len(w.buf), ctx.Err())
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

// Cut returns the length of the whole lines at the beginning of b that fit into limit
// bytes. If the first line alone is longer, it returns the length of that.
func Cut(b []byte, limit int) int {
	if len(b) <= limit {
		return len(b)
	}
	if n := bytes.LastIndexByte(b[:max(limit, 0)], '\n'); n >= 0 {
		return n + 1
	}
	return bytes.IndexByte(b, '\n') + 1
}
