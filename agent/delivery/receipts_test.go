package delivery

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sockwatch/agent/buffer"
	"sockwatch/agent/plugin/plugintest/soak"
)

// The ledger confirms exactly the blocks of events of which every record was removed by
// an ack, and no other.
func TestLedgerAgainstModel(t *testing.T) {
	for seed := range uint64(soak.Times(100)) {
		rng := rand.New(rand.NewPCG(seed, 12))
		q, l := buffer.NewMemory(500), &ledger{}
		acked := map[string]bool{}
		blocks, confirmed := [][]string{}, map[int]bool{}
		n := 0
		var out [][]byte
		for range 200 {
			switch rng.IntN(4) {
			case 0, 1:
				var records [][]byte
				var block []string
				for range 1 + rng.IntN(4) {
					n++
					records = append(records, fmt.Append(nil, n))
					block = append(block, fmt.Sprint(n))
				}
				var r *Receipt
				if rng.IntN(2) == 0 {
					at := len(blocks)
					r = NewReceipt(func() { confirmed[at] = true })
				}
				if _, err := l.append(q, records, r); err != nil {
					r.Hold() // lost
				} else if r != nil {
					blocks = append(blocks, block)
				}
				r.Release()
			case 2:
				out, _ = l.peek(q, 1+rng.IntN(8), 1<<20)
			case 3:
				k := rng.IntN(len(out) + 1)
				for _, record := range out[:k] {
					acked[string(record)] = true
				}
				l.ack(q, k)
				out = nil
			}
			for at, block := range blocks {
				want := !slices.ContainsFunc(block, func(record string) bool { return !acked[record] })
				if confirmed[at] != want {
					t.Fatalf("seed %d: block %v is confirmed: %v, want %v", seed, block, confirmed[at], want)
				}
			}
		}
	}
}
