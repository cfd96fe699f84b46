package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A table fits the terminal that it is printed on, or what $COLUMNS says of it.
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
				if err != nil { // EIO when the last one at the other end has gone
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

// openTerminal returns both ends of a terminal of so many columns.
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
