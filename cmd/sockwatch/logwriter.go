package main

import (
	"errors"
	"io"
	"sync"
	"syscall"
	"time"
)

// maxLogBytes is how much of the log may wait for its reader.
const maxLogBytes = 1 << 20

// A logWriter passes records on to a writer that may hang, such as a pipe that
// nobody reads. Write never waits; what does not fit is dropped and counted.
type logWriter struct {
	out    io.Writer
	report func(dropped int) // logs that records were dropped, when the reader reads again

	mu      sync.Mutex
	pending [][]byte
	bytes   int           // of pending and of what is being written
	dropped int           // records, not reported yet
	failing bool          // the last write returned an error
	active  bool          // something is pending, or being written
	ready   chan struct{} // holds a token if something is pending
	idle    chan struct{} // nil, or closed when active becomes false
}

// newLogWriter returns a logWriter and starts its goroutine. That ends with the
// program: a write that hangs cannot be ended.
func newLogWriter(out io.Writer, report func(dropped int)) *logWriter {
	w := &logWriter{out: out, report: report, ready: make(chan struct{}, 1)}
	go w.run()
	return w
}

// Write takes one record.
func (w *logWriter) Write(record []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bytes+len(record) > maxLogBytes {
		w.dropped++
		return len(record), nil
	}
	w.bytes += len(record)
	w.active = true
	w.pending = append(w.pending, append([]byte(nil), record...))
	select {
	case w.ready <- struct{}{}:
	default:
	}
	return len(record), nil
}

// run writes what is pending, record by record.
func (w *logWriter) run() {
	for range w.ready {
		w.mu.Lock()
		records := w.pending
		w.pending = nil
		w.mu.Unlock()
		for _, record := range records {
			err := writeFully(w.out, record)
			w.mu.Lock()
			w.bytes -= len(record)
			if w.failing = err != nil; w.failing {
				w.dropped++
			}
			w.mu.Unlock()
		}
		w.written()
	}
}

// written reports what was dropped if records arrive again, and tells flush that all
// is written.
func (w *logWriter) written() {
	w.mu.Lock()
	dropped := w.dropped
	if w.failing {
		dropped = 0
	}
	w.dropped -= dropped
	w.mu.Unlock()
	if dropped > 0 {
		w.report(dropped)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pending) > 0 {
		return
	}
	w.active = false
	if w.idle != nil {
		close(w.idle)
		w.idle = nil
	}
}

// flush waits until all is written; false if that takes longer than the timeout.
func (w *logWriter) flush(timeout time.Duration) bool {
	w.mu.Lock()
	if !w.active {
		w.mu.Unlock()
		return true
	}
	if w.idle == nil {
		w.idle = make(chan struct{})
	}
	idle := w.idle
	w.mu.Unlock()
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-idle:
		return true
	case <-t.C:
		return false
	}
}

// writeFully writes b also to a full pipe that somebody else has made non-blocking.
func writeFully(out io.Writer, b []byte) error {
	for {
		n, err := out.Write(b)
		b = b[n:]
		if !errors.Is(err, syscall.EAGAIN) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}
