package file

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/agent/plugin"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestLogrotateLosesNoLine does what logrotate and similar programs do to a file. No signal
// is sent, and a reload with equal options keeps the instance.
func TestLogrotateLosesNoLine(t *testing.T) {
	for _, tt := range []struct {
		name   string
		rotate func(t *testing.T, path string)
		want   map[string]string
	}{
		{"rename", func(t *testing.T, path string) { must(t, os.Rename(path, path+".1")) },
			map[string]string{"log.1": "one\n", "log": "two\n"}},
		{"rename and create", func(t *testing.T, path string) {
			must(t, os.Rename(path, path+".1"))
			must(t, os.WriteFile(path, nil, 0o600))
		}, map[string]string{"log.1": "one\n", "log": "two\n"}},
		{"remove", func(t *testing.T, path string) { must(t, os.Remove(path)) }, map[string]string{"log": "two\n"}},
		{"copytruncate", func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path+".1", b, 0o600))
			must(t, os.Truncate(path, 0))
		}, map[string]string{"log.1": "one\n", "log": "two\n"}},
		{"another file of lines in its place", func(t *testing.T, path string) {
			must(t, os.WriteFile(path+".new", []byte("other\n"), 0o600))
			must(t, os.Rename(path+".new", path))
		}, map[string]string{"log": "other\ntwo\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "log")
			out, _ := open(t, path, nil)
			push(t, out, "one")
			tt.rotate(t, path)
			push(t, out, "two")
			check(t, dir, tt.want)
		})
	}
}

// TestRenamedWhileWritten renames the file as fast as it can while lines are
// written, and the output also rotates by size: every line is in some file,
// once, whole and in order.
func TestRenamedWhileWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	out, _ := open(t, path, func(o *Options) { o.RotationMaxSize, o.RotationMaxArchives = 64<<10, 1000 })
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				stopped <- n
				return
			case <-time.After(time.Millisecond):
				os.Rename(path, fmt.Sprintf("%s.renamed.%d", path, n))
			}
		}
	}()
	const pushes, lines = 300, 40
	for i := range pushes {
		var records []string
		for j := range lines {
			records = append(records, fmt.Sprintf("line %05d %s", i*lines+j, strings.Repeat("x", j*7)))
		}
		push(t, out, records...)
	}
	close(stop)
	<-stopped

	entries, err := os.ReadDir(dir)
	must(t, err)
	var numbers []int
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		if len(b) > 0 && b[len(b)-1] != '\n' {
			t.Errorf("%s ends in half a line: %q", e.Name(), b[max(0, len(b)-20):])
		}
		last := -1
		for line := range strings.Lines(string(b)) {
			var n int
			var rest string
			if _, err := fmt.Sscanf(line, "line %d %s", &n, &rest); err != nil && n%lines != 0 || len(rest) != n%lines*7 || n <= last {
				t.Fatalf("%s: torn or out of order after %d: %q", e.Name(), last, line)
			}
			last = n
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	if want := pushes * lines; len(numbers) != want || numbers[want-1] != want-1 || len(slices.Compact(numbers)) != want {
		t.Errorf("%d lines, want each of %d once", len(numbers), want)
	}
	if len(entries) < 5 {
		t.Errorf("%d files: nothing was rotated", len(entries))
	}
}

