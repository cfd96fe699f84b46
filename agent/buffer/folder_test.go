package buffer

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOpenDiskErrors: directories that cannot or must not be used as a queue.
func TestOpenDiskErrors(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, dir string)
		want string
	}{
		{"no parent", func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Dir(dir)))
		}, "mkdir DIR: no such file or directory"},
		{"a file", func(t *testing.T, dir string) {
			must(t, os.WriteFile(dir, nil, 0o600))
		}, "not a directory (a symbolic link is not followed)"},
		{"a symbolic link", func(t *testing.T, dir string) {
			must(t, os.Symlink(t.TempDir(), dir))
		}, "not a directory (a symbolic link is not followed)"},
		{"a symbolic link to nothing", func(t *testing.T, dir string) {
			must(t, os.Symlink("nowhere", dir))
		}, "not a directory (a symbolic link is not followed)"},
		{"a symbolic link for the acks", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.Symlink(filepath.Join(t.TempDir(), "victim"), filepath.Join(dir, acksName)))
		}, `"acks.v1" is not a regular file (a symbolic link is not followed)`},
		{"a symbolic link for the acks, inside", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.WriteFile(filepath.Join(dir, "victim"), nil, 0o600))
			must(t, os.Symlink("victim", filepath.Join(dir, acksName)))
		}, `"acks.v1" is not a regular file (a symbolic link is not followed)`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state", "q")
			must(t, os.Mkdir(filepath.Dir(dir), 0o700))
			tt.make(t, dir)
			_, err := OpenDisk(dir, 1<<20, discard())
			want := strings.ReplaceAll(fmt.Sprintf("queue %q: %s", "DIR", tt.want), "DIR", dir)
			if err == nil || err.Error() != want {
				t.Fatalf("error %v, want %s", err, want)
			}
		})
	}
}

// TestSecondInstanceIsRefused: a directory belongs to one queue at a time.
func TestSecondInstanceIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "q")
	q, err := OpenDisk(dir, 1<<20, discard())
	must(t, err)
	wantAppend(t, q, 0, "a")
	_, err = OpenDisk(dir, 1<<20, discard())
	if want := fmt.Sprintf("queue %q: in use by another sockwatch", dir); err == nil || err.Error() != want {
		t.Fatalf("second open: %v, want %s", err, want)
	}
	must(t, q.Close())
	q, err = OpenDisk(dir, 1<<20, discard())
	must(t, err)
	wantPeek(t, q, 10, 100, "a")
	must(t, q.Close())
	must(t, q.Close())
	_, err = q.Append([][]byte{[]byte("b")})
	if want := fmt.Sprintf("queue %q: append: file already closed", dir); err == nil || err.Error() != want {
		t.Fatalf("append after close: %v, want %s", err, want)
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "q")
	must(t, os.Mkdir(dir, 0o755))
	q, err := OpenDisk(dir, 1<<20, discard())
	must(t, err)
	wantAppend(t, q, 0, "a")
	modes := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		must(t, err)
		info, err := e.Info()
		must(t, err)
		modes[e.Name()] = info.Mode().String()
		return nil
	}))
	want := map[string]string{
		"q":                                    "drwx------",
		"acks.v1":                              "-rw-------",
		"reserve":                              "-rw-------",
		"0000000000000001-0000000000000000.v1": "-rw-------",
	}
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Errorf("modes (-want +got):\n%s", diff)
	}
	must(t, q.Close())
}

