package delivery

import (
	"errors"
	"math"
	"testing"

	"sockwatch/agent/plugin"
)

// A step is one Push of the records that the bisect asks for.
type step struct {
	size int // asked for
	err  error
	want outcome
}

func TestBisectFindsRejectedRecords(t *testing.T) {
	few := errors.New("down")
	partly := &plugin.RejectedError{OthersStored: true}
	tests := []struct {
		name  string
		b     bisect
		steps []step
	}{
		{"nothing is rejected", bisect{}, []step{{math.MaxInt, nil, stored}, {math.MaxInt, few, failed}, {math.MaxInt, nil, stored}}},
		{"the last of four", bisect{left: 4}, []step{
			{4, plugin.ErrRejected, split}, {2, nil, stored}, {1, nil, stored}, {1, plugin.ErrRejected, rejected}, {math.MaxInt, nil, stored}}},
		{"the first of four", bisect{left: 4}, []step{
			{4, plugin.ErrRejected, split}, {2, plugin.ErrRejected, split}, {1, plugin.ErrRejected, rejected}, {3, nil, stored}}},
		{"an outage in between", bisect{left: 4}, []step{
			{4, plugin.ErrRejected, split}, {2, few, failed}, {2, nil, stored}, {1, plugin.ErrRejected, rejected}, {1, nil, stored}}},

		// The good records of a partial write are stored: after maxProbes rejections all that
		// are left are sent once more, and those rejected then are given up together.
		{"given up", bisect{left: 100, suspects: 50, probes: maxProbes - 1}, []step{
			{25, partly, split}, {100, partly, rejected}, {math.MaxInt, nil, stored}}},
		{"given up in pieces", bisect{left: 100, suspects: 50, probes: maxProbes - 1, atMost: 40}, []step{
			{25, partly, split}, {40, partly, rejected}, {40, nil, stored}, {20, partly, rejected}}},
		{"not given up where the others are not stored", bisect{left: 100, suspects: 50, probes: maxProbes - 1}, []step{
			{25, partly, split}, {100, plugin.ErrRejected, split}, {50, plugin.ErrRejected, split}, {25, nil, stored}, {12, nil, stored}}},

		// A block that is too large is split. The bound is lifted when its cause is found, and
		// grows while Pushes succeed.
		{"too large", bisect{left: 8}, []step{
			{8, plugin.ErrTooLarge, split}, {4, plugin.ErrTooLarge, split}, {2, nil, stored}, {2, plugin.ErrTooLarge, split},
			{1, plugin.ErrTooLarge, rejected}, {5, nil, stored}}},
		{"a bound that holds grows", bisect{left: 20, atMost: 1, streak: growAfter - 1}, []step{
			{1, nil, stored}, {2, plugin.ErrTooLarge, split}, {1, nil, stored}, {1, nil, stored}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.b
			for i, s := range tt.steps {
				n := b.size()
				if n != s.size {
					t.Fatalf("step %d: size %d, want %d", i, n, s.size)
				}
				n = min(n, 1000)
				got := b.classify(n, s.err)
				if got != s.want {
					t.Fatalf("step %d: outcome %d, want %d", i, got, s.want)
				}
				if got == stored || got == rejected {
					b.commit(n, got)
				}
			}
		})
	}
}
