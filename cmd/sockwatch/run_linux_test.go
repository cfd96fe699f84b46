package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fileConfig gathers into a file.
func fileConfig(level, file string) string {
	return fmt.Sprintf(`
[agent]
  interval = "100ms"
  shutdown_timeout = "30s"
  log_level = %q
[[inputs.tcp_listen]]
  timeout = "30s"
[[outputs.file]]
  path = %q
`, level, file)
}

// awaitMore waits until a file has grown by some lines.
func awaitMore(t *testing.T, file string) {
	t.Helper()
	lines := func() int {
		text, _ := os.ReadFile(file)
		return bytes.Count(text, []byte("\n"))
	}
	before := lines()
	eventually(t, "more lines in the file", func() bool { return lines() > before+20 })
}

// A pipe that nobody reads delays neither gathers, delivery, reloads nor the stop.
func TestLogThatNobodyReadsDelaysNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a pipe to fill")
	}
	t.Parallel()
	for _, level := range []string{"info", "debug"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			size, err := unix.FcntlInt(writer.Fd(), unix.F_SETPIPE_SZ, 4096)
			if err != nil {
				t.Fatal(err)
			}
			// The pipe is full from the first record on.
			if _, err := writer.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "out.jsonl")
			config := writeFile(t, t.TempDir(), "s.toml", fileConfig(level, file))
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(exe, "--config", config)
			cmd.Env = append(os.Environ(), "SOCKWATCH_TEST_BE=sockwatch", "NOTIFY_SOCKET=")
			cmd.Stderr = writer
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			writer.Close()
			exited := make(chan error, 1)
			go func() { exited <- cmd.Wait() }()
			defer func() {
				cmd.Process.Kill()
			}()
			awaitMore(t, file)
			cmd.Process.Signal(syscall.SIGHUP)
			awaitMore(t, file)
			cmd.Process.Signal(syscall.SIGTERM)
			select {
			case err := <-exited:
				if err != nil {
					t.Errorf("ended with %v", err)
				}
			case <-time.After(waitLimit):
				t.Error("the program does not end")
			}
		})
	}
}

func TestFullNotifySocketDelaysNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a full socket")
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	fillSocket(t, path)
	file := filepath.Join(t.TempDir(), "out.jsonl")
	config := writeFile(t, t.TempDir(), "s.toml", fileConfig("info", file))
	p := start(t, "sockwatch", []string{"NOTIFY_SOCKET=" + path}, "--config", config)
	awaitMore(t, file)
	p.Process.Signal(syscall.SIGHUP)
	eventually(t, "the reload", func() bool { return strings.Contains(p.stderr.String(), "reloaded") })
	awaitMore(t, file)

	// Once it is read, READY arrives.
	manager.SetReadDeadline(time.Now().Add(waitLimit))
	for message := make([]byte, 100); ; {
		n, err := manager.Read(message)
		if err != nil {
			t.Fatal(err)
		}
		if string(message[:n]) == "READY=1" {
			break
		}
	}
	p.Process.Signal(syscall.SIGTERM)
	if code := p.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestStopWithAFullNotifySocket(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a full socket")
	}
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	fillSocket(t, path)
	file := filepath.Join(t.TempDir(), "out.jsonl")
	config := writeFile(t, t.TempDir(), "s.toml", fileConfig("info", file))
	p := start(t, "sockwatch", []string{"NOTIFY_SOCKET=" + path}, "--config", config)
	awaitMore(t, file)
	p.Process.Signal(syscall.SIGTERM)
	if code := p.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// fillSocket writes to a datagram socket until it is full.
func fillSocket(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for {
		err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrUnix{Name: path})
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A configuration that has become a pipe without a writer delays neither gathers
// nor the stop, and the log names it.
func TestHangingReloadDelaysNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a reload that hangs")
	}
	t.Parallel()
	file := filepath.Join(t.TempDir(), "out.jsonl")
	config := writeFile(t, t.TempDir(), "s.toml", fileConfig("info", file))
	p := start(t, "sockwatch", nil, "--config", config)
	awaitMore(t, file)
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(config, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Process.Signal(syscall.SIGHUP)
	awaitMore(t, file)
	p.Process.Signal(syscall.SIGTERM)
	if code := p.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if want := config + ": not read: context canceled"; !strings.Contains(p.stderr.String(), want) {
		t.Errorf("the log does not say %q", want)
	}
}

func TestStopWhileTheConfigurationIsNotRead(t *testing.T) {
	config := filepath.Join(t.TempDir(), "s.toml")
	if err := syscall.Mkfifo(config, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "sockwatch", nil, "--config", config)
	var writer *os.File
	eventually(t, "the program opening its configuration", func() (opened bool) {
		var err error
		writer, err = os.OpenFile(config, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		return err == nil // else it has no reader yet, ENXIO
	})
	defer writer.Close()
	p.Process.Signal(syscall.SIGTERM)
	if code := p.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A file that is briefly missing does not change the running configuration.
func TestReloadOfAMissingFile(t *testing.T) {
	if testing.Short() {
		t.Skip("reloads a running program")
	}
	t.Parallel()
	file := filepath.Join(t.TempDir(), "out.jsonl")
	config := writeFile(t, t.TempDir(), "s.toml", fileConfig("info", file))
	p := start(t, "sockwatch", nil, "--config", config)
	awaitMore(t, file)
	if err := os.Rename(config, config+".new"); err != nil {
		t.Fatal(err)
	}
	p.Process.Signal(syscall.SIGHUP)
	eventually(t, "the error", func() bool {
		return strings.Contains(p.stderr.String(), "open "+config+": no such file or directory")
	})
	awaitMore(t, file)
}
