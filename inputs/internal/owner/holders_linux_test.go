package owner

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestLimits(t *testing.T) {
	for sockets, want := range map[int]limits{
		0: {holders: 64, slots: 1 << 26}, 1: {holders: 64, slots: 1 << 26}, 4096: {holders: 64, slots: 16384},
		30000: {holders: 8, slots: 2236}, 1 << 20: {holders: 4, slots: 64},
	} {
		if got := limitsOf(sockets); got != want {
			t.Errorf("%d sockets: %+v, want %+v", sockets, got, want)
		}
	}
}

func TestBitset(t *testing.T) {
	var b, c bitset
	b.clear(1000)
	for _, n := range []int32{0, 63, 64, 1000} {
		b.set(n)
		c.set(n + 1)
	}
	b.clear(63)
	if b.count() != 3 || b.has(63) || !b.has(64) || b.has(5000) {
		t.Errorf("%v", b)
	}
	if both := c.and(bitset{1<<1 | 1<<5}); both.count() != 1 || !both.has(1) || c.count() != 4 {
		t.Errorf("in both: %v, of %v", both, c)
	}
	b.add(c)
	if b.count() != 6 || !b.has(65) || !b.has(1001) { // 64 was already there
		t.Errorf("added: %v", b)
	}
	if b.remove(append(c, 1)); b.count() != 2 || b.has(1) || !b.has(0) || !b.has(1000) {
		t.Errorf("removed: %v", b)
	}
}

// TestAllHoldersAreCounted although facts are kept of at most 64: also after some have
// exited, are found again, or hold another socket.
func TestAllHoldersAreCounted(t *testing.T) {
	h := newFakeHost(t)
	const first, n = 1000, 150
	for i := range n {
		h.process(first+i, uint64(2*n-i), "/a.service", 7, 8) // the last one started first
	}
	h.process(3000, 1, "/a.service", 8)
	one, two, single := &Socket{Inode: 7}, &Socket{Inode: 8}, &Socket{Inode: 9}
	f := h.finder(Options{Verify: never, Refresh: time.Minute, Members: func(string) []int { return nil }}, one, two, single)
	now := time.Now()
	check := func(when string, wantOne, wantTwo, wantBoth, named int) {
		t.Helper()
		both := CountProcesses(slices.Values([]*Socket{one, two, single}))
		if one.Count() != wantOne || two.Count() != wantTwo || both != wantBoth || CountProcesses(slices.Values([]*Socket{one})) != wantOne {
			t.Errorf("%s: %d and %d holders, %d of both; want %d, %d, %d", when, one.Count(), two.Count(), both, wantOne, wantTwo, wantBoth)
		}
		if len(one.Holders) != min(64, wantOne) || one.Status != Resolved || one.Named().PID != named {
			t.Errorf("%s: %d are kept, %s, %d is named, want %d", when, len(one.Holders), one.Status, one.Named().PID, named)
		}
		for i, holder := range one.Holders {
			if holder.Process.Comm == "" || i > 0 && Compare(one.Holders[i-1].Process, holder.Process) >= 0 {
				t.Errorf("%s: holder %d is %+v", when, i, holder.Process)
			}
		}
	}
	f.Update(t.Context(), now)
	check("found", n, n+1, n+1, first+n-1)

	version := one.Version
	h.remove("1000") // not kept: it started last
	f.Update(t.Context(), now)
	check("one that is not kept has exited", n-1, n, n, first+n-1)
	if one.Version == version {
		t.Error("the version stays though the number has changed")
	}
	h.remove("1149")
	f.Update(t.Context(), now)
	check("the named one has exited", n-2, n-1, n-1, first+n-2)

	h.remove("1001/fd/0") // it has closed one of them
	h.process(2000, 1000, "/a.service", 7)
	f.Update(t.Context(), now.Add(2*time.Minute))
	check("searched again", n-2, n-1, n, first+n-2)

	for i := range n - 10 {
		h.remove(strconv.Itoa(1002 + i))
	}
	f.Update(t.Context(), now.Add(2*time.Minute))
	check("few are left", 8, 9, 10, first+n-2)
	if one.set != nil {
		t.Error("a set is kept of few holders")
	}
}

// TestHoldersBeyondTheLimitAreCounted although only their number is kept.
func TestHoldersBeyondTheLimitAreCounted(t *testing.T) {
	sockets := []*Socket{{Inode: 7}, {Inode: 8}}
	limit := limits{holders: 4, slots: 10}
	all := make([]*Process, 20)
	for i := range all {
		all[i] = &Process{PID: 100 + i, Start: uint64(100 - i), slot: int32(i)}
	}
	for number := range uint32(3) {
		w := &walk{number: number + 1}
		for _, s := range sockets {
			s.begin()
		}
		for _, i := range rand.Perm(len(all)) {
			for range 3 { // by three files of each
				for _, s := range sockets {
					if h := (Holder{Process: all[i], walk: w.number}); !s.find(h, limit) {
						s.add(h, limit)
					}
				}
			}
		}
		for _, s := range sockets {
			if !s.commit(w, nil) || s.Count() != 20 || len(s.Holders) != 4 || s.Named() != all[19] {
				t.Errorf("walk %d: %d holders, %d kept, %d named; want 20, 4, 119", w.number, s.Count(), len(s.Holders), s.Named().PID)
			}
		}
		if got := CountProcesses(slices.Values(sockets)); got != 20 {
			t.Errorf("walk %d: %d of both, want 20", w.number, got)
		}
	}
}
