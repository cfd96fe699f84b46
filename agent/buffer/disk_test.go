package buffer

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"sockwatch/agent/plugin/plugintest/soak"
)

// TestDiskAgainstModel runs random operations on a queue and checks each result, across
// restarts and at the limit.
func TestDiskAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(soak.Times(20)) {
		rng := rand.New(rand.NewPCG(seed, 2))
		d, l := newFakeFolder(), newLedger()
		limit := int64(40+rng.IntN(200)) << 10
		q := mustOpen(t, d, limit)
		step := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		for range 250 {
			switch op := rng.IntN(16); {
			case op < 7:
				step(l.append(q, l.block(rng, rng.IntN(60), 120)))
			case op < 11:
				d.before = meanwhile(rng, func() { step(l.append(q, l.block(rng, 60, 120))) })
				step(l.peek(q, rng.IntN(150), rng.IntN(30_000)))
				d.before = nil
			case op < 14:
				step(l.ack(q, rng.IntN(len(l.handed)+2)))
			case op < 15:
				limit = int64(40+rng.IntN(200)) << 10
				q.SetLimit(limit)
			default:
				if rng.IntN(2) == 0 {
					step(q.Close())
				}
				d = d.killed()
				q = mustOpen(t, d, limit)
				step(l.reopened(q))
			}
		}
		step(l.drain(q))
		if s := q.Stats(); s.Damaged != 0 || s.DamagedBytes != 0 {
			t.Fatalf("seed %d: damage without damage: %+v", seed, s)
		}
		step(q.Close())
		if n := len(d.files); n > 2 {
			t.Fatalf("seed %d: a drained queue leaves %d files", seed, n)
		}
	}
}

// meanwhile returns a function that calls do at one of its calls.
func meanwhile(rng *rand.Rand, do func()) func() {
	n := rng.IntN(20)
	return func() {
		if n--; n == 0 {
			do()
		}
	}
}

// TestNothingIsLostIfEverythingFailsNowAndThen makes some of all operations fail, and
// sometimes kills the process: no appended record is lost.
func TestNothingIsLostIfEverythingFailsNowAndThen(t *testing.T) {
	t.Parallel()
	errs := []error{syscall.ENOSPC, syscall.EIO, syscall.EROFS, syscall.EDQUOT}
	for seed := range uint64(soak.Times(20)) {
		rng := rand.New(rand.NewPCG(seed, 3))
		d, l := newFakeFolder(), newLedger()
		l.faulty = true
		limit := int64(60+rng.IntN(200)) << 10
		q := mustOpen(t, d, limit)
		faulty := func(d *fakeFolder) {
			rate := 2 + rng.IntN(30)
			d.written = func(n int) int { return rng.IntN(n + 1) }
			d.fault = func(op, name string) error {
				if op == "read" && rng.IntN(4) > 0 || rng.IntN(rate) > 0 {
					return nil
				}
				return errs[rng.IntN(len(errs))]
			}
		}
		step := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		for range 250 {
			switch op := rng.IntN(16); {
			case op < 7:
				step(l.append(q, l.block(rng, rng.IntN(60), 120)))
			case op < 11:
				d.fault, d.written = nil, nil // an unreadable page would count as damage
				step(l.peek(q, rng.IntN(150), rng.IntN(30_000)))
			case op < 13:
				step(l.ack(q, rng.IntN(len(l.handed)+2)))
			case op < 14:
				faulty(d)
			case op < 15:
				d.fault = nil
			default:
				d.fault = nil
				d = d.killed()
				q = mustOpen(t, d, limit)
				step(l.reopened(q))
			}
		}
		d.fault = nil
		step(l.drain(q))
		if s := q.Stats(); s.Damaged != 0 {
			t.Fatalf("seed %d: %d damaged", seed, s.Damaged)
		}
	}
}

