package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A gatedWriter accepts writes only while its gate is open.
type gatedWriter struct {
	gate sync.RWMutex // held to shut it
	mu   sync.Mutex
	text bytes.Buffer
	errs []error // of the next writes
}

func (w *gatedWriter) Write(b []byte) (int, error) {
	w.gate.RLock()
	defer w.gate.RUnlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.errs) > 0 {
		err := w.errs[0]
		w.errs = w.errs[1:]
		return 0, err
	}
	return w.text.Write(b)
}

func (w *gatedWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// newTestLogWriter returns a logWriter that reports what it dropped in its own text.
func newTestLogWriter(out *gatedWriter) *logWriter {
	var w *logWriter
	w = newLogWriter(out, func(dropped int) { fmt.Fprintf(w, "dropped %d\n", dropped) })
	return w
}

func TestLogOfAHungReaderIsBoundedAndCounted(t *testing.T) {
	out := &gatedWriter{}
	w := newTestLogWriter(out)
	out.gate.Lock()
	record := []byte(strings.Repeat("x", 1023) + "\n")
	const fits, beyond = maxLogBytes / 1024, 500
	for range fits + beyond {
		if n, err := w.Write(record); n != len(record) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if w.flush(time.Millisecond) {
		t.Error("flush reports that all is written, though nothing is")
	}
	out.gate.Unlock()
	if !w.flush(waitLimit) {
		t.Fatal("flush reports that not all is written")
	}
	if !w.flush(waitLimit) {
		t.Fatal("a second flush reports that not all is written")
	}
	want := strings.Repeat(string(record), fits) + fmt.Sprintf("dropped %d\n", beyond)
	if got := out.String(); got != want {
		t.Errorf("%d bytes arrived, want %d; the last are %q", len(got), len(want), got[max(0, len(got)-50):])
	}
	fmt.Fprintln(w, "later")
	if !w.flush(waitLimit) || out.String() != want+"later\n" {
		t.Error("the log does not go on")
	}
}

func TestLogKeepsEveryRecord(t *testing.T) {
	out := &gatedWriter{}
	w := newTestLogWriter(out)
	out.gate.Lock()
	record := []byte("first\n")
	w.Write(record)
	copy(record, "SECOND")
	out.gate.Unlock()
	if !w.flush(waitLimit) {
		t.Fatal("flush reports that not all is written")
	}
	if diff := cmp.Diff("first\n", out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A log that cannot be written is not reported until it can be.
func TestLogWriterThatFails(t *testing.T) {
	out := &gatedWriter{errs: []error{errors.New("disk full"), errors.New("disk full")}}
	w := newTestLogWriter(out)
	for i := range 3 {
		fmt.Fprintln(w, "record", i)
		if !w.flush(waitLimit) {
			t.Fatal("flush reports that not all is written")
		}
	}
	if diff := cmp.Diff("record 2\ndropped 2\n", out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Another process has made the pipe non-blocking, and it is full.
func TestLogWaitsForAFullNonBlockingPipe(t *testing.T) {
	out := &gatedWriter{errs: []error{syscall.EAGAIN, syscall.EAGAIN}}
	w := newTestLogWriter(out)
	fmt.Fprintln(w, "record")
	if !w.flush(waitLimit) {
		t.Fatal("flush reports that not all is written")
	}
	if diff := cmp.Diff("record\n", out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
