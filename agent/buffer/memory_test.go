package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/soak"
)

func TestMemory(t *testing.T) {
	// Each record of n bytes counts n+24, so that a record of "aaaaaa" counts 30.
	tests := []struct {
		name  string
		limit int64
		run   func(t *testing.T, q Queue)
	}{
		{"empty", 100, func(t *testing.T, q Queue) {
			wantAppend(t, q, 0)
			wantPeek(t, q, 10, 100)
			wantAck(t, q, 5)
			wantStats(t, q, Stats{})
		}},
		{"in order over blocks", 1000, func(t *testing.T, q Queue) {
			wantAppend(t, q, 0, "a", "b")
			wantAppend(t, q, 0, "c")
			wantPeek(t, q, 10, 100, "a", "b", "c")
			wantStats(t, q, Stats{Records: 3, Bytes: 75})
		}},
		{"peek is bounded by records", 1000, func(t *testing.T, q Queue) {
			wantAppend(t, q, 0, "a", "b", "c")
			wantPeek(t, q, 2, 100, "a", "b")
		}},
		{"peek is bounded by bytes", 1000, func(t *testing.T, q Queue) {
			wantAppend(t, q, 0, "aa", "bb", "cc")
			wantPeek(t, q, 10, 5, "aa")
			wantPeek(t, q, 10, 6, "aa", "bb")
		}},
		{"peek returns at least one record", 1000, func(t *testing.T, q Queue) {
			wantAppend(t, q, 0, "aa", "bb")
			wantPeek(t, q, 0, 0, "aa")
		}},
		{"peek before ack begins again", 1000, func(t *testing.T, q Queue) {
			wantAppend(t, q, 0, "a", "b", "c")
			wantPeek(t, q, 1, 100, "a")
			wantPeek(t, q, 2, 100, "a", "b")
		}},
		{"ack ends inside a block", 1000, func(t *testing.T, q Queue) {
			wantAppend(t, q, 0, "a", "b", "c")
			wantAppend(t, q, 0, "d", "e")
			wantPeek(t, q, 5, 100, "a", "b", "c", "d", "e")
			wantAck(t, q, 4)
			wantPeek(t, q, 5, 100, "e")
			wantStats(t, q, Stats{Records: 1, Bytes: 25})
		}},
		{"ack removes only records that peek returned", 1000, func(t *testing.T, q Queue) {
			wantAppend(t, q, 0, "a", "b")
			wantPeek(t, q, 1, 100, "a")
			wantAck(t, q, 9)
			wantAck(t, q, 9)
			wantPeek(t, q, 5, 100, "b")
		}},
		{"the oldest block is dropped", 60, func(t *testing.T, q Queue) {
			wantAppend(t, q, 0, "aaaaaa", "b")
			wantAppend(t, q, 2, "cccccc")
			wantPeek(t, q, 5, 100, "cccccc")
		}},
		{"records that peek returned stay, the rest of their block is dropped", 90, func(t *testing.T, q Queue) {
			wantAppend(t, q, 0, "aaaaaa", "bbbbbb", "cccccc")
			wantPeek(t, q, 1, 100, "aaaaaa")
			wantAppend(t, q, 2, "dddddd")
			wantPeek(t, q, 5, 100, "aaaaaa", "dddddd")
			wantStats(t, q, Stats{Records: 2, Bytes: 60})
		}},
		{"a block without returned records is dropped as a whole", 90, func(t *testing.T, q Queue) {
			wantAppend(t, q, 0, "aaaaaa")
			wantAppend(t, q, 0, "bbbbbb")
			wantPeek(t, q, 1, 100, "aaaaaa")
			wantFull(t, q, "cccccc", "dddddd", "ee")
			wantPeek(t, q, 5, 100, "aaaaaa", "bbbbbb")
		}},
		{"records released by Ack(0) can be dropped", 30, func(t *testing.T, q Queue) {
			wantAppend(t, q, 0, "aaaaaa")
			wantPeek(t, q, 1, 100, "aaaaaa")
			wantFull(t, q, "bbbbbb")
			wantAck(t, q, 0)
			wantAppend(t, q, 1, "cccccc")
			wantPeek(t, q, 5, 100, "cccccc")
		}},
		{"a block beyond the limit is an error", 30, func(t *testing.T, q Queue) {
			wantAppend(t, q, 0, "aaaaaa")
			dropped, err := q.Append([][]byte{[]byte("bbbbbbb")})
			const want = "queue in memory: append: a batch of 31 bytes is larger than buffer_limit (30 bytes)"
			if dropped != 0 || err == nil || err.Error() != want {
				t.Fatalf("Append = %d, %v, want 0, %s", dropped, err, want)
			}
			if large, ok := errors.AsType[*TooLargeError](err); !ok || *large != (TooLargeError{Size: 31, Limit: 30}) {
				t.Fatalf("error %#v", err)
			}
			wantPeek(t, q, 5, 100, "aaaaaa")
		}},
		{"a smaller limit holds from the next append on", 90, func(t *testing.T, q Queue) {
			wantAppend(t, q, 0, "aaaaaa")
			wantAppend(t, q, 0, "bbbbbb")
			q.SetLimit(30)
			wantStats(t, q, Stats{Records: 2, Bytes: 60})
			wantAppend(t, q, 2, "cccccc")
			wantPeek(t, q, 5, 100, "cccccc")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, NewMemory(tt.limit)) })
	}
}