// TestQueuedRecordsSurviveLossesOfPower: appended records survive a
// power failure that keeps any part of the data not yet synced, even if syncs fail.
func TestQueuedRecordsSurviveLossesOfPower(t *testing.T) {
	t.Parallel()
	losses := 0
	for seed := range uint64(soak.Times(20)) {
		rng := rand.New(rand.NewPCG(seed, 4))
		d, l := newFakeFolder(), newLedger()
		const limit = 256 << 10 // never reached, but the segments are small
		q := mustOpen(t, d, limit)
		faulty := func() {
			if seed%2 == 0 {
				return
			}
			d.fault = func(op, name string) error {
				if (op == "sync" || op == "syncdir" || op == "truncate") && rng.IntN(6) == 0 {
					return syscall.EIO
				}
				return nil
			}
		}
		step := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		for range 60 {
			switch op := rng.IntN(10); {
			case op < 5:
				step(l.append(q, l.block(rng, rng.IntN(60), 120)))
			case op < 7:
				step(l.peek(q, rng.IntN(150), rng.IntN(30_000)))
			case op < 9:
				step(l.ack(q, rng.IntN(len(l.handed)+2)))
			default:
				d = d.powerLost(rng)
				losses++
				l.repeats = true
				q = mustOpen(t, d, limit)
				step(l.reopened(q))
				faulty()
			}
		}
		if l.absent != 0 {
			t.Fatalf("seed %d: %d dropped or damaged", seed, l.absent)
		}
		step(l.drain(q))
	}
	t.Logf("%d losses of power", losses)
}

// TestNothingIsLostAfterForeignChanges: something removes, moves, truncates and replaces
// files and the directory of an open queue. Their records may be lost, and are then
// counted; records appended later are queued without an error and arrive.
func TestNothingIsLostAfterForeignChanges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(soak.Times(50)) {
		rng := rand.New(rand.NewPCG(seed, 11))
		d, l := newFakeFolder(), newLedger()
		const limit = 1 << 20 // never reached, but the segments are small
		q := mustOpen(t, d, limit)
		step := func(what string, err error) {
			t.Helper()
			if err == nil {
				err = l.failed
			}
			if err != nil {
				t.Fatalf("seed %d: %s: %v", seed, what, err)
			}
		}
		for range 150 {
			switch op := rng.IntN(20); {
			case op < 8:
				step("append", l.append(q, l.block(rng, 1+rng.IntN(60), 120)))
			case op < 12:
				step("peek", l.peek(q, rng.IntN(150), rng.IntN(30_000)))
			case op < 16:
				step("ack", l.ack(q, rng.IntN(len(l.handed)+2)))
			case op < 19:
				interfere(d, rng)
				l.interfered()
			default:
				d = d.killed()
				if f := d.files[acksName]; f != nil && f.special { // is refused
					delete(d.files, acksName)
				}
				q = mustOpen(t, d, limit)
				step("reopen", l.reopenedAfterInterference(q))
			}
		}
		step("drain", l.drain(q))
		step("append", l.append(q, l.block(rng, 60, 120)))
		step("drain", l.drain(q))
	}
}

