package listen

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// answer accepts until the listener is closed and writes the text to each client.
func answer(l net.Listener, text string) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, text)
			c.Close()
		}
	}()
}

// ask returns what a client reads, or the error.
func ask(network, address string) string {
	c, err := net.DialTimeout(network, address, time.Minute)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	text, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func open(t *testing.T, s *Sockets, network, address string) net.Listener {
	t.Helper()
	l, err := s.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestEqualAddressesShareASocket(t *testing.T) {
	var s Sockets
	first := open(t, &s, "tcp", "127.0.0.1:0")
	address := first.Addr().String()
	second := open(t, &s, "tcp", "127.0.0.1:0")
	if second.Addr().String() != address {
		t.Errorf("an equal address gave another socket: %v, %v", second.Addr(), address)
	}
	answer(first, "old")
	if got := ask("tcp", address); got != "old" {
		t.Errorf("got %q", got)
	}
	first.Close()
	answer(second, "new")
	if got := ask("tcp", address); got != "new" {
		t.Errorf("got %q", got)
	}
	second.Close()
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("the address is bound though nobody uses it")
	}
}

func TestStaleUnixSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var s Sockets
	if _, err := s.Listen(t.Context(), "unix", path); err == nil {
		t.Error("a socket in use was taken away")
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	mine := open(t, &s, "unix", path)
	mine.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the socket file stays behind")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(t.Context(), "unix", path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("over a plain file: %v", err)
	}
}

// TestRemovedUnixSocketIsRecreated: for existing listeners and for the new
// one.
func TestRemovedUnixSocketIsRecreated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	var s Sockets
	first := open(t, &s, "unix", path)
	answer(first, "first")
	for range 2 {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		again := open(t, &s, "unix", path)
		if again.Addr().String() != path {
			t.Errorf("address %v", again.Addr())
		}
		again.Close()
		if got := ask("unix", path); got != "first" {
			t.Errorf("got %q", got)
		}
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	open(t, &s, "unix", path).Close()
	if same, err := os.Lstat(path); err != nil || !os.SameFile(info, same) {
		t.Errorf("a socket whose file exists is bound again: %v", err)
	}
	first.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the socket file stays behind")
	}
	if len(s.bound) != 0 {
		t.Errorf("%d sockets are bound", len(s.bound))
	}
}

// TestUnixSocketWhosePathIsTaken: another file at its path is not touched.
func TestPortInUseSaysHowToFindItsProcess(t *testing.T) {
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for _, host := range []string{"", "127.0.0.1", "localhost"} {
		var s Sockets
		_, err := s.Listen(t.Context(), "tcp", fmt.Sprintf("%s:%d", host, port))
		want := fmt.Sprintf(`: bind: address already in use ("sockwatch list --port %d" shows by which process)`, port)
		if err == nil || !strings.HasSuffix(err.Error(), want) || !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%q: Listen gives %v, want an error that ends in %s", host, err, want)
		}
	}
}

func TestUnixSocketWhosePathIsTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	var s Sockets
	first := open(t, &s, "unix", path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "listen unix " + path + ": bind: address already in use (the file exists and is not a socket)"
	if _, err := s.Listen(t.Context(), "unix", path); err == nil || err.Error() != want {
		t.Errorf("Listen gives %v, want %s", err, want)
	}
	first.Close()
	if text, err := os.ReadFile(path); string(text) != "kept" {
		t.Errorf("the file holds %q, %v", text, err)
	}
}
