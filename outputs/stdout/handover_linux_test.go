package stdout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// slowly gives lines to several outputs in a row, each of which inherits from the one before,
// while nothing reads. It then reads, and checks that each line is there once and
// whole.
func slowly(t *testing.T, kind string, before func(w *os.File), outputs int) {
	t.Helper()
	r, w := connected(t, kind)
	out := newOutput(Defaults(), func() (*os.File, error) { return w, nil })
	var records [][]byte
	for i := range 4000 { // more than a pipe or a socket holds
		records = append(records, fmt.Appendf(nil, "line %d %s", i, strings.Repeat("x", i%300)))
	}
	before(w)
	for range outputs {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := out.Push(ctx, records)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v, want that of the deadline", err)
		}
		next := newOutput(Defaults(), func() (*os.File, error) { return w, nil })
		next.InheritFrom(out)
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		out = next
	}
	read := make(chan []byte, 1)
	go func() {
		got, _ := io.ReadAll(r)
		read <- got
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := out.Push(ctx, records); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if want, got := string(bytes.Join(records, []byte{'\n'}))+"\n", string(<-read); got != want {
		t.Errorf("read %d bytes, want %d: the lines are not each once and whole", len(got), len(want))
	}
}

func TestReloadWhileTheReaderHangsDoublesNoLine(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"pipe", "socket"} {
		t.Run(kind, func(t *testing.T) { slowly(t, kind, func(*os.File) {}, 3) })
	}
}

// Another process that shares standard output may make it non-blocking at any time.
func TestStreamMadeNonBlockingIsWaitedFor(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"pipe", "socket"} {
		t.Run(kind, func(t *testing.T) {
			slowly(t, kind, func(w *os.File) {
				conn, err := w.SyscallConn()
				if err == nil {
					cerr := conn.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), true) })
					err = errors.Join(err, cerr)
				}
				if err != nil {
					t.Fatal(err)
				}
			}, 2)
		})
	}
}
