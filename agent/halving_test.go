package agent

import (
	"errors"
	"math"
	"testing"

	"sockwatch/agent/plugin"
)

// A step is a Push of what the halving wants, of a queue that has it.
type step struct {
	size int // wanted
	err  error
	want verdict
}

func TestO6SearchForRejectedRecords(t *testing.T) {
	few := errors.New("down")
	tests := []struct {
		name  string
		h     halving
		steps []step
	}{
		{"nothing is rejected", halving{}, []step{{math.MaxInt, nil, stored}, {math.MaxInt, few, failed}, {math.MaxInt, nil, stored}}},
		{"the last of four", halving{left: 4}, []step{
			{4, plugin.ErrRejected, halved}, {2, nil, stored}, {1, nil, stored}, {1, plugin.ErrRejected, rejected}, {math.MaxInt, nil, stored}}},
		{"the first of four", halving{left: 4}, []step{
			{4, plugin.ErrRejected, halved}, {2, plugin.ErrRejected, halved}, {1, plugin.ErrRejected, rejected}, {3, nil, stored}}},
		{"an outage in between", halving{left: 4}, []step{
			{4, plugin.ErrRejected, halved}, {2, few, failed}, {2, nil, stored}, {1, plugin.ErrRejected, rejected}, {1, nil, stored}}},
		{"all", halving{left: 4}, []step{{4, plugin.ErrAllRejected, rejected}, {math.MaxInt, nil, stored}}},

		// The good ones of a partial write are stored: after so many probes all that
		// is left is sent once more, and what is rejected of it given up together.
		{"given up", halving{left: 100, suspects: 50, probes: maxProbes - 1}, []step{
			{25, plugin.ErrOthersStored, halved}, {100, plugin.ErrOthersStored, rejected}, {math.MaxInt, nil, stored}}},
		{"given up in pieces", halving{left: 100, suspects: 50, probes: maxProbes - 1, atMost: 40}, []step{
			{25, plugin.ErrOthersStored, halved}, {40, plugin.ErrOthersStored, rejected}, {40, nil, stored}, {20, plugin.ErrOthersStored, rejected}}},
		{"not given up where the others are not stored", halving{left: 100, suspects: 50, probes: maxProbes - 1}, []step{
			{25, plugin.ErrOthersStored, halved}, {100, plugin.ErrRejected, halved}, {50, plugin.ErrRejected, halved}, {25, nil, stored}, {12, nil, stored}}},

		// What is too large is halved; the bound goes when its cause is found, and
		// grows when it holds.
		{"too large", halving{left: 8}, []step{
			{8, plugin.ErrTooLarge, halved}, {4, plugin.ErrTooLarge, halved}, {2, nil, stored}, {2, plugin.ErrTooLarge, halved},
			{1, plugin.ErrTooLarge, rejected}, {5, nil, stored}}},
		{"a bound that holds grows", halving{left: 20, atMost: 1, streak: growAfter - 1}, []step{
			{1, nil, stored}, {2, plugin.ErrTooLarge, halved}, {1, nil, stored}, {1, nil, stored}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := tt.h
			for i, s := range tt.steps {
				n := h.size()
				if n != s.size {
					t.Fatalf("step %d: size %d, want %d", i, n, s.size)
				}
				n = min(n, 1000)
				got := h.judge(n, s.err)
				if got != s.want {
					t.Fatalf("step %d: verdict %d, want %d", i, got, s.want)
				}
				if got == stored || got == rejected {
					h.settle(n, got)
				}
			}
		})
	}
}
