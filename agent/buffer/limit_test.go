package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"
)

// smallLimit has room for four segments of one block of blockOf each, not five.
const smallLimit = 8 * minSegment

// blockOf returns one record of 3,000 bytes that do not compress.
func blockOf(n uint32) [][]byte {
	rng := rand.New(rand.NewPCG(uint64(n), 3000))
	r := binary.BigEndian.AppendUint32(nil, n)
	for len(r) < 3000 {
		r = append(r, byte(rng.Uint32()))
	}
	return [][]byte{r}
}

// appendAll appends blockOf each and returns what was dropped.
func appendAll(t *testing.T, q Queue, blocks ...uint32) (dropped int) {
	t.Helper()
	for _, n := range blocks {
		k, err := q.Append(blockOf(n))
		must(t, err)
		dropped += k
	}
	return dropped
}

func wantIDs(t *testing.T, q Queue, maxRecords int, want ...uint32) {
	t.Helper()
	records, err := q.Peek(maxRecords, 1<<20)
	must(t, err)
	var got []uint32
	for _, r := range records {
		got = append(got, id(r))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("returned %v, want %v", got, want)
	}
}

// TestLimitDropsTheOldestThatIsNotHandedOut: at the limit the oldest segment that Peek has not returned is
// dropped, and its records are counted exactly.
func TestLimitDropsTheOldestThatIsNotHandedOut(t *testing.T) {
	tests := []struct {
		name string
		run  func(t *testing.T, q *disk)
	}{
		{"the oldest segment is dropped", func(t *testing.T, q *disk) {
			if n := appendAll(t, q, 1, 2, 3, 4); n != 0 {
				t.Fatalf("%d dropped below the limit", n)
			}
			if n := appendAll(t, q, 5, 6); n != 2 {
				t.Fatalf("%d dropped, want 2", n)
			}
			wantIDs(t, q, 10, 3, 4, 5, 6)
		}},
		{"records that Peek returned stay", func(t *testing.T, q *disk) {
			appendAll(t, q, 1, 2, 3, 4)
			wantIDs(t, q, 2, 1, 2)
			if n := appendAll(t, q, 5, 6); n != 2 {
				t.Fatalf("%d dropped, want 2", n)
			}
			wantIDs(t, q, 10, 1, 2, 5, 6)
			must(t, q.Ack(3))
			wantIDs(t, q, 10, 6)
		}},
		{"if Peek has returned everything, the new block is dropped", func(t *testing.T, q *disk) {
			appendAll(t, q, 1, 2, 3, 4)
			wantIDs(t, q, 4, 1, 2, 3, 4)
			if n, err := q.Append(blockOf(5)); n != 0 || !errors.Is(err, ErrFull) {
				t.Fatalf("Append = %d, %v, want 0, %v", n, err, ErrFull)
			}
			wantIDs(t, q, 10, 1, 2, 3, 4)
		}},
		{"records released by Ack(0) can be dropped", func(t *testing.T, q *disk) {
			appendAll(t, q, 1, 2, 3, 4)
			wantIDs(t, q, 4, 1, 2, 3, 4)
			must(t, q.Ack(0))
			if n := appendAll(t, q, 5); n != 1 {
				t.Fatalf("%d dropped, want 1", n)
			}
			wantIDs(t, q, 10, 2, 3, 4, 5)
		}},
		{"acked records do not count", func(t *testing.T, q *disk) {
			appendAll(t, q, 1, 2, 3)
			wantIDs(t, q, 2, 1, 2)
			must(t, q.Ack(2))
			if n := appendAll(t, q, 4, 5); n != 0 {
				t.Fatalf("%d dropped, want 0", n)
			}
			wantIDs(t, q, 10, 3, 4, 5)
		}},
		{"a block beyond the limit is an error", func(t *testing.T, q *disk) {
			appendAll(t, q, 1, 2)
			var block [][]byte
			for n := range uint32(12) {
				block = append(block, blockOf(100+n)...)
			}
			n, err := q.Append(block)
			large, ok := errors.AsType[*TooLargeError](err)
			if n != 0 || !ok || large.Limit != smallLimit || large.Size < 12*3000 || large.Size > 12*3000+1000+segmentOverhead {
				t.Fatalf("Append = %d, %v", n, err)
			}
			want := fmt.Sprintf(`queue "fake": make room: a batch of %d bytes is larger than buffer_limit (32768 bytes)`, large.Size)
			if err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
			wantIDs(t, q, 10, 1, 2)
		}},
		{"a smaller limit holds from the next append on", func(t *testing.T, q *disk) {
			appendAll(t, q, 1, 2, 3, 4)
			q.SetLimit(smallLimit / 2)
			if n := q.Stats().Records; n != 4 {
				t.Fatalf("%d records, want 4", n)
			}
			if n := appendAll(t, q, 5); n != 3 {
				t.Fatalf("%d dropped, want 3", n)
			}
			wantIDs(t, q, 10, 4, 5)
		}},
		{"a segment that cannot be removed is removed later", func(t *testing.T, q *disk) {
			appendAll(t, q, 1, 2, 3, 4)
			q.dir.(*fakeFolder).fault = func(op, name string) error {
				if op == "remove" {
					return syscall.EIO
				}
				return nil
			}
			dropped := 0
			for range 3 {
				n, err := q.Append(blockOf(5))
				if want := `queue "fake": make room: remove 0000000000000001-0000000000000000.v1: input/output error`; err == nil || err.Error() != want {
					t.Fatalf("append: %v, want %s", err, want)
				}
				dropped += n
			}
			if dropped != 1 {
				t.Fatalf("%d dropped, want 1", dropped)
			}
			q.dir.(*fakeFolder).fault = nil
			if n := appendAll(t, q, 6); n != 0 {
				t.Fatalf("%d dropped, want 0", n)
			}
			wantIDs(t, q, 10, 2, 3, 4, 6)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newFakeFolder()
			q := mustOpen(t, d, smallLimit)
			tt.run(t, q)
			must(t, q.Ack(0))
			stats := q.Stats()
			used := int64(0)
			for name, f := range d.files {
				if name != acksName && name != reserveName {
					used += int64(len(f.data)) + segmentOverhead
				}
			}
			if used > smallLimit {
				t.Errorf("%d bytes used of %d", used, smallLimit)
			}
			// The frame of a block has little more than 3,000 bytes.
			if n := int64(stats.Records); stats.Bytes < n*3000 || stats.Bytes > n*3100 {
				t.Errorf("stats %+v", stats)
			}
			// A restart counts the same, gaps or not.
			q = mustOpen(t, d.killed(), smallLimit)
			if got := q.Stats(); got.Records != stats.Records || got.Bytes != stats.Bytes || got.Damaged != 0 {
				t.Errorf("after a restart %+v, want %+v", got, stats)
			}
		})
	}
}

