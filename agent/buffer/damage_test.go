package buffer

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/soak"
)

// A spool is the content of a queue's folder, and the frames in it.
type spool struct {
	files  map[string][]byte
	names  []string // of the segments, in order
	frames []spoolFrame
}

type spoolFrame struct {
	name     string
	off, end int64
	ids      []uint32
}

// makeSpool queues blocks of records in three segments, of which acked are acked.
func makeSpool(t *testing.T, acked int) spool {
	t.Helper()
	rng := rand.New(rand.NewPCG(9, 9))
	d, l := newFakeFolder(), newLedger()
	for range 3 {
		q := mustOpen(t, d, 1<<20)
		for range 4 {
			must(t, l.append(q, l.block(rng, 1+rng.IntN(4), 40)))
		}
		d = d.killed()
	}
	q := mustOpen(t, d, 1<<20)
	if acked > 0 {
		must(t, l.peek(q, acked, 1<<20))
		must(t, l.ack(q, acked))
	}
	s := spool{files: map[string][]byte{}}
	dec, err := newDecoder()
	must(t, err)
	for _, g := range q.catalog.segments {
		s.names = append(s.names, g.name())
		data := d.files[g.name()].data
		for off := int64(0); off < int64(len(data)); {
			h, ok := parseHeader(data[off:])
			if !ok {
				t.Fatalf("no frame at %d of %s", off, g.name())
			}
			records, err := decode(dec, &h, data[off+headerSize:off+h.size()])
			must(t, err)
			f := spoolFrame{name: g.name(), off: off, end: off + h.size()}
			for _, r := range records {
				f.ids = append(f.ids, id(r))
			}
			s.frames = append(s.frames, f)
			off = f.end
		}
	}
	for name, f := range d.files {
		s.files[name] = f.data
	}
	return s
}

// folder returns a folder with the content of the spool, with one file replaced.
func (s *spool) folder(name string, data []byte) *fakeFolder {
	d := newFakeFolder()
	for n, b := range s.files {
		d.files[n] = &fakeFile{data: slices.Clone(b)}
	}
	if name != "" {
		d.files[name] = &fakeFile{data: data}
	}
	return d
}

// ids returns the records of the frames for which keep returns true.
func (s *spool) ids(keep func(f *spoolFrame) bool) (ids []uint32) {
	for i := range s.frames {
		if keep(&s.frames[i]) {
			ids = append(ids, s.frames[i].ids...)
		}
	}
	return ids
}

// drainAll opens a queue, reads and acks everything, and closes it.
func drainAll(d folder) (ids []uint32, s Stats, err error) {
	q, err := newDisk(d, "fake", 1<<20, discard())
	if err != nil {
		return nil, Stats{}, err
	}
	queued := q.Stats().Records + q.Stats().Damaged
	for {
		records, err := q.Peek(5, 1<<20)
		if err != nil {
			return nil, Stats{}, err
		}
		if len(records) == 0 {
			break
		}
		for _, r := range records {
			ids = append(ids, id(r))
		}
		if err := q.Ack(len(records)); err != nil {
			return nil, Stats{}, err
		}
	}
	s = q.Stats()
	if s.Records != 0 || len(ids)+s.Damaged != queued {
		return nil, s, fmt.Errorf("%d queued at first, %d returned, %d damaged, %d left", queued, len(ids), s.Damaged, s.Records)
	}
	return ids, s, q.Close()
}

