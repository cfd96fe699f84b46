package buffer

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/influxdata/line-protocol/v2/lineprotocol"
)

// batch encodes n points of tcp_listen into records, as an output does.
func batch(b testing.TB, e *lineprotocol.Encoder, arena []byte, records [][]byte, n int, at time.Time) ([]byte, [][]byte) {
	records = records[:0]
	for i := range n {
		e.Reset()
		e.StartLine("tcp_listen")
		e.AddTag("address", "0.0.0.0")
		e.AddTag("exposure", "private")
		e.AddTag("family", "ipv4")
		e.AddTag("host", "web-17.example.org")
		e.AddTag("port", strconv.Itoa(1024+i))
		e.AddTag("process", "worker-"+strconv.Itoa(i%50))
		e.AddTag("unit", "worker.service")
		e.AddTag("user", "www-data")
		e.AddField("backlog", lineprotocol.IntValue(int64(i%7)))
		e.AddField("backlog_limit", lineprotocol.IntValue(4096))
		e.AddField("pid", lineprotocol.IntValue(int64(1000+i)))
		e.AddField("start_time_seconds", lineprotocol.MustNewValue(1763800000.25+float64(i)))
		e.EndLine(at)
		if err := e.Err(); err != nil {
			b.Fatal(err)
		}
		start := len(arena)
		arena = append(arena, e.Bytes()...)
		records = append(records, arena[start:len(arena):len(arena)])
	}
	return arena, records
}

// BenchmarkAppend1000 compares the CPU of queueing 1,000 points on disk with that of
// encoding them, and counts the syncs.
func BenchmarkAppend1000(b *testing.B) {
	d, err := makeFolder(b.TempDir())
	must(b, err)
	counted := &countingFolder{folder: d}
	q, err := newDisk(counted, "bench", 64<<20, discard())
	must(b, err)
	var e lineprotocol.Encoder
	e.SetPrecision(lineprotocol.Nanosecond)
	var arena []byte
	var records [][]byte
	var encode, queue time.Duration
	counted.syncs, counted.bytes = 0, 0
	now := time.Now()
	for b.Loop() {
		now = now.Add(10 * time.Second)
		t0 := cpuTime(b)
		arena, records = batch(b, &e, arena[:0], records, 1000, now)
		t1 := cpuTime(b)
		_, err := q.Append(records)
		must(b, err)
		encode += t1 - t0
		queue += cpuTime(b) - t1
	}
	b.ReportMetric(float64(encode.Microseconds())/float64(b.N), "encode-µs")
	b.ReportMetric(float64(queue.Microseconds())/float64(b.N), "queue-µs")
	b.ReportMetric(float64(queue)/float64(encode), "queue/encode")
	b.ReportMetric(float64(counted.syncs)/float64(b.N), "fsyncs/op")
	b.ReportMetric(float64(len(arena)), "bytes")
	b.ReportMetric(float64(counted.bytes)/float64(b.N), "bytes-on-disk")
	must(b, q.Close())
}

// BenchmarkCatchUp peeks and acks a backlog of blocks of 1,000 points.
func BenchmarkCatchUp(b *testing.B) {
	d, err := makeFolder(b.TempDir())
	must(b, err)
	q, err := newDisk(d, "bench", 1<<30, discard())
	must(b, err)
	var e lineprotocol.Encoder
	e.SetPrecision(lineprotocol.Nanosecond)
	arena, records := batch(b, &e, nil, nil, 1000, time.Now())
	fill := func() {
		for range 100 {
			_, err := q.Append(records)
			must(b, err)
		}
	}
	b.SetBytes(int64(len(arena)))
	for b.Loop() { // an operation is a block
		if q.Stats().Records == 0 {
			b.StopTimer()
			fill()
			b.StartTimer()
		}
		records, err := q.Peek(1000, 1<<20)
		must(b, err)
		must(b, q.Ack(len(records)))
	}
	must(b, q.Close())
}

// BenchmarkOpen starts on backlogs of up to 1 GiB of records that do not
// compress.
func BenchmarkOpen(b *testing.B) {
	for _, size := range []int64{1 << 20, 64 << 20, 1 << 30} {
		b.Run(fmt.Sprintf("%dMiB", size>>20), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "q")
			limit := size + size/4 + 1<<20
			q, err := OpenDisk(dir, limit, discard())
			must(b, err)
			rng := rand.New(rand.NewPCG(1, 1))
			for id := uint32(0); q.Stats().Bytes < size; {
				var block [][]byte
				for range 1000 {
					block = append(block, numbered(rng, id, 400))
					id++
				}
				_, err := q.Append(block)
				must(b, err)
			}
			must(b, q.Close())
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for b.Loop() {
				q, err := OpenDisk(dir, limit, discard())
				must(b, err)
				must(b, q.Close())
			}
			q, err = OpenDisk(dir, limit, discard())
			must(b, err)
			runtime.GC()
			runtime.ReadMemStats(&after)
			must(b, q.Close())
			b.ReportMetric(float64(after.HeapAlloc-min(before.HeapAlloc, after.HeapAlloc))/1024, "heap-KiB")
			entries, err := os.ReadDir(dir)
			must(b, err)
			b.ReportMetric(float64(len(entries)), "files")
		})
	}
}

// cpuTime returns the CPU that the process has used.
func cpuTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	must(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A countingFolder counts the syncs of files and the bytes written to them.
type countingFolder struct {
	folder
	syncs int
	bytes int64
}

type countingFile struct {
	file
	d *countingFolder
}

func (d *countingFolder) create(name string) (file, error) {
	f, err := d.folder.create(name)
	if err != nil {
		return nil, err
	}
	return &countingFile{f, d}, nil
}

func (d *countingFolder) names(name string, f file) bool {
	return d.folder.names(name, f.(*countingFile).file)
}

func (d *countingFolder) sync() error {
	d.syncs++
	return d.folder.sync()
}

func (f *countingFile) Sync() error {
	f.d.syncs++
	return f.file.Sync()
}

func (f *countingFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.bytes += int64(len(b))
	return f.file.WriteAt(b, off)
}