func TestMemoryKeepsNothingOfTheBlock(t *testing.T) {
	q := NewMemory(1000)
	r := []byte("a")
	if _, err := q.Append([][]byte{r}); err != nil {
		t.Fatal(err)
	}
	r[0] = 'x'
	wantPeek(t, q, 1, 100, "a")
}

func TestMemoryOldest(t *testing.T) {
	q := NewMemory(1000)
	before := time.Now()
	wantAppend(t, q, 0, "a")
	between := time.Now()
	wantAppend(t, q, 0, "b")
	if got := q.Stats().Oldest; got.Before(before) || got.After(between) {
		t.Errorf("oldest %v, want between %v and %v", got, before, between)
	}
	wantPeek(t, q, 1, 100, "a")
	wantAck(t, q, 1)
	if got := q.Stats().Oldest; got.Before(between) {
		t.Errorf("oldest %v after the first is gone, want after %v", got, between)
	}
}

func TestMemoryAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(soak.Times(1000)) {
		rng := rand.New(rand.NewPCG(seed, 1))
		script := make([]byte, 300)
		for i := range script {
			script[i] = byte(rng.Uint32())
		}
		if err := playMemory(script); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func FuzzMemory(f *testing.F) {
	f.Add([]byte("\x00\x09\x01\xff\x00\x03\x02\x04\x03\x02"))
	f.Fuzz(func(t *testing.T, script []byte) {
		if err := playMemory(script); err != nil {
			t.Fatal(err)
		}
	})
}

// playMemory runs a script of two bytes per operation on a queue in memory and on
// the model, and reports where they differ.
func playMemory(script []byte) error {
	const limit = 700
	q, m := NewMemory(limit), &model{limit: limit}
	for i := 0; i+1 < len(script); i += 2 {
		op, arg := script[i]%8, int(script[i+1])
		var got, want any
		switch op {
		case 0, 1, 2, 3: // appends outnumber the rest, so that the limit is reached
			block := m.make(arg % 12)
			dropped, err := q.Append(block)
			_, large := errors.AsType[*TooLargeError](err)
			got, want = appendResult{dropped, large, errors.Is(err, ErrFull)}, m.append(block)
		case 4, 5:
			got, _ = q.Peek(arg%16, arg)
			want = m.peek(arg%16, arg)
		case 6:
			q.Ack(arg % 16)
			m.ack(arg % 16)
		case 7:
			q.SetLimit(limit - int64(arg))
			m.limit = limit - int64(arg)
		}
		if !reflect.DeepEqual(want, got) {
			return fmt.Errorf("operation %d, %d(%d): %v, want %v", i/2, op, arg, got, want)
		}
		s := q.Stats()
		s.Oldest = time.Time{}
		if s != m.stats() {
			return fmt.Errorf("operation %d, %d(%d): stats %+v, want %+v", i/2, op, arg, s, m.stats())
		}
	}
	return nil
}

// A model is a queue in memory that is written to be obviously correct.
type model struct {
	limit int64
	next  uint32
	queue []modelRecord
	out   int
}

type modelRecord struct {
	data  []byte
	block uint32
}

// make returns a block of n different records.
func (m *model) make(n int) (block [][]byte) {
	for range n {
		m.next++
		r := binary.BigEndian.AppendUint32(nil, m.next)
		block = append(block, append(r, make([]byte, m.next%7)...))
	}
	return block
}

func (m *model) bytes(records []modelRecord) (n int64) {
	for _, r := range records {
		n += int64(len(r.data)) + recordOverhead
	}
	return n
}

type appendResult struct {
	dropped  int
	tooLarge bool
	full     bool
}

func (m *model) append(block [][]byte) (r appendResult) {
	var added []modelRecord
	for _, r := range block {
		added = append(added, modelRecord{r, m.next})
	}
	if len(block) == 0 {
		return r
	}
	if m.bytes(added) > m.limit {
		return appendResult{tooLarge: true}
	}
	if m.bytes(m.queue[:m.out])+m.bytes(added) > m.limit {
		return appendResult{full: true}
	}
	for m.bytes(m.queue)+m.bytes(added) > m.limit {
		end := m.out
		for end < len(m.queue) && m.queue[end].block == m.queue[m.out].block {
			end++
		}
		r.dropped += end - m.out
		m.queue = slices.Delete(m.queue, m.out, end)
	}
	m.queue = append(m.queue, added...)
	return r
}

func (m *model) peek(maxRecords, maxBytes int) [][]byte {
	var records [][]byte
	n := 0
	for _, r := range m.queue {
		n += len(r.data) + 1
		if len(records) > 0 && (len(records) == maxRecords || n > maxBytes || maxRecords == 0) {
			break
		}
		records = append(records, r.data)
	}
	m.out = len(records)
	return records
}

func (m *model) ack(n int) {
	m.queue = m.queue[min(n, m.out):]
	m.out = 0
}

func (m *model) stats() Stats {
	n := m.bytes(m.queue)
	return Stats{Records: len(m.queue), Bytes: n, Used: n, Limit: m.limit}
}

// TestMemoryDrainsWhileAppending uses both goroutines of the contract.
func TestMemoryDrainsWhileAppending(t *testing.T) {
	drainWhileAppending(t, NewMemory(1<<30), 300, 40)
}

// drainWhileAppending appends blocks from one goroutine, drains them in another
// and asks for Stats in a third; every record must come out once, in order.
func drainWhileAppending(t *testing.T, q Queue, blocks, size int) {
	t.Helper()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := range blocks {
			block := make([][]byte, size)
			for k := range block {
				block[k] = binary.BigEndian.AppendUint32(nil, uint32(i*size+k))
			}
			if dropped, err := q.Append(block); dropped != 0 || err != nil {
				t.Errorf("append: dropped %d, error %v", dropped, err)
			}
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				q.Stats()
			}
		}
	})
	rng := rand.New(rand.NewPCG(1, 2))
	for next := 0; next < blocks*size && !t.Failed(); {
		records, err := q.Peek(1+rng.IntN(3*size), 1<<20)
		if err != nil {
			t.Error(err)
		}
		n := rng.IntN(len(records) + 1)
		for _, r := range records[:n] {
			if got := int(binary.BigEndian.Uint32(r)); got != next {
				t.Errorf("record %d, want %d", got, next)
			}
			next++
		}
		if err := q.Ack(n); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	wantStats(t, q, Stats{})
}