// TestUsedDecidesWhatIsDropped: a block drops others if and only if the used space and
// its cost exceed the limit.
func TestUsedDecidesWhatIsDropped(t *testing.T) {
	cost := func(q Queue, block [][]byte) int64 {
		if _, ok := q.(*memory); ok {
			return blockBytes(block)
		}
		e, err := newEncoder()
		must(t, err)
		frame, err := e.encode(0, time.Now(), block)
		must(t, err)
		return int64(len(frame)) + segmentOverhead
	}
	for _, q := range []Queue{NewMemory(smallLimit), mustOpen(t, newFakeFolder(), smallLimit)} {
		if s := q.Stats(); s.Used != 0 || s.Limit != smallLimit {
			t.Errorf("%T: empty: %+v", q, s)
		}
		drops := 0
		for n := range uint32(40) {
			block := blockOf(n)
			s := q.Stats()
			dropped, err := q.Append(block)
			must(t, err)
			if want := s.Used+cost(q, block) > s.Limit; (dropped > 0) != want {
				t.Errorf("%T: block %d with %+v: dropped %d", q, n, s, dropped)
			}
			drops += dropped
		}
		if drops == 0 {
			t.Errorf("%T: nothing dropped", q)
		}
		for q.Stats().Records > 0 {
			records, err := q.Peek(100, 1<<20)
			must(t, err)
			must(t, q.Ack(len(records)))
		}
		if s := q.Stats(); s.Used != 0 {
			t.Errorf("%T: drained: %+v", q, s)
		}
	}
}
