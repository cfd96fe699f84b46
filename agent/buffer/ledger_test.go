package buffer

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
)

// A ledger tracks the records of a queue, which are numbered in the order in
// which they are appended, and finds every record that is lost, foreign, out of
// order, or counted wrongly.
type ledger struct {
	next   uint32
	live   []uint32 // appended and not acked, oldest first
	absent int      // of live: dropped or damaged, as the queue counted; which ones is unknown
	handed []uint32 // records that the last Peek returned
	failed error    // of the last Append that failed

	faulty  bool            // a dropped segment that could not be removed may be back after a restart
	ghosts  map[uint32]bool // they may return after a restart, for that reason or because their Append failed
	repeats bool            // acked records may return

	// safe is the first record that no fault has affected: none from it on may be lost.
	safe uint32
}

func newLedger() *ledger { return &ledger{ghosts: map[uint32]bool{}} }

// block returns n numbered records of about size bytes that compress badly.
func (l *ledger) block(rng *rand.Rand, n, size int) (block [][]byte) {
	for range n {
		block = append(block, numbered(rng, l.next, size))
		l.next++
	}
	return block
}

func numbered(rng *rand.Rand, id uint32, size int) []byte {
	r := binary.BigEndian.AppendUint32(nil, id)
	for range rng.IntN(size/8 + 1) {
		r = binary.BigEndian.AppendUint64(r, rng.Uint64())
	}
	return r
}

func id(record []byte) uint32 { return binary.BigEndian.Uint32(record) }

func (l *ledger) append(q Queue, block [][]byte) error {
	dropped, err := q.Append(block)
	if err != nil {
		l.failed = err
	}
	l.absent += dropped
	for _, r := range block {
		if err != nil {
			l.ghosts[id(r)] = true
		} else {
			l.live = append(l.live, id(r))
		}
	}
	return l.check(q)
}

// peek compares the records returned with those expected.
func (l *ledger) peek(q Queue, maxRecords, maxBytes int) error {
	before := q.Stats().Damaged
	records, err := q.Peek(maxRecords, maxBytes)
	if err != nil {
		return fmt.Errorf("peek: %w", err)
	}
	l.absent += q.Stats().Damaged - before
	var ids []uint32
	bytes := 0
	for i, r := range records {
		ids = append(ids, id(r))
		bytes += len(r) + 1
		if i > 0 && (i >= maxRecords || bytes > maxBytes) {
			return fmt.Errorf("peek(%d, %d): %d records, %d bytes", maxRecords, maxBytes, len(records), bytes)
		}
	}
	n := min(len(ids), len(l.handed))
	if !slices.Equal(ids[:n], l.handed[:n]) || len(ids) == 0 && len(l.handed) > 0 {
		return fmt.Errorf("peek(%d, %d): %v after %v was returned", maxRecords, maxBytes, some(ids), some(l.handed))
	}
	l.handed = ids
	return l.match(ids)
}

// match removes the records from live that were skipped before ids.
func (l *ledger) match(ids []uint32) error {
	i := 0
	for k, want := range ids {
		if k > 0 && want <= ids[k-1] {
			return fmt.Errorf("%d after %d", want, ids[k-1])
		}
		skipped := 0
		for i+skipped < len(l.live) && l.live[i+skipped] < want {
			skipped++
		}
		if skipped > l.absent {
			return fmt.Errorf("%d lost before %d, %d of them counted: %v", skipped, want, l.absent, some(l.live[i:i+skipped]))
		}
		if skipped > 0 && l.safe > 0 && l.live[i+skipped-1] >= l.safe {
			return fmt.Errorf("%d lost, which was queued after the last interference", l.live[i+skipped-1])
		}
		l.absent -= skipped
		if l.faulty {
			for _, n := range l.live[i : i+skipped] {
				l.ghosts[n] = true
			}
		}
		l.live = slices.Delete(l.live, i, i+skipped)
		switch {
		case i < len(l.live) && l.live[i] == want:
			i++
		case l.ghosts[want], l.repeats:
			l.live = slices.Insert(l.live, i, want)
			i++
		default:
			return fmt.Errorf("foreign record %d", want)
		}
	}
	return nil
}

func (l *ledger) ack(q Queue, n int) error {
	n = min(n, len(l.handed))
	before := q.Stats().Damaged
	err := q.Ack(n)
	l.absent += q.Stats().Damaged - before
	l.live = l.live[n:]
	l.handed = nil
	if err != nil {
		l.repeats = true
	}
	return l.check(q)
}

// reopened trusts the new queue only about the damage that it counted.
func (l *ledger) reopened(q Queue) error {
	l.handed = nil
	l.absent += q.Stats().Damaged
	return l.check(q)
}

// interfered records that files of the queue were changed: queued records may turn
// out to be damaged, records appended from now on may not.
func (l *ledger) interfered() { l.safe = l.next }

// reopenedAfterInterference expects no count of what was lost with whole files.
func (l *ledger) reopenedAfterInterference(q Queue) error {
	l.handed, l.faulty, l.repeats = nil, true, true
	l.absent = 0
	for _, id := range l.live {
		if id < l.safe {
			l.absent++
		}
	}
	return l.check(q)
}

func (l *ledger) check(q Queue) error {
	s := q.Stats()
	more := l.faulty || l.repeats || len(l.ghosts) > 0
	if want := len(l.live) - l.absent; s.Records < want || s.Records > want && !more {
		return fmt.Errorf("stats say %d records, want %d", s.Records, want)
	}
	if s.Records > 0 && (s.Bytes <= 0 || s.Oldest.IsZero()) || s.Records == 0 && (s.Bytes != 0 || !s.Oldest.IsZero()) {
		return fmt.Errorf("stats do not agree: %+v", s)
	}
	return nil
}

// drain peeks and acks all that is left.
func (l *ledger) drain(q Queue) error {
	for {
		if err := l.peek(q, 1000, 1<<20); err != nil {
			return err
		}
		if len(l.handed) == 0 {
			break
		}
		if err := l.ack(q, len(l.handed)); err != nil {
			return err
		}
	}
	if len(l.live) > l.absent || len(l.live) < l.absent && !l.faulty {
		return fmt.Errorf("%d lost at the end, %d of them counted: %v", len(l.live), l.absent, some(l.live))
	}
	if n := len(l.live); n > 0 && l.safe > 0 && l.live[n-1] >= l.safe {
		return fmt.Errorf("%d lost at the end, which was queued after the last interference", l.live[n-1])
	}
	l.live, l.absent = nil, 0
	return l.check(q)
}

func some(ids []uint32) []uint32 { return ids[:min(len(ids), 20)] }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func mustOpen(t testing.TB, d folder, limit int64) *disk {
	t.Helper()
	q, err := newDisk(d, "fake", limit, discard())
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
