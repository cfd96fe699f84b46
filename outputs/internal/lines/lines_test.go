package lines

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func records(s ...string) [][]byte {
	var r [][]byte
	for _, s := range s {
		r = append(r, []byte(s))
	}
	return r
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		lines string
		limit int
		want  int
	}{
		{"", 10, 0}, {"a\nb\n", 4, 4}, {"a\nb\n", 3, 2}, {"a\nb\n", 2, 2}, {"a\nb\n", 1, 2}, {"a\nb\n", -1, 2}, {"abc\nd\n", 2, 4},
	} {
		if got := Cut([]byte(tt.lines), tt.limit); got != tt.want {
			t.Errorf("Cut(%q, %d) = %d, want %d", tt.lines, tt.limit, got, tt.want)
		}
	}
}

// TestTornLineIsCompleted cuts a write at every byte: the stream must contain each
// record once, whether or not the queue drops some in between.
func TestTornLineIsCompleted(t *testing.T) {
	full := errors.New("full")
	for cut := range len("one\ntwo\nthree\n") {
		for dropped := range 3 {
			var stream strings.Builder
			room := cut
			w, write := NewWriter(), func(b []byte) (int, error) {
				n := min(len(b), room)
				room -= n
				stream.Write(b[:n])
				if n < len(b) {
					return n, full
				}
				return n, nil
			}
			all := records("one", "two", "three")
			if err := w.Push(t.Context(), all, write); err != full {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			if err := w.Push(t.Context(), all, write); err != full {
				t.Fatalf("cut at %d, again: %v", cut, err)
			}
			room = 1 << 20
			if err := w.Push(t.Context(), append(all[dropped:], []byte("four")), write); err != nil {
				t.Fatal(err)
			}
			want := ""
			for i, r := range append(all, []byte("four")) {
				if i >= dropped || cut > strings.Index("one\ntwo\nthree\n", string(r)) {
					want += string(r) + "\n"
				}
			}
			if diff := cmp.Diff(want, stream.String()); diff != "" {
				t.Errorf("cut at %d, %d dropped (-want +got)\n%s", cut, dropped, diff)
			}
		}
	}
}

// TestPushIsBounded: a write hangs for an hour.
func TestPushIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stream strings.Builder
		w, write := NewWriter(), func(b []byte) (int, error) {
			time.Sleep(time.Hour)
			return stream.Write(b)
		}
		began := time.Now()
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := w.Push(ctx, records("a", "b"), write)
			cancel()
			if want := "4 bytes not accepted yet: context deadline exceeded"; err == nil || err.Error() != want {
				t.Fatalf("error %v, want %q", err, want)
			}
		}
		if d := time.Since(began); d != 3*time.Second {
			t.Errorf("three pushes of a second took %v", d)
		}
		if err := w.Push(t.Context(), records("a", "b", "c"), write); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff("a\nb\nc\n", stream.String()); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

// TestClose closes the stream at once, or when the write that hangs has ended.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, took := range []time.Duration{0, time.Hour} {
			w, write := NewWriter(), func(b []byte) (int, error) {
				time.Sleep(took)
				return len(b), nil
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_ = w.Push(ctx, records("a"), write)
			began := time.Now()
			ended := make(chan time.Time, 1)
			if err := w.Close(func() error { ended <- time.Now(); return nil }); err != nil {
				t.Error(err)
			}
			if d, want := time.Since(began), min(took, closeTimeout); d != want {
				t.Errorf("Close took %v, want %v", d, want)
			}
			if d, want := (<-ended).Sub(began), max(0, took-time.Second); d != want {
				t.Errorf("closed after %v, want %v", d, want)
			}
		}
	})
}

// TestRandomFaults simulates a queue whose oldest records are dropped while a stream
// hangs, accepts parts and fails: records that were not dropped must be there once, in
// order, and nothing else.
func TestRandomFaults(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			faults := rand.New(rand.NewPCG(seed, 1)) // used only by the writing goroutine
			var stream strings.Builder
			w, write := NewWriter(), func(b []byte) (int, error) {
				n := len(b)
				switch faults.IntN(4) {
				case 0:
					n = faults.IntN(n + 1)
				case 1:
					time.Sleep(time.Duration(faults.IntN(3000)) * time.Millisecond)
				}
				stream.Write(b[:n])
				if n < len(b) {
					return n, errors.New("full")
				}
				return n, nil
			}
			var all []string
			var queue [][]byte
			dropped := map[string]bool{}
			next := 0
			for next < 200 || len(queue) > 0 {
				for next < 200 && rnd.IntN(3) > 0 {
					all = append(all, fmt.Sprintf("record %d%s", next, strings.Repeat(".", rnd.IntN(20))))
					queue = append(queue, []byte(all[next]))
					next++
				}
				peeked := queue[:min(len(queue), 1+rnd.IntN(10))]
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				err := w.Push(ctx, peeked, write)
				cancel()
				if err == nil {
					queue = queue[len(peeked):]
				} else if len(queue) > 12 {
					dropped[string(queue[0])] = true
					queue = queue[1:]
				}
			}
			rest := stream.String()
			for _, r := range all {
				var found bool
				if rest, found = strings.CutPrefix(rest, r+"\n"); !found && !dropped[r] {
					t.Fatalf("seed %d: want record %q, and the stream goes on with %.100q", seed, r, rest)
				}
			}
			if rest != "" {
				t.Errorf("seed %d: the stream holds more than the records: %.100q", seed, rest)
			}
		})
	}
}
