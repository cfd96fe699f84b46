package main

import (
	"errors"
	"io"
	"sync"
	"syscall"
	"time"
)

// maxLogBytes bounds the records that wait for the reader of the log.
const maxLogBytes = 1 << 20

// A logWriter forwards records to a writer that may hang, such as a pipe that nobody
// reads. Write never waits. Records that do not fit are dropped and counted.
type logWriter struct {
	out    io.Writer
	report func(dropped int) // logs the number of dropped records when writes succeed again

	mu      sync.Mutex
	pending [][]byte
	bytes   int           // pending or being written
	dropped int           // records not reported yet
	failing bool          // the last write returned an error
	active  bool          // records are pending or being written
	ready   chan struct{} // holds a token if records are pending
	idle    chan struct{} // nil, or closed when active becomes false
}

// newLogWriter returns a logWriter and starts its goroutine, which runs until the program
// exits: a write that hangs cannot be ended.
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

// run writes pending records one by one.
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

// written reports dropped records if writes succeed again, and wakes flush if everything
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

// flush waits until everything is written. It reports false if nothing is written for the
// timeout, or not everything within five times the timeout.
func (w *logWriter) flush(timeout time.Duration) bool {
	ticks := time.NewTicker(timeout)
	defer ticks.Stop()
	left := -1
	for range 5 {
		idle, bytes := w.awaitIdle()
		if bytes == left {
			return false
		}
		left = bytes
		select {
		case <-idle:
			return true
		case <-ticks.C:
		}
	}
	return false
}

// awaitIdle returns a channel that is closed when everything is written, and how many
// bytes are not written yet.
func (w *logWriter) awaitIdle() (idle <-chan struct{}, bytes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle == nil {
		w.idle = make(chan struct{})
	}
	done := w.idle
	if !w.active {
		close(w.idle)
		w.idle = nil
	}
	return done, w.bytes
}

// writeFully writes all of b, even to a pipe that another process made non-blocking.
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