// TestCutSegmentLosesOnlyCutBlocks truncates every file of a queue at every offset: only the
// frames beyond that are lost, and they are counted if a later segment shows how many
// there were.
func TestCutSegmentLosesOnlyCutBlocks(t *testing.T) {
	t.Parallel()
	s := makeSpool(t, 0)
	for i, name := range s.names {
		for cut := 0; cut < len(s.files[name]); cut += soak.Step(7) {
			want := s.ids(func(f *spoolFrame) bool { return f.name != name || f.end <= int64(cut) })
			got, stats, err := drainAll(s.folder(name, slices.Clone(s.files[name][:cut])))
			if err != nil {
				t.Fatalf("%s cut at %d: %v", name, cut, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s cut at %d (-want +got):\n%s", name, cut, diff)
			}
			lost := len(s.ids(func(*spoolFrame) bool { return true })) - len(got)
			if i == len(s.names)-1 {
				lost = 0 // it is unknown whether they were ever queued
			}
			if stats.Damaged != lost {
				t.Fatalf("%s cut at %d: %d damaged, want %d", name, cut, stats.Damaged, lost)
			}
		}
	}
}

// TestChangedByteLosesOnlyItsBlock changes each byte of each segment: only the frame that
// contains it is lost, and it is counted.
func TestChangedByteLosesOnlyItsBlock(t *testing.T) {
	t.Parallel()
	s := makeSpool(t, 0)
	rng := rand.New(rand.NewPCG(3, 3))
	last := s.frames[len(s.frames)-1]
	for _, name := range s.names {
		for off := 0; off < len(s.files[name]); off += soak.Step(7) {
			data := slices.Clone(s.files[name])
			data[off] ^= byte(1 + rng.IntN(255))
			whole := func(f *spoolFrame) bool { return f.name != name || f.end <= int64(off) || f.off > int64(off) }
			hit := s.ids(func(f *spoolFrame) bool { return !whole(f) })
			got, stats, err := drainAll(s.folder(name, data))
			if err != nil {
				t.Fatalf("%s changed at %d: %v", name, off, err)
			}
			if diff := cmp.Diff(s.ids(whole), got); diff != "" {
				t.Fatalf("%s changed at %d (-want +got):\n%s", name, off, diff)
			}
			want := len(hit)
			if name == last.name && int64(off) >= last.off && int64(off) < last.off+headerSize {
				want = 0 // the header of the very last frame held the number
			}
			if stats.Damaged != want || stats.DamagedBytes == 0 {
				t.Fatalf("%s changed at %d: stats %+v, want %d damaged", name, off, stats, want)
			}
		}
	}
}

// TestGarbageLosesOnlyWhatItOverwrites writes holes and garbage, and inserts, removes and
// repeats pieces. Every frame outside them is returned.
func TestGarbageLosesOnlyWhatItOverwrites(t *testing.T) {
	t.Parallel()
	s := makeSpool(t, 0)
	rng := rand.New(rand.NewPCG(4, 4))
	for range soak.Times(600) {
		name := s.names[rng.IntN(len(s.names))]
		data := slices.Clone(s.files[name])
		from := rng.IntN(len(data))
		to := from + rng.IntN(min(len(data)-from, 200))
		var piece []byte
		what := rng.IntN(5)
		switch what {
		case 0: // a hole
			piece = make([]byte, to-from)
		case 1: // garbage
			for range to - from {
				piece = append(piece, byte(rng.Uint32()))
			}
		case 2: // removed
		case 3: // inserted
			piece = bytes.Repeat([]byte(magic), rng.IntN(50))
			to = from
		case 4: // repeated
			piece = slices.Concat(data[from:to], data[from:to])
		}
		data = slices.Concat(data[:from], piece, data[to:])
		whole := func(f *spoolFrame) bool { return f.name != name || f.end <= int64(from) || f.off >= int64(to) }
		got, _, err := drainAll(s.folder(name, data))
		if err != nil {
			t.Fatalf("%s: %d at %d to %d: %v", name, what, from, to, err)
		}
		for _, want := range s.ids(whole) {
			if !slices.Contains(got, want) {
				t.Fatalf("%s: %d at %d to %d: %d is lost, got %v", name, what, from, to, want, got)
			}
		}
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Fatalf("%s: %d at %d to %d: out of order or twice: %v", name, what, from, to, got)
		}
	}
}

// TestDamagedAcksRepeatAndLoseNothing: if the position is damaged, records are returned again.
func TestDamagedAcksRepeatAndLoseNothing(t *testing.T) {
	const n = 6
	s := makeSpool(t, n)
	all := s.ids(func(*spoolFrame) bool { return true })
	check := func(what string, data []byte) {
		t.Helper()
		got, _, err := drainAll(s.folder(acksName, data))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if len(got) < len(all)-n || !slices.Equal(got, all[len(all)-len(got):]) {
			t.Fatalf("%s: got %v of %v", what, got, all)
		}
	}
	acks := s.files[acksName]
	rng := rand.New(rand.NewPCG(5, 5))
	for off := range len(acks) {
		if off%slotPage > 2*slotSize {
			continue
		}
		check(fmt.Sprint("cut at ", off), slices.Clone(acks[:off]))
		changed := slices.Clone(acks)
		changed[off] ^= byte(1 + rng.IntN(255))
		check(fmt.Sprint("changed at ", off), changed)
	}
	got, _, err := drainAll(s.folder("", nil))
	must(t, err)
	if diff := cmp.Diff(all[n:], got); diff != "" {
		t.Fatalf("undamaged (-want +got):\n%s", diff)
	}
	d := s.folder("", nil)
	delete(d.files, acksName)
	got, _, err = drainAll(d)
	must(t, err)
	if diff := cmp.Diff(all, got); diff != "" {
		t.Fatalf("removed (-want +got):\n%s", diff)
	}
}

// TestMissingSegmentIsSkipped: a removed segment is not an error, neither at the start nor
// while the queue is open.
func TestMissingSegmentIsSkipped(t *testing.T) {
	s := makeSpool(t, 0)
	for _, name := range s.names {
		want := s.ids(func(f *spoolFrame) bool { return f.name != name })
		d := s.folder("", nil)
		delete(d.files, name)
		got, stats, err := drainAll(d)
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s before the start (-want +got):\n%s", name, diff)
		}
		if stats.Damaged != 0 {
			t.Errorf("%s: %d damaged", name, stats.Damaged)
		}
	}
	name := s.names[1]
	d := s.folder("", nil)
	q := mustOpen(t, d, 1<<20)
	delete(d.files, name)
	l := newLedger()
	l.live = s.ids(func(*spoolFrame) bool { return true })
	must(t, l.drain(q))
	if want, got := len(s.ids(func(f *spoolFrame) bool { return f.name == name })), q.Stats().Damaged; got != want {
		t.Errorf("%s in the run: %d damaged, want %d", name, got, want)
	}
}

