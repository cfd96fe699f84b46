package buffer

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// recordOverhead is what a record costs in addition to its bytes: its slice header.
const recordOverhead = 24

// NewMemory returns a queue in memory of at most limit bytes. Its records are lost when
// the program ends.
func NewMemory(limit int64) Queue { return &memory{limit: limit} }

type memory struct {
	mu       sync.Mutex
	limit    int64
	blocks   []block // oldest first
	stats    Stats   // only the counts
	out      int     // how many of the oldest records the last Peek returned
	outBytes int64   // what these count against the limit
}

// A block holds the remaining records of one Append.
type block struct {
	records [][]byte // in one backing array
	time    time.Time
}

func (m *memory) Append(records [][]byte) (dropped int, err error) {
	if len(records) == 0 {
		return 0, nil
	}
	b := block{records: make([][]byte, len(records)), time: time.Now()}
	size := blockBytes(records)
	arena := make([]byte, 0, size-int64(len(records))*recordOverhead)
	for i, r := range records {
		arena = append(arena, r...)
		b.records[i] = arena[len(arena)-len(r) : len(arena) : len(arena)]
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	if size > m.limit {
		return 0, fmt.Errorf("queue in memory: append: %w", &TooLargeError{Size: size, Limit: m.limit})
	}
	if m.outBytes+size > m.limit { // dropping all the others would not help
		return 0, fmt.Errorf("queue in memory: append: %w", ErrFull)
	}
	for m.stats.Bytes+size > m.limit {
		dropped += m.lockedDropOldest()
	}
	m.blocks = append(m.blocks, b)
	m.stats.Records += len(records)
	m.stats.Bytes += size
	return dropped, nil
}

// lockedDropOldest drops the oldest block that is not held by Peek, or the part of it
// that is not, and returns the number of records. There must be one.
func (m *memory) lockedDropOldest() int {
	i, out := 0, m.out
	for out >= len(m.blocks[i].records) {
		out -= len(m.blocks[i].records)
		i++
	}
	b := &m.blocks[i]
	victims := b.records[out:]
	m.stats.Records -= len(victims)
	m.stats.Bytes -= blockBytes(victims)
	if b.records = b.records[:out]; out == 0 {
		m.blocks = slices.Delete(m.blocks, i, i+1)
	}
	return len(victims)
}

func (m *memory) Peek(maxRecords, maxBytes int) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	records := m.lockedOldest(maxRecords, maxBytes)
	m.out, m.outBytes = len(records), blockBytes(records)
	return records, nil
}

func (m *memory) lockedOldest(maxRecords, maxBytes int) (records [][]byte) {
	bytes := 0
	for _, b := range m.blocks {
		for _, r := range b.records {
			bytes += len(r) + 1
			if len(records) > 0 && (len(records) >= maxRecords || bytes > maxBytes) {
				return records
			}
			records = append(records, r)
		}
	}
	return records
}

func (m *memory) Ack(n int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n = min(n, m.out)
	m.out, m.outBytes = 0, 0
	m.stats.Records -= n
	for n > 0 {
		b := &m.blocks[0]
		k := min(n, len(b.records))
		m.stats.Bytes -= blockBytes(b.records[:k])
		b.records = b.records[k:]
		n -= k
		if len(b.records) == 0 {
			m.blocks[0] = block{}
			m.blocks = m.blocks[1:]
		}
	}
	return nil
}

func (m *memory) SetLimit(limit int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limit = limit
}

func (m *memory) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Used, s.Limit = s.Bytes, m.limit
	if len(m.blocks) > 0 {
		s.Oldest = m.blocks[0].time
	}
	return s
}

func (m *memory) Close() error { return nil }

// blockBytes returns how much records count against the limit.
func blockBytes(records [][]byte) int64 {
	n := int64(len(records)) * recordOverhead
	for _, r := range records {
		n += int64(len(r))
	}
	return n
}
