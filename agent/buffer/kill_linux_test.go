package buffer

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"sockwatch/agent/plugin/plugintest/soak"
)

// TestPowerLostAtRandomMoments cuts the power of the disk under a process that uses
// the queue, repeatedly: every record that was queued and not acked is there, in order.
// Acks may be undone, and a block that was being
// written may be torn, which counts as damage.
func TestPowerLostAtRandomMoments(t *testing.T) {
	if testing.Short() {
		t.Skip("formats a disk, and stops it many times")
	}
	disk := newPowerDisk(t)
	dir := filepath.Join(disk.dir, "q")
	rng := rand.New(rand.NewPCG(1, 8))
	losses := soak.Times(4)
	first, last := uint32(1), uint32(0) // records that are queued for certain
	total, undone, torn := 0, 0, 0
	for loss := range losses {
		// While ext4 shuts down it may report a sync that it has not done.
		before, r := childReports(t, rng, dir, last+1, func() { disk.stop(t) })
		disk.restart(t)
		q, err := OpenDisk(dir, killLimit, discard())
		if err != nil {
			t.Fatalf("loss %d: %v", loss, err)
		}
		records, err := q.Peek(1<<30, 1<<30)
		if err != nil {
			t.Fatalf("loss %d: %v", loss, err)
		}
		acking, appended := r[acking], max(before[appended], last)
		begin, end := max(first, acking+1), max(acking, last) // used if the queue is empty
		for i, record := range records {
			if end = id(record); i == 0 {
				begin = end
			} else if end != id(records[i-1])+1 {
				t.Fatalf("loss %d: record %d after %d", loss, end, id(records[i-1]))
			}
		}
		if begin > max(first, acking+1) {
			t.Fatalf("loss %d: begins with %d, acked up to %d", loss, begin, max(first-1, acking))
		}
		if end < appended {
			t.Fatalf("loss %d: ends with %d, queued up to %d", loss, end, appended)
		}
		s := q.Stats()
		if s.Records != len(records) {
			t.Fatalf("loss %d: %d records, stats %+v", loss, len(records), s)
		}
		if s.Damaged > 0 {
			torn++
		}
		if begin < r[acked]+1 {
			undone++
		}
		total += int(end - last)
		n := len(records) - rng.IntN(min(len(records), 200)+1) // the backlog stays under the limit
		must(t, q.Ack(n))
		must(t, q.Close())
		first, last = begin+uint32(n), end
	}
	t.Logf("%d losses of power, %d records, %d times acks undone, %d times a torn block", losses, total, undone, torn)
	if total < 10*losses {
		t.Errorf("only %d records queued", total)
	}
}
