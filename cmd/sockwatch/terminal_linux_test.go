package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// A table fits the terminal that it is printed on, or the width in $COLUMNS.
func TestListFitsTheTerminal(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		columns string
		want    int
	}{{"", 61}, {"44", 44}} {
		terminal, other := openTerminal(t, 61)
		cmd := exec.Command(exe, "list")
		cmd.Env = append(os.Environ(), "SOCKWATCH_TEST_BE=sockwatch", "COLUMNS="+test.columns)
		cmd.Stdout = other
		cmd.Stderr = &bytes.Buffer{}
		done := make(chan string)
		go func() {
			var text []byte
			for part := make([]byte, 4096); ; {
				n, err := terminal.Read(part)
				text = append(text, part[:n]...)
				if err != nil { // EIO when the other end is closed
					done <- string(text)
					return
				}
			}
		}()
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %s", err, cmd.Stderr)
		}
		other.Close()
		text := <-done
		if !strings.HasPrefix(text, "ADDRESS ") {
			t.Fatalf("list printed %q", text)
		}
		widest := 0
		for line := range strings.SplitSeq(text, "\r\n") {
			if strings.HasPrefix(line, "Owners unknown: ") || strings.HasPrefix(line, "Warning: ") {
				continue // a sentence, which the terminal may wrap
			}
			widest = max(widest, cells(line))
		}
		if widest > test.want {
			t.Errorf("COLUMNS=%q: %d cells wide, want at most %d:\n%s", test.columns, widest, test.want, text)
		}
	}
}

// openTerminal returns both ends of a terminal with that many columns.
func openTerminal(t *testing.T, columns int) (terminal, other *os.File) {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal: %v", err)
	}
	t.Cleanup(func() { terminal.Close() })
	fd := int(terminal.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("no terminal: %v", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: uint16(columns)}); err != nil {
		t.Fatal(err)
	}
	other, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal: %v", err)
	}
	return terminal, other
}

// On a terminal --watch shows what opens and closes, follows the terminal's size, and
// ends at Ctrl-C with the last table in view.
func TestListWatchesOnATerminal(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	terminal, other := openTerminal(t, 100)
	screen := &textBuffer{}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		io.Copy(screen, terminal) // its error is the end of the other side
	}()
	cmd := exec.Command(exe, "list", "--watch=100ms")
	cmd.Env = append(os.Environ(), "SOCKWATCH_TEST_BE=sockwatch", "TERM=xterm", "COLUMNS=", "LINES=")
	cmd.Stdin, cmd.Stdout = other, other
	cmd.Stderr = &bytes.Buffer{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	other.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })

	// lastFrame returns the last whole frame.
	lastFrame := func() string {
		text := screen.String()
		end := strings.LastIndex(text, clearBelow)
		if end < 0 {
			return ""
		}
		return text[strings.LastIndex(text[:end], cursorHome):end]
	}
	eventually(t, "the first frame", func() bool { return strings.Contains(lastFrame(), "ADDRESS") })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := l.Addr().String()
	eventually(t, "the listener that opened", func() bool { return strings.Contains(lastFrame(), bold+"+  "+address) })
	l.Close()
	eventually(t, "the listener that closed", func() bool { return strings.Contains(lastFrame(), faint+"-  "+address) })
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 5, Col: 20}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a frame of the new size", func() bool {
		frame := lastFrame()
		return frame != "" && strings.Count(frame, "\r\n") < 5 && !strings.Contains(frame, "EXPOSURE  PROCESS")
	})
	if _, err := terminal.Write([]byte{3}); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%v: %s", err, cmd.Stderr)
		}
	case <-time.After(waitLimit):
		t.Fatal("Ctrl-C does not end it")
	}
	<-closed
	if text := screen.String(); !strings.HasSuffix(text, clearLine+clearBelow+"\r\n") && !strings.HasSuffix(text, clearLine+clearBelow+"^C\r\n") {
		t.Errorf("it ends with %q", text[max(0, len(text)-60):])
	}
}

func TestListWatchNeedsATerminal(t *testing.T) {
	want := result{1, "", "sockwatch: --watch needs a terminal that can move its cursor: for single scans use \"sockwatch list\" or \"sockwatch list --json\"\n"}
	if diff := cmp.Diff(want, sockwatchRun(nil, "list", "--watch")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