// interfere changes a file of a queue, or its directory.
func interfere(d *fakeFolder, rng *rand.Rand) {
	switch rng.IntN(12) {
	case 0:
		d.replaceDirectory(true)
		return
	case 1:
		d.replaceDirectory(false)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	files := d.files
	if d.atPath != nil {
		files = d.atPath
	}
	names := slices.Sorted(maps.Keys(files))
	if len(names) == 0 {
		return
	}
	name := names[rng.IntN(len(names))]
	f := files[name]
	switch rng.IntN(5) {
	case 0: // removed
		delete(files, name)
	case 1: // moved
		delete(files, name)
		files["moved"] = f
	case 2: // truncated
		f.data = f.data[:rng.IntN(len(f.data)+1)]
	case 3: // replaced by another file
		other := files[names[rng.IntN(len(names))]]
		files[name] = &fakeFile{special: other.special, data: slices.Clone(other.data)}
	case 4: // replaced by a FIFO or a link
		files[name] = &fakeFile{special: true}
	}
}

// TestSegmentThatComesBack: a segment that the reader has given up as missing, before
// a block or while it is written, does not get that block, even if its file is back.
func TestSegmentThatComesBack(t *testing.T) {
	for _, meanwhile := range []bool{false, true} {
		d := newFakeFolder()
		q := mustOpen(t, d, 1<<20)
		wantAppend(t, q, 0, "a")
		giveUp := func() {
			d.before = nil
			moved := d.files[segment1]
			delete(d.files, segment1)
			wantPeek(t, q, 10, 100)
			d.files[segment1] = moved
		}
		if meanwhile {
			d.before = giveUp
		} else {
			giveUp()
		}
		wantAppend(t, q, 0, "b")
		wantPeek(t, q, 10, 100, "b")
		wantStats(t, q, Stats{Records: 1, Bytes: q.Stats().Bytes, Damaged: 1})
	}
}

// TestPositionIsKeptInARecreatedFile: an ack is saved where the next process
// finds it, whatever happened to the file.
func TestPositionIsKeptInARecreatedFile(t *testing.T) {
	for _, replacement := range []*fakeFile{nil, {special: true}, {data: []byte("garbage")}} {
		d := newFakeFolder()
		q := mustOpen(t, d, 1<<20)
		wantAppend(t, q, 0, "a", "b", "c")
		if delete(d.files, acksName); replacement != nil {
			d.files[acksName] = replacement
		}
		wantPeek(t, q, 2, 100, "a", "b")
		wantAck(t, q, 2)
		wantPeek(t, mustOpen(t, d.killed(), 1<<20), 10, 100, "c")
	}
}

// TestReserveIsRecreated with the next segment, whatever happened to it.
func TestReserveIsRecreated(t *testing.T) {
	for _, replacement := range []*fakeFile{nil, {special: true}, {data: []byte("truncated")}} {
		d := newFakeFolder()
		q := mustOpen(t, d, 1<<20)
		if delete(d.files, reserveName); replacement != nil {
			d.files[reserveName] = replacement
		}
		wantAppend(t, q, 0, "a")
		if f := d.files[reserveName]; f == nil || len(f.data) != reserveSize {
			t.Errorf("%+v: the reserve is %+v", replacement, f)
		}
	}
}

// TestStatsNeverWaitForTheDisk: neither Stats nor SetLimit waits, whichever operation hangs.
func TestStatsNeverWaitForTheDisk(t *testing.T) {
	for _, hangs := range []string{"create", "write", "sync", "syncdir", "open", "read", "remove"} {
		d := newFakeFolder()
		q := mustOpen(t, d, smallLimit)
		appendAll(t, q, 1, 2, 3)
		hanging, resume := make(chan struct{}), make(chan struct{})
		var once sync.Once
		d.fault = func(op, _ string) error {
			if op == hangs {
				once.Do(func() {
					close(hanging)
					<-resume
				})
			}
			return nil
		}
		var wg sync.WaitGroup
		wg.Go(func() { appendAll(t, q, 4, 5, 6) })
		wg.Go(func() {
			for range 4 {
				if _, err := q.Peek(1, 1<<20); err != nil {
					t.Error(err)
				}
				if err := q.Ack(1); err != nil {
					t.Error(err)
				}
			}
		})
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			<-hanging
			q.SetLimit(smallLimit)
			q.Stats()
		}()
		select {
		case <-answered:
		case <-time.After(time.Minute):
			t.Errorf("%s: Stats wait", hangs)
		}
		close(resume)
		wg.Wait()
	}
}

