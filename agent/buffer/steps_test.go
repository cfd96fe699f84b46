package buffer

import (
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// failOnce makes the next operation of a kind on a name fail.
func failOnce(d *fakeFolder, op, name string, err error) {
	d.fault = func(o, n string) error {
		if o == op && (n == name || name == "") {
			d.fault = nil
			return err
		}
		return nil
	}
}

// record makes the folder record its operations.
func record(d *fakeFolder) *[]string {
	ops := new([]string)
	d.fault = func(op, name string) error {
		if op != "read" && op != "open" {
			*ops = append(*ops, op+" "+name)
		}
		return nil
	}
	return ops
}

const (
	segment1 = "0000000000000001-0000000000000000.v1"
	segment2 = "0000000000000002-0000000000000001.v1"
)

// TestSteps: the operations on the file system, in order.
func TestSteps(t *testing.T) {
	d := newFakeFolder()
	ops := record(d)
	want := func(what string, steps ...string) {
		t.Helper()
		if diff := cmp.Diff(steps, *ops); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		*ops = nil
	}
	q := mustOpen(t, d, smallLimit)
	want("open", "list .", "edit acks.v1", "create acks.v1", "write acks.v1", "sync acks.v1", "syncdir .",
		"create reserve", "write reserve", "sync reserve")
	wantAppend(t, q, 0, "a")
	want("first append", "create "+segment1, "write "+segment1, "sync "+segment1, "syncdir .")
	wantAppend(t, q, 0, "b")
	want("append", "write "+segment1, "sync "+segment1)
	appendAll(t, q, 7, 8) // the second needs a segment of its own
	*ops = nil
	wantPeek(t, q, 1, 100, "a")
	wantAck(t, q, 1)
	want("ack", "write acks.v1")
	q.Peek(2, 1<<20)
	wantAck(t, q, 2)
	want("ack of the rest of a segment", "write acks.v1", "sync acks.v1", "remove "+segment1)
	must(t, q.Close())
	want("close", "sync acks.v1")
}

// TestFailedWriteIsCutBack: after a write that failed half way the segment
// ends with a whole frame, and is continued there.
func TestFailedWriteIsCutBack(t *testing.T) {
	d := newFakeFolder()
	q := mustOpen(t, d, 1<<20)
	wantAppend(t, q, 0, "a")
	size := len(d.files[segment1].data)
	d.written = func(n int) int { return n / 2 }
	failOnce(d, "write", segment1, syscall.ENOSPC)
	_, err := q.Append([][]byte{[]byte("b")})
	if want := `queue "fake": append: write ` + segment1 + `: no space left on device`; err == nil || err.Error() != want {
		t.Fatalf("error %v, want %s", err, want)
	}
	if got := len(d.files[segment1].data); got != size {
		t.Errorf("the segment has %d bytes, want %d", got, size)
	}
	wantAppend(t, q, 0, "c")
	wantPeek(t, q, 10, 100, "a", "c")
	wantPeek(t, mustOpen(t, d.killed(), 1<<20), 10, 100, "a", "c")
}

// TestFullDiskGetsTheDeliveredSegmentBack: on a full disk the active segment is removed before
// the block is written, if none of it is queued and its acks are saved.
func TestFullDiskGetsTheDeliveredSegmentBack(t *testing.T) {
	d := newFakeFolder()
	q := mustOpen(t, d, 1<<20)
	wantAppend(t, q, 0, "a")
	wantPeek(t, q, 10, 100, "a")
	wantAck(t, q, 1)
	d.written = func(n int) int { return n / 2 }
	ops := record(d)
	note := d.fault
	d.fault = func(op, name string) error {
		note(op, name)
		if op == "write" && name == segment1 {
			return syscall.ENOSPC
		}
		return nil
	}
	wantAppend(t, q, 0, "b")
	want := []string{
		"write " + segment1, "truncate " + segment1,
		"sync acks.v1", "remove " + segment1,
		"create " + segment2, "write " + segment2, "sync " + segment2, "syncdir .",
	}
	if diff := cmp.Diff(want, *ops); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wantPeek(t, q, 10, 100, "b")
	wantPeek(t, mustOpen(t, d.killed(), 1<<20), 10, 100, "b")

	d.fault = func(op, _ string) error {
		if op == "write" {
			return syscall.ENOSPC
		}
		return nil
	}
	_, err := q.Append([][]byte{[]byte("c")})
	if want := `queue "fake": append: write ` + segment2 + `: no space left on device`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	wantPeek(t, q, 10, 100, "b")
}

// TestFailedSyncBeginsAnotherSegment: a segment whose sync failed is not written any more; the
// block goes to another one.
func TestFailedSyncBeginsAnotherSegment(t *testing.T) {
	d := newFakeFolder()
	q := mustOpen(t, d, 1<<20)
	wantAppend(t, q, 0, "a")
	size := len(d.files[segment1].data)
	failOnce(d, "sync", segment1, syscall.EIO)
	wantAppend(t, q, 0, "b")
	wantAppend(t, q, 0, "c")
	if got := len(d.files[segment1].data); got != size {
		t.Errorf("the segment has %d bytes, want %d", got, size)
	}
	if d.files[segment2] == nil {
		t.Errorf("no %s", segment2)
	}
	wantPeek(t, q, 10, 100, "a", "b", "c")
	wantPeek(t, mustOpen(t, d.killed(), 1<<20), 10, 100, "a", "b", "c")

	failing := 2
	d.fault = func(op, _ string) error {
		if op == "sync" && failing > 0 {
			failing--
			return syscall.EIO
		}
		return nil
	}
	_, err := q.Append([][]byte{[]byte("d")})
	if want := `queue "fake": append: sync 0000000000000003-0000000000000003.v1: input/output error`; err == nil || err.Error() != want {
		t.Fatalf("error %v, want %s", err, want)
	}
	wantAppend(t, q, 0, "e")
	wantPeek(t, q, 10, 100, "a", "b", "c", "e")
}

// TestBlockOfAFailedSyncIsNotHandedOutTwice: a block that is on disk although its sync failed
// is not returned a second time, not even after damage.
func TestBlockOfAFailedSyncIsNotHandedOutTwice(t *testing.T) {
	d := newFakeFolder()
	q := mustOpen(t, d, 1<<20)
	wantAppend(t, q, 0, "a")
	wantAppend(t, q, 0, "b")
	size := len(d.files[segment1].data)
	d.fault = func(op, name string) error {
		if (op == "sync" || op == "truncate") && name == segment1 {
			return syscall.EIO
		}
		return nil
	}
	wantAppend(t, q, 0, "c")
	if got := len(d.files[segment1].data); got <= size {
		t.Fatalf("the segment has %d bytes, want more than %d", got, size)
	}
	d.files[segment1].data[size-1] ^= 1
	q = mustOpen(t, d.killed(), 1<<20)
	wantPeek(t, q, 10, 100, "a", "c")
	wantAck(t, q, 2)
	if s := q.Stats(); s.Records != 0 || s.Damaged != 1 {
		t.Errorf("stats %+v", s)
	}
}

// TestTornAckLeavesTheOneBefore: if an ack is torn, the previous one counts.
func TestTornAckLeavesTheOneBefore(t *testing.T) {
	for acked := 1; acked < 5; acked++ {
		d := newFakeFolder()
		q := mustOpen(t, d, 1<<20)
		wantAppend(t, q, 0, "a", "b", "c", "d", "e", "f")
		for range acked {
			if _, err := q.Peek(1, 100); err != nil {
				t.Fatal(err)
			}
			wantAck(t, q, 1)
		}
		rest := []string{"a", "b", "c", "d", "e", "f"}[acked:]
		wantPeek(t, q, 1, 100, rest[0])
		d.written = func(n int) int { return n - 1 }
		failOnce(d, "write", acksName, syscall.EIO)
		err := q.Ack(1)
		if want := `queue "fake": ack: write acks.v1: input/output error`; err == nil || err.Error() != want {
			t.Fatalf("error %v, want %s", err, want)
		}
		wantPeek(t, q, 10, 100, rest[1:]...) // it is not sent again in this run
		wantPeek(t, mustOpen(t, d.killed(), 1<<20), 10, 100, rest...)
		wantAck(t, q, 0) // saves it after all
		wantPeek(t, mustOpen(t, d.killed(), 1<<20), 10, 100, rest[1:]...)
	}
}

// TestNoSegmentGoesBeforeItsAckIsDurable: no segment is removed while the position is not
// durable, and the slot that may not be on disk is written again.
func TestNoSegmentGoesBeforeItsAckIsDurable(t *testing.T) {
	d := newFakeFolder()
	q := mustOpen(t, d, smallLimit)
	appendAll(t, q, 1, 2, 3)
	wantIDs(t, q, 1, 1)
	must(t, q.Ack(1))
	good := slices.Clone(d.files[acksName].data)
	wantIDs(t, q, 1, 2)
	failOnce(d, "sync", acksName, syscall.EIO)
	err := q.Ack(1)
	if want := `queue "fake": ack: sync acks.v1: input/output error`; err == nil || err.Error() != want {
		t.Fatalf("error %v, want %s", err, want)
	}
	if d.files[segment2] == nil {
		t.Error("the segment is gone before its ack is durable")
	}
	ops := record(d)
	must(t, q.Ack(0))
	if diff := cmp.Diff([]string{"write acks.v1", "sync acks.v1", "remove " + segment2}, *ops); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	now := d.files[acksName].data
	if same := slices.Equal(now[:slotSize], good[:slotSize]) || slices.Equal(now[slotPage:], good[slotPage:]); !same {
		t.Error("both slots were overwritten while none was known to be durable")
	}
	wantIDs(t, q, 5, 3)
}

// TestNewRecordsComeAfterThePositionAcked: new records come after the acked position even
// if the records before it are lost.
func TestNewRecordsComeAfterThePositionAcked(t *testing.T) {
	d := newFakeFolder()
	q := mustOpen(t, d, 1<<20)
	wantAppend(t, q, 0, "a", "b", "c")
	wantPeek(t, q, 2, 100, "a", "b")
	wantAck(t, q, 2)
	d.files[segment1].data = d.files[segment1].data[:10]
	q = mustOpen(t, d.killed(), 1<<20)
	wantAppend(t, q, 0, "d")
	wantPeek(t, q, 10, 100, "d")
	q = mustOpen(t, d.killed(), 1<<20)
	wantPeek(t, q, 10, 100, "d")
}

// TestPositionPassesDamage: a damaged segment is passed only once, and its sequence
// numbers are not used again.
func TestPositionPassesDamage(t *testing.T) {
	d := newFakeFolder()
	q := mustOpen(t, d, 1<<20)
	wantAppend(t, q, 0, "a", "b", "c")
	d.files[segment1].data[headerSize] ^= 1
	q = mustOpen(t, d.killed(), 1<<20)
	wantPeek(t, q, 10, 100)
	wantStats(t, q, Stats{Damaged: 3, DamagedBytes: int64(len(d.files[segment1].data))})
	must(t, q.Close())
	if d.files[segment1] != nil {
		t.Error("the damaged segment is still there")
	}
	q = mustOpen(t, d.killed(), 1<<20)
	wantStats(t, q, Stats{})
	if q.writer.next != 3 {
		t.Errorf("goes on with %d, want 3", q.writer.next)
	}
}
