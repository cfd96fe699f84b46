package stdout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/agent/plugin"
)

// TestMain is also the program whose standard output the tests break, if a test has
// started it as a child: it pushes two records, twice, and writes the results to standard
// error.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_STDOUT_CHILD") == "" {
		os.Exit(m.Run())
	}
	p, err := New(Defaults(), plugin.Env{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for range 2 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := p.Push(ctx, [][]byte{[]byte("one"), []byte("two")})
		cancel()
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(0)
}

// child runs the program of TestMain and returns its standard error.
func child(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Env = append(os.Environ(), "TEST_STDOUT_CHILD=1", "GORACE=atexit_sleep_ms=0")
	if err := cmd.Run(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
	return stderr.String()
}

// TestReaderGoneIsReported uses a pipe that nothing reads any more: on file descriptor 1 the
// Go runtime would end the program by SIGPIPE.
func TestReaderGoneIsReported(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Stdout = w
	got := child(t, cmd)
	w.Close()
	const line = "the reader of standard output is gone: write standard output: broken pipe\n"
	if diff := cmp.Diff(line+line, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestClosedAtStart distinguishes an output that was closed from one to /dev/null.
func TestClosedAtStart(t *testing.T) {
	t.Parallel()
	const closed = "standard output was closed, or is /dev/null, when the program started\n"
	for _, tt := range []struct{ redirect, want string }{
		{">&-", closed + closed},
		{"<&- >&-", closed + closed},
		{"1<>/dev/null", closed + closed}, // which cannot be distinguished from it
		{">/dev/null", "<nil>\n<nil>\n"},
		{"</dev/null >/dev/null", "<nil>\n<nil>\n"},
		{"<>/dev/null >&0", "<nil>\n<nil>\n"}, // as start-stop-daemon does
	} {
		if got := child(t, exec.Command("sh", "-c", `exec "$0" `+tt.redirect, os.Args[0])); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.redirect, got, tt.want)
		}
	}
}

// TestDevFullIsReported uses a disk that is always full.
func TestDevFullIsReported(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Stdout = full
	const line = "write standard output: no space left on device\n"
	if diff := cmp.Diff(line+line, child(t, cmd)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestNoHalfLineAfterRecovery limits a file's size in the middle of a line, as a
// full disk does, and lifts the limit again.
func TestNoHalfLineAfterRecovery(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	out := newOutput(Defaults(), func() (*os.File, error) { return f, nil })
	records := [][]byte{[]byte("one"), []byte("two"), []byte("three")}

	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 6, Max: was.Max}); err != nil {
		t.Skipf("no limit for files: %v", err)
	}
	pushes := []error{out.Push(t.Context(), records), out.Push(t.Context(), records)}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	for _, err := range pushes {
		if !errors.Is(err, unix.EFBIG) {
			t.Fatalf("error %v, want EFBIG", err)
		}
	}
	if err := out.Push(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("one\ntwo\nthree\n", string(got)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestSlowReaderIsWaitedForWithinBounds has a reader that reads nothing for a while: Push
// returns within its timeout, and the rest is written afterwards, each line once
// and whole.
func TestSlowReaderIsWaitedForWithinBounds(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"pipe", "socket"} {
		t.Run(kind, func(t *testing.T) {
			r, w := connected(t, kind)
			out := newOutput(Defaults(), func() (*os.File, error) { return w, nil })
			var records [][]byte
			for i := range 4000 { // more than a pipe or a socket holds
				records = append(records, fmt.Appendf(nil, "line %d %s", i, strings.Repeat("x", i%300)))
			}
			want := string(bytes.Join(records, []byte{'\n'})) + "\n"
			for range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				err := out.Push(ctx, records)
				cancel()
				if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "the reader of standard output is slow or hangs: ") {
					t.Fatalf("error %v", err)
				}
			}
			read := make(chan []byte)
			go func() {
				got, _ := io.ReadAll(r)
				read <- got
			}()
			if err := out.Push(t.Context(), records); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if got := string(<-read); got != want {
				t.Errorf("read %d bytes, want %d: the lines are not each once and whole", len(got), len(want))
			}
		})
	}
}

// connected returns both ends of a stream. The end to write to blocks, as
// that of a shell or of systemd does.
func connected(t *testing.T, kind string) (r, w *os.File) {
	t.Helper()
	fds := make([]int, 2)
	var err error
	if kind == "pipe" {
		err = unix.Pipe2(fds, unix.O_CLOEXEC)
	} else {
		var pair [2]int
		pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		copy(fds, pair[:])
	}
	if err != nil {
		t.Fatal(err)
	}
	r, w = os.NewFile(uintptr(fds[0]), "reader"), os.NewFile(uintptr(fds[1]), "writer")
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	return r, w
}

// TestWholeLinesInOnePiece checks that no write to a pipe is larger than a pipe accepts as a
// whole: the end of the program tears no line.
func TestWholeLinesInOnePiece(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0) // keeps writes apart
	if err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(pair[0]), "reader"), os.NewFile(uintptr(pair[1]), "writer")
	defer r.Close()
	out := newOutput(Defaults(), func() (*os.File, error) { return w, nil })
	pieces := make(chan []string)
	go func() {
		var all []string
		for buf := make([]byte, 1<<20); ; {
			n, err := syscall.Read(pair[0], buf)
			if n <= 0 || err != nil {
				break
			}
			all = append(all, string(buf[:n]))
		}
		pieces <- all
	}()
	var records [][]byte
	for i := range 500 {
		records = append(records, fmt.Appendf(nil, "line %d %s", i, strings.Repeat("x", i%900)))
	}
	records[250] = bytes.Repeat([]byte("y"), 10_000)
	want := string(bytes.Join(records, []byte{'\n'})) + "\n"
	if err := out.Push(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	w.Close()
	got := ""
	for _, p := range <-pieces {
		if !strings.HasSuffix(p, "\n") || len(p) > atomicBytes && strings.Count(p, "\n") > 1 {
			t.Errorf("a piece of %d bytes that ends in %q", len(p), p[len(p)-1:])
		}
		got += p
	}
	if got != want {
		t.Error("the pieces are not the lines")
	}
}