// TestSymlinkIsRefused plants a link before the start, and in place of a file
// that was renamed.
func TestSymlinkIsRefused(t *testing.T) {
	dir := t.TempDir()
	victim, path := filepath.Join(dir, "victim"), filepath.Join(dir, "log")
	want := fmt.Sprintf("%q is a symbolic link, and links are not followed", path)
	must(t, os.WriteFile(victim, []byte("precious\n"), 0o600))
	must(t, os.Symlink(victim, path))
	out, _ := open(t, path, nil)
	if diff := cmp.Diff(want, fmt.Sprint(tryPush(t, out, "one"))); diff != "" {
		t.Errorf("before the start (-want +got)\n%s", diff)
	}
	must(t, os.Remove(path))
	push(t, out, "one")
	must(t, os.Rename(path, path+".1"))
	must(t, os.Symlink(victim, path))
	if diff := cmp.Diff(want, fmt.Sprint(tryPush(t, out, "two"))); diff != "" {
		t.Errorf("in its place (-want +got)\n%s", diff)
	}
	must(t, os.Remove(path))
	must(t, os.Symlink(filepath.Join(dir, "nothing"), path))
	if diff := cmp.Diff(want, fmt.Sprint(tryPush(t, out, "two"))); diff != "" {
		t.Errorf("to nothing (-want +got)\n%s", diff)
	}
	must(t, os.Remove(path))
	push(t, out, "two")
	check(t, dir, map[string]string{"victim": "precious\n", "log.1": "one\n", "log": "two\n"})

	// A rotation replaces a link that is in place of an archive.
	must(t, os.Remove(path+".1"))
	must(t, os.Symlink(victim, path+".1"))
	out, _ = open(t, path, func(o *Options) { o.RotationMaxSize, o.RotationMaxArchives = 4, 1 })
	push(t, out, "six")
	check(t, dir, map[string]string{"victim": "precious\n", "log.1": "two\n", "log": "six\n"})
}

// TestOpenDoesNotFollowSymlinks plants the link after the check.
func TestOpenDoesNotFollowSymlinks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	must(t, os.Symlink(filepath.Join(dir, "victim"), path))
	if f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|noFollow|nonBlock, 0o640); !errors.Is(err, unix.ELOOP) {
		t.Errorf("opened %v, %v", f, err)
	}
}

// TestDevFullIsReported uses a disk that is always full.
func TestDevFullIsReported(t *testing.T) {
	out, _ := open(t, "/dev/full", nil)
	for range 2 {
		err := tryPush(t, out, "one", "two")
		if want := "write /dev/full: no space left on device"; fmt.Sprint(err) != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// TestFullDiskLeavesNoHalfLine fills a small file system: the file always ends with a
// whole line, and when there is space again each record is written
// once.
func TestFullDiskLeavesNoHalfLine(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("sockwatch-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path, ballast := filepath.Join(dir, "log"), filepath.Join(dir, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 40<<10), 0o600))
	out, _ := open(t, path, nil)
	fillDisk(t, path, unix.ENOSPC, numbered(60), func(records [][]byte) error { return out.Push(t.Context(), records) },
		func() { must(t, os.Remove(ballast)) })
}

// TestFileSizeLimit does the same with a limit, which every user may set. It applies to a
// whole process, so a child has it: the test framework writes files, too.
func TestFileSizeLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), envLimited+"="+path)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	must(t, err)
	stdout, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	t.Cleanup(func() {
		child.Process.Kill()
		child.Wait()
	})
	deadline := time.AfterFunc(time.Minute, func() { child.Process.Kill() })
	defer deadline.Stop()
	out := bufio.NewReader(stdout)
	ask := func(command string) error {
		fmt.Fprintln(in, command)
		answer, err := out.ReadString('\n')
		must(t, err)
		if answer == "<nil>\n" {
			return nil
		}
		return errors.New(strings.TrimSuffix(answer, "\n"))
	}
	fillDisk(t, path, unix.EFBIG, numbered(limitedWidth), func([][]byte) error { return ask("push") }, func() { must(t, ask("free")) })
}

const (
	envLimited   = "SOCKWATCH_TEST_FILE_SIZE_LIMIT"
	limitedWidth = 4000
)