// TestForeignFilesAreLeftAlone: files that are not the queue's own stay, with one warning
// for all of them, and another for files of a newer version.
func TestForeignFilesAreLeftAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "q")
	q, err := OpenDisk(dir, 1<<20, discard())
	must(t, err)
	wantAppend(t, q, 0, "a", "b")
	must(t, q.Close())
	victim := filepath.Join(t.TempDir(), "victim")
	must(t, os.WriteFile(victim, []byte("victim"), 0o600))
	for _, name := range []string{"core", "x.v1", "0000000000000003-0000000000000002.v2", "acks.v2"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
	}
	must(t, os.Symlink(victim, filepath.Join(dir, "0000000000000002-0000000000000002.v1")))
	must(t, os.Mkdir(filepath.Join(dir, "0000000000000004-0000000000000002.v1"), 0o700))

	var log bytes.Buffer
	q, err = OpenDisk(dir, 1<<20, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "queue" {
				return slog.Attr{}
			}
			return a
		},
	})))
	must(t, err)
	wantAppend(t, q, 0, "c")
	wantPeek(t, q, 10, 100, "a", "b", "c")
	wantAck(t, q, 3)
	must(t, q.Close())
	want := `level=WARN msg="queue directory has files of another sockwatch version, ignoring them" files="[0000000000000003-0000000000000002.v2 acks.v2]"
level=WARN msg="queue directory has foreign files, ignoring them" files="[0000000000000002-0000000000000002.v1 0000000000000004-0000000000000002.v1 core x.v1]"
`
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	for _, name := range []string{"core", "x.v1", "0000000000000003-0000000000000002.v2", "acks.v2"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); string(b) != name {
			t.Errorf("%s is %q, %v", name, b, err)
		}
	}
	if b, err := os.ReadFile(victim); string(b) != "victim" {
		t.Errorf("what the symbolic link names is %q, %v", b, err)
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 8 { // those six, the acks and the reserve
		t.Errorf("left are %v", entries)
	}
}

// TestStaleSegmentHidesNothing: a removed segment that a power failure has brought back does
// not hide those that were written after it.
func TestStaleSegmentHidesNothing(t *testing.T) {
	s := makeSpool(t, 0)
	d := s.folder("", nil)
	stale := &segment{index: 2, first: 1 << 20}
	d.files[stale.name()] = d.files[s.names[1]]
	delete(d.files, s.names[1])
	got, stats, err := drainAll(d)
	must(t, err)
	if diff := cmp.Diff(s.ids(func(f *spoolFrame) bool { return f.name != s.names[1] }), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if stats.Damaged != 0 {
		t.Errorf("%d damaged", stats.Damaged)
	}
}

func TestBacklog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "q")
	q, err := OpenDisk(dir, 1<<20, discard())
	must(t, err)
	wantAppend(t, q, 0, "a", "b", "c")
	check := func(want int) {
		t.Helper()
		records, bytes, err := Backlog(dir)
		if err != nil || records != want || (bytes == 0) != (want == 0) {
			t.Errorf("Backlog = %d, %d, %v, want %d records", records, bytes, err, want)
		}
	}
	check(3)
	must(t, q.Close())
	check(3)
	q, err = OpenDisk(dir, 1<<20, discard())
	must(t, err)
	wantPeek(t, q, 2, 100, "a", "b")
	wantAck(t, q, 2)
	check(1)
	wantPeek(t, q, 2, 100, "c")
	wantAck(t, q, 1)
	check(0)
	must(t, q.Close())
	check(0)
	dir = t.TempDir()
	check(0)
	_, _, err = Backlog(dir + "/none")
	if want := fmt.Sprintf("queue %q: open %s/none: no such file or directory", dir+"/none", dir); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// TestStartReadsLittle: whatever the backlog, a start reads headers of at most
// the first and the last segment, and keeps no record in memory.
func TestStartReadsLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("queues 42,000 records")
	}
	t.Parallel()
	rng := rand.New(rand.NewPCG(13, 13))
	reads := map[int]int{}
	for _, blocks := range []int{100, 2000} {
		const limit = 64 << 20
		d, l := newFakeFolder(), newLedger()
		q := mustOpen(t, d, limit)
		for range blocks {
			must(t, l.append(q, l.block(rng, 20, 200)))
			if q.writer.seg != nil && q.writer.seg.size > 256<<10 {
				q.writer.seal() // more segments than the limit alone would make
			}
		}
		d = d.killed()
		q = mustOpen(t, d, limit)
		if got := q.Stats().Records; got != 20*blocks {
			t.Fatalf("%d records, want %d", got, 20*blocks)
		}
		if n := len(q.reader.chunks); n > 0 {
			t.Errorf("%d chunks in memory", n)
		}
		reads[blocks] = d.ops["read"]
		t.Logf("%d blocks in %d segments: %d operations, %d bytes read", blocks, len(q.catalog.segments), d.ops["read"], d.bytes)
		must(t, l.drain(q))
	}
	if reads[2000] > 2*reads[100]+400 {
		t.Errorf("reads at the start grow with the backlog: %v", reads)
	}
}
