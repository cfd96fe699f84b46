package buffer

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDiskTakesAcksAndGoesOn fills a small file system before the limit is reached:
// appends fail, queued records can be acked, which frees space, and appends work again.
func TestFullDiskTakesAcksAndGoesOn(t *testing.T) {
	mount := t.TempDir()
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(mount, unix.MNT_DETACH)) })
	dir := filepath.Join(mount, "q")
	const limit = 2 << 20 // segments of 256 KiB
	rng, l := rand.New(rand.NewPCG(8, 8)), newLedger()
	q, err := OpenDisk(dir, limit, discard())
	must(t, err)
	for round := range 4 {
		refused := 0
		for refused < 3 {
			before := len(l.ghosts)
			must(t, l.append(q, l.block(rng, 40, 400)))
			if len(l.ghosts) > before {
				refused++
			}
		}
		if l.absent != 0 {
			t.Fatalf("round %d: %d dropped below the limit", round, l.absent)
		}
		if round == 2 { // a restart on the full disk
			must(t, q.Close())
			q, err = OpenDisk(dir, limit, discard())
			must(t, err)
			must(t, l.reopened(q))
		}
		begins, ends := fmt.Sprintf("queue %q: append: ", dir), ": no space left on device"
		if err := l.failed.Error(); !strings.HasPrefix(err, begins) || !strings.HasSuffix(err, ends) {
			t.Fatalf("append to a full disk: %s, want %s...%s", err, begins, ends)
		}
		queued := q.Stats().Records
		for q.Stats().Records > queued/3 {
			must(t, l.peek(q, 500, 1<<20))
			must(t, l.ack(q, len(l.handed)))
		}
	}
	must(t, l.drain(q))
	must(t, q.Close())
}

// TestEmptyQueueGoesOnWhileOthersFillTheDisk: the space of delivered records is reused,
// even if others have filled the disk.
func TestEmptyQueueGoesOnWhileOthersFillTheDisk(t *testing.T) {
	mount := t.TempDir()
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(mount, unix.MNT_DETACH)) })
	rng, l := rand.New(rand.NewPCG(8, 8)), newLedger()
	q, err := OpenDisk(filepath.Join(mount, "q"), 64<<20, discard()) // one segment for all
	must(t, err)
	for range 5 {
		must(t, l.append(q, l.block(rng, 100, 400)))
		must(t, l.peek(q, 1000, 1<<20))
		must(t, l.ack(q, len(l.handed)))
	}
	filler, err := os.Create(filepath.Join(mount, "filler"))
	must(t, err)
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	for range 50 {
		must(t, l.append(q, l.block(rng, 100, 400)))
		must(t, l.failed)
		must(t, l.peek(q, 1000, 1<<20))
		must(t, l.ack(q, len(l.handed)))
	}
	must(t, l.drain(q))
	must(t, q.Close())
}

// TestOpenDiskInADirectoryThatIsNotWritable returns the reason.
func TestOpenDiskInADirectoryThatIsNotWritable(t *testing.T) {
	parent := t.TempDir()
	must(t, os.Chmod(filepath.Dir(parent), 0o755))
	must(t, os.Chmod(parent, 0o555))
	dir := filepath.Join(parent, "q")
	err := asNobody(t, func() error {
		_, err := OpenDisk(dir, 1<<20, discard())
		return err
	})
	if want := fmt.Sprintf("queue %q: mkdir %s: permission denied", dir, dir); err == nil || err.Error() != want {
		t.Fatalf("error %v, want %s", err, want)
	}
}