// TestUnreadablePageIsSkippedAfterSomeTries: a page that cannot be read counts as damaged
// after readTries; if it can be read again before that, nothing is lost.
func TestUnreadablePageIsSkippedAfterSomeTries(t *testing.T) {
	s := makeSpool(t, 0)
	l := newLedger()
	l.live = s.ids(func(*spoolFrame) bool { return true })
	for _, lasting := range []bool{false, true} {
		d := s.folder("", nil)
		q := mustOpen(t, d, 1<<20)
		fails := 0
		d.fault = func(op, name string) error {
			if op == "read" && name == s.names[1] && (lasting || fails < 3) {
				fails++
				return syscall.EIO
			}
			return nil
		}
		var got []uint32
		for errs := 0; errs < 20; {
			records, err := q.Peek(3, 1<<20)
			if err != nil {
				want := fmt.Sprintf(`queue "fake": read: %q: read %s: input/output error`, s.names[1], s.names[1])
				if err.Error() != want {
					t.Fatalf("error %q, want %q", err, want)
				}
				errs++
				continue
			}
			if len(records) == 0 {
				break
			}
			for _, r := range records {
				got = append(got, id(r))
			}
			must(t, q.Ack(len(records)))
		}
		want := s.ids(func(f *spoolFrame) bool { return !lasting || f.name != s.names[1] })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("lasting %v (-want +got):\n%s", lasting, diff)
		}
		if damaged := len(l.live) - len(want); q.Stats().Damaged != damaged {
			t.Errorf("lasting %v: %d damaged, want %d", lasting, q.Stats().Damaged, damaged)
		}
	}
}

// TestKilledAtEachStep kills the process at every operation of the
// file system, also in the middle of writes.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	for seed := range uint64(soak.Times(2)) {
		for step := 1; ; step++ {
			rng := rand.New(rand.NewPCG(seed, 6))
			d, l := newFakeFolder(), newLedger()
			l.faulty = true
			n, dead := 0, false
			d.written = func(n int) int { return int(seed) % 2 * n / 2 }
			d.fault = func(op, name string) error {
				if n++; n >= step {
					dead = true
					return syscall.EIO
				}
				return nil
			}
			q, err := newDisk(d, "fake", 64<<10, discard())
			for i := 0; err == nil && !dead && i < 40; i++ {
				err = l.append(q, l.block(rng, 20+rng.IntN(20), 120))
				if err == nil && i%3 == 2 && !dead {
					err = l.peek(q, 100, 1<<20)
				}
				if err == nil && i%3 == 2 && !dead {
					err = l.ack(q, rng.IntN(100))
				}
			}
			if err != nil && !dead {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			q = mustOpen(t, d.killed(), 64<<10)
			if err := l.reopened(q); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			if err := l.drain(q); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			if !dead {
				t.Logf("seed %d: %d steps", seed, step-1)
				break
			}
		}
	}
}

// TestReserveMakesRoomForAcks: on a full disk the reserve makes room to save an ack and to
// remove acked records, and is created again when there is space again.
func TestReserveMakesRoomForAcks(t *testing.T) {
	d := newFakeFolder()
	full := false
	d.written = func(int) int { return 0 }
	d.fault = func(op, name string) error {
		_, reserved := d.files[reserveName]
		if full && (reserved || strings.HasSuffix(name, ".v1") && name != acksName) && (op == "create" || op == "write") {
			return syscall.ENOSPC
		}
		return nil
	}
	q := mustOpen(t, d, 1<<20)
	wantAppend(t, q, 0, "a", "b")
	full = true
	_, err := q.Append([][]byte{[]byte("c")})
	if want := `queue "fake": append: write 0000000000000001-0000000000000000.v1: no space left on device`; err == nil || err.Error() != want {
		t.Fatalf("append to a full disk: %v, want %s", err, want)
	}
	wantPeek(t, q, 10, 100, "a", "b")
	wantAck(t, q, 1)
	if _, ok := d.files[reserveName]; ok {
		t.Error("the reserve was not given up")
	}
	full = false
	q.SetLimit(8 * minSegment)
	wantAppend(t, q, 0, strings.Repeat("d", 10))
	q.writer.seal()
	wantAppend(t, q, 0, "e") // begins a segment
	if _, ok := d.files[reserveName]; !ok {
		t.Error("the reserve is not kept again")
	}
	q = mustOpen(t, d.killed(), 1<<20)
	wantPeek(t, q, 10, 100, "b", strings.Repeat("d", 10), "e")
}