func wantAppend(t *testing.T, q Queue, dropped int, records ...string) {
	t.Helper()
	block := make([][]byte, len(records))
	for i, r := range records {
		block[i] = []byte(r)
	}
	got, err := q.Append(block)
	if got != dropped || err != nil {
		t.Fatalf("Append(%q) = %d, %v, want %d, nil", records, got, err, dropped)
	}
}

func wantFull(t *testing.T, q Queue, records ...string) {
	t.Helper()
	block := make([][]byte, len(records))
	for i, r := range records {
		block[i] = []byte(r)
	}
	if dropped, err := q.Append(block); dropped != 0 || !errors.Is(err, ErrFull) {
		t.Fatalf("Append(%q) = %d, %v, want 0, %v", records, dropped, err, ErrFull)
	}
}

func wantPeek(t *testing.T, q Queue, maxRecords, maxBytes int, want ...string) {
	t.Helper()
	records, err := q.Peek(maxRecords, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records {
		got = append(got, string(r))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("Peek(%d, %d) (-want +got):\n%s", maxRecords, maxBytes, diff)
	}
}

func wantAck(t *testing.T, q Queue, n int) {
	t.Helper()
	if err := q.Ack(n); err != nil {
		t.Fatalf("Ack(%d): %v", n, err)
	}
}

// wantStats compares what is queued and what is damaged.
func wantStats(t *testing.T, q Queue, want Stats) {
	t.Helper()
	got := q.Stats()
	got.Oldest, got.Used, got.Limit = time.Time{}, 0, 0
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("stats (-want +got):\n%s", diff)
	}
}