// TestMain runs the tests, or is the child of TestFileSizeLimit.
func TestMain(m *testing.M) {
	path := os.Getenv(envLimited)
	if path == "" {
		os.Exit(m.Run())
	}
	if err := pushWithinLimit(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// pushWithinLimit sets a limit of file sizes. For each line of standard input it pushes, or
// lifts the limit, and writes the error to standard output.
func pushWithinLimit(path string) error {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1<<20 + 1, Max: was.Max}); err != nil {
		return err
	}
	o := Defaults()
	o.Path, o.RotationMaxSize = path, 0
	out, err := New(o, plugin.Env{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	for commands := bufio.NewScanner(os.Stdin); commands.Scan(); {
		if commands.Text() == "free" {
			err = unix.Setrlimit(unix.RLIMIT_FSIZE, &was)
		} else {
			err = out.Push(context.Background(), numbered(limitedWidth))
		}
		fmt.Println(err)
	}
	return nil
}

// numbered returns lines of a given width.
func numbered(width int) (records [][]byte) {
	for i := range 500 {
		records = append(records, fmt.Appendf(nil, "line %05d %s", i, strings.Repeat("x", width)))
	}
	return records
}

// fillDisk pushes records until the file is full, and again after free.
func fillDisk(t *testing.T, path string, full error, records [][]byte, push func([][]byte) error, free func()) {
	t.Helper()
	for range 3 {
		if err := push(records); err == nil || !strings.HasSuffix(err.Error(), full.Error()) {
			t.Fatalf("error %v, want %v", err, full)
		}
		got, err := os.ReadFile(path)
		must(t, err)
		if len(got) == 0 || got[len(got)-1] != '\n' {
			t.Fatalf("the file ends in half a line: %q", got[max(0, len(got)-80):])
		}
	}
	free()
	if err := push(records); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	must(t, err)
	if diff := cmp.Diff(string(bytes.Join(records, []byte{'\n'}))+"\n", string(got)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestFIFOReaderMayBeSlowOrGone writes to a FIFO without a reader, with a slow one, and
// with one that leaves and comes back.
func TestFIFOReaderMayBeSlowOrGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(path, 0o600))
	out, _ := open(t, path, nil)
	want := fmt.Sprintf("%q is a FIFO without a reader: open %s: no such device or address", path, path)
	if diff := cmp.Diff(want, fmt.Sprint(tryPush(t, out, "one"))); diff != "" {
		t.Errorf("no reader (-want +got)\n%s", diff)
	}

	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	must(t, err)
	var records [][]byte
	for i := range 2000 {
		records = append(records, fmt.Appendf(nil, "line %05d %s", i, strings.Repeat("x", 90)))
	}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := out.Push(ctx, records)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), fmt.Sprintf("%q hangs: ", path)) {
			t.Fatalf("a slow reader: error %v", err)
		}
	}
	pushed := make(chan error)
	go func() { pushed <- out.Push(context.Background(), records) }()
	in := bufio.NewReader(r)
	for i, want := range records {
		line, err := in.ReadBytes('\n')
		if err != nil || string(line) != string(want)+"\n" {
			t.Fatalf("line %d is %q, %v", i, line, err)
		}
	}
	must(t, <-pushed)

	must(t, r.Close())
	if err := tryPush(t, out, "gone"); !errors.Is(err, unix.EPIPE) {
		t.Errorf("the reader is gone: error %v", err)
	}
	r, err = os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	must(t, err)
	defer r.Close()
	push(t, out, "gone", "back")
	must(t, out.Close())
	if got, err := io.ReadAll(r); err != nil || string(got) != "gone\nback\n" {
		t.Errorf("read %q, %v", got, err)
	}
}

// TestAppendOnlyFile: in a file that may only grow (chattr +a), an incomplete line cannot
// be cut off, so it is terminated.
func TestAppendOnlyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	must(t, os.WriteFile(path, []byte("one\nhal"), 0o600))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	const appendOnly = 0x20 // FS_APPEND_FL of linux/fs.h
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|appendOnly)
	}
	if err != nil {
		t.Skipf("chattr +a: %v", err)
	}
	defer unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
	out, _ := open(t, path, nil)
	push(t, out, "two")
	check(t, dir, map[string]string{"log": "one\nhal\ntwo\n"})
}
