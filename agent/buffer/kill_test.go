package buffer

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"sockwatch/agent/plugin/plugintest/soak"
)

const (
	childQueue = "SOCKWATCH_TEST_CHILD_QUEUE"
	childNext  = "SOCKWATCH_TEST_CHILD_NEXT"
	killLimit  = 512 << 10 // segments of 64 KiB
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childQueue); dir != "" {
		fmt.Fprintln(os.Stderr, queueUntilKilled(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// A report of the child is one byte for its kind, and the number of a record.
const (
	appended = 'a' // Append has returned for the records up to this one
	acking   = 'i' // Ack is about to be called for the records up to this one
	acked    = 'k' // it has returned
)

// queueUntilKilled appends, peeks and acks and reports every step on stdout.
func queueUntilKilled(dir string) error {
	next, err := strconv.ParseUint(os.Getenv(childNext), 10, 32)
	if err != nil {
		return err
	}
	q, err := OpenDisk(dir, killLimit, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	report := func(what byte, record uint32) {
		os.Stdout.Write(binary.BigEndian.AppendUint32([]byte{what}, record))
	}
	errs := make(chan error)
	go func() {
		rng := rand.New(rand.NewPCG(next, 5))
		for id := uint32(next); ; {
			var block [][]byte
			for range 1 + rng.IntN(60) {
				block = append(block, numbered(rng, id, 400))
				id++
			}
			dropped, err := q.Append(block)
			if dropped > 0 || err != nil {
				errs <- fmt.Errorf("append: dropped %d, error %v", dropped, err)
			}
			report(appended, id-1)
			for q.Stats().Bytes > killLimit/4 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	go func() {
		rng := rand.New(rand.NewPCG(next, 6))
		for {
			records, err := q.Peek(rng.IntN(300), 1<<20)
			if err != nil {
				errs <- err
			}
			n := rng.IntN(len(records) + 1)
			if n > 0 {
				report(acking, id(records[n-1]))
			}
			if err := q.Ack(n); err != nil {
				errs <- err
			}
			if n > 0 {
				report(acked, id(records[n-1]))
			}
			time.Sleep(time.Duration(rng.IntN(1000)) * time.Microsecond)
		}
	}()
	return <-errs
}

// TestKilledAtRandomMoments kills a process that uses the queue, repeatedly: every record
// that was queued and not acked is there, in order, and no acked record
// comes back.
func TestKilledAtRandomMoments(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "q")
	rng := rand.New(rand.NewPCG(1, 7))
	kills := soak.Times(20)
	first, last := uint32(1), uint32(0) // records in the queue
	total, inAppend, inAck := 0, 0, 0
	for kill := range kills {
		_, r := childReports(t, rng, dir, last+1, nil)
		q, err := OpenDisk(dir, killLimit, discard())
		if err != nil {
			t.Fatalf("kill %d: %v", kill, err)
		}
		records, err := q.Peek(1<<30, 1<<30)
		if err != nil {
			t.Fatalf("kill %d: %v", kill, err)
		}
		first = max(first, r[acked]+1)
		acking, appended := max(r[acking], first-1), max(r[appended], last)
		begin, end := acking+1, acking // used if the queue is empty
		for i, record := range records {
			if end = id(record); i == 0 {
				begin = end
			} else if end != begin+uint32(i) {
				t.Fatalf("kill %d: record %d after %d", kill, end, id(records[i-1]))
			}
		}
		if begin < first || begin > acking+1 {
			t.Fatalf("kill %d: begins with %d, acked up to %d or %d", kill, begin, first-1, acking)
		}
		if end < appended {
			t.Fatalf("kill %d: ends with %d, queued up to %d", kill, end, appended)
		}
		if s := q.Stats(); s.Damaged != 0 || s.Records != len(records) {
			t.Fatalf("kill %d: %d records, stats %+v", kill, len(records), s)
		}
		total += int(end - last)
		if end > appended {
			inAppend++
		}
		if begin == acking+1 && acking >= first {
			inAck++
		}
		n := len(records) - rng.IntN(min(len(records), 200)+1) // the backlog stays under the limit
		must(t, q.Ack(n))
		must(t, q.Close())
		first, last = begin+uint32(n), end
	}
	t.Logf("%d kills, %d records, %d kills between write and return, %d between ack and return", kills, total, inAppend, inAck)
	if total < 10*kills {
		t.Errorf("only %d records queued", total)
	}
}

// childReports runs the child, kills it at a random moment, and returns the last
// record of every kind that it reported: before the end, and at all. The end is
// losePower, if that is not nil.
func childReports(t *testing.T, rng *rand.Rand, dir string, next uint32, losePower func()) (before, all map[byte]uint32) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childQueue+"="+dir, childNext+"="+strconv.Itoa(int(next)))
	if losePower == nil { // else its disk fails before it is killed
		cmd.Stderr = os.Stderr
	}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	first, ended := make(chan bool, 1), make(chan bool)
	var mu sync.Mutex
	all = map[byte]uint32{}
	go func() {
		defer close(ended)
		for r := bufio.NewReader(out); ; {
			var b [5]byte
			_, err := io.ReadFull(r, b[:])
			select {
			case first <- err == nil:
			default:
			}
			if err != nil {
				return
			}
			mu.Lock()
			all[b[0]] = binary.BigEndian.Uint32(b[1:])
			mu.Unlock()
		}
	}()
	if rng.IntN(5) > 0 { // else it is killed while it starts
		select {
		case ok := <-first:
			if !ok {
				t.Error("the child ended by itself")
			}
		case <-time.After(time.Minute):
			t.Error("the child does not begin")
		}
	}
	time.Sleep(time.Duration(rng.IntN(20_000)) * time.Microsecond)
	mu.Lock()
	before = maps.Clone(all)
	mu.Unlock()
	if losePower != nil {
		losePower()
	}
	must(t, cmd.Process.Kill())
	<-ended
	cmd.Wait() // killed, as intended
	return before, all
}