// TestTemporaryReadErrors: as long as only a few reads fail in a row,
// nothing is damaged, however often that happens.
func TestTemporaryReadErrors(t *testing.T) {
	t.Parallel()
	for seed := range uint64(soak.Times(8)) {
		rng := rand.New(rand.NewPCG(seed, 12))
		d, l := newFakeFolder(), newLedger()
		q := mustOpen(t, d, 8<<20)
		for range 150 {
			must(t, l.append(q, l.block(rng, 60, 120)))
		}
		d = d.killed()
		q = mustOpen(t, d, 8<<20)
		must(t, l.reopened(q))
		row, failed := 0, 0
		d.fault = func(op, _ string) error {
			if op != "read" || row == readTries-2 || rng.IntN(3) == 0 {
				row = 0
				return nil
			}
			row++
			failed++
			return syscall.EIO
		}
		for q.Stats().Records > 0 {
			if err := l.peek(q, 20, 1<<20); errors.Is(err, syscall.EIO) {
				continue
			} else if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			must(t, l.ack(q, len(l.handed)))
		}
		must(t, l.drain(q))
		if s := q.Stats(); s.Damaged != 0 || s.DamagedBytes != 0 {
			t.Fatalf("seed %d: %d reads failed: %+v", seed, failed, s)
		}
		if failed < 10*readTries {
			t.Errorf("seed %d: only %d reads failed", seed, failed)
		}
	}
}

func TestDrainsWhileAppending(t *testing.T) {
	if testing.Short() {
		t.Skip("appends 12,000 records")
	}
	q, err := OpenDisk(t.TempDir()+"/q", 1<<30, discard())
	must(t, err)
	drainWhileAppending(t, q, 300, 40)
	must(t, q.Close())
}

func TestDiskOldest(t *testing.T) {
	d := newFakeFolder()
	q := mustOpen(t, d, 1<<20)
	before := time.Now()
	wantAppend(t, q, 0, "a")
	between := time.Now()
	wantAppend(t, q, 0, "b")
	for range 2 {
		if got := q.Stats().Oldest; got.Before(before) || got.After(between) {
			t.Errorf("oldest %v, want between %v and %v", got, before, between)
		}
		q = mustOpen(t, d.killed(), 1<<20)
	}
	wantPeek(t, q, 1, 100, "a")
	wantAck(t, q, 1)
	if got := q.Stats().Oldest; got.Before(between) {
		t.Errorf("oldest %v after the first is gone, want after %v", got, between)
	}
	wantPeek(t, q, 1, 100, "b")
	wantAck(t, q, 1)
	if got := q.Stats().Oldest; !got.IsZero() {
		t.Errorf("oldest %v of an empty queue", got)
	}
}

// TestDiskBytes: the bytes queued are those of the blocks that have records
// left, before and after a restart.
func TestDiskBytes(t *testing.T) {
	d := newFakeFolder()
	q := mustOpen(t, d, 1<<20)
	var sizes []int64
	for _, block := range [][]string{{"a", "b"}, {"cccc"}, {"d"}} {
		before := q.Stats().Bytes
		wantAppend(t, q, 0, block...)
		sizes = append(sizes, q.Stats().Bytes-before)
	}
	if total := int64(len(d.files[segment1].data)); sizes[0]+sizes[1]+sizes[2] != total {
		t.Errorf("blocks of %d bytes in a segment of %d", sizes, total)
	}
	want := sizes[0] + sizes[1] + sizes[2]
	for _, gone := range []int64{0, sizes[0], sizes[1], sizes[2]} { // "a", the first block, the second, the third
		if _, err := q.Peek(1, 100); err != nil {
			t.Fatal(err)
		}
		wantAck(t, q, 1)
		want -= gone
		if got := q.Stats().Bytes; got != want {
			t.Errorf("%d bytes, want %d", got, want)
		}
		if got := mustOpen(t, d.killed(), 1<<20).Stats().Bytes; got != want {
			t.Errorf("%d bytes after a restart, want %d", got, want)
		}
	}
}
