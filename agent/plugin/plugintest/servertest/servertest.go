//go:build unix

// Package servertest runs real servers for tests, mostly from Debian packages: on free
// loopback ports, with their data in the test's directory, until the test ends.
package servertest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A Server is a process that a test may stop and start again.
type Server struct {
	URL string // "http://127.0.0.1:PORT"

	t     testing.TB
	bin   string
	args  []string
	ready string // path that answers 200 or 204 when the server is ready
	flush string // path that makes what was written visible to queries; "": it is at once
	log   lockedBuffer

	cmd    *exec.Cmd  // nil: not running
	exited chan error // of cmd
}

// Binary returns the path of a program, from PATH or where Debian installs it. If it is
// not installed, Binary skips the test, or fails it if SOCKWATCH_REQUIRE_SERVERS=1 is set.
func Binary(t testing.TB, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/bin/" + name, "/usr/sbin/" + name} {
		if bin, err := exec.LookPath(candidate); err == nil {
			return bin
		}
	}
	if os.Getenv("SOCKWATCH_REQUIRE_SERVERS") == "1" {
		t.Fatalf("%s is not installed, and SOCKWATCH_REQUIRE_SERVERS=1", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// FreePort returns a TCP port that is free on every address. No other call on this machine
// returns it before t ends, even while nothing listens on it: FreePort reserves it by binding
// the UDP port of the same number. It is below the ports that the kernel assigns to
// connections (32768 and above, ip(7)), so that no connection of another test takes it before
// the server does.
func FreePort(t testing.TB) int {
	t.Helper()
	var err error
	for range 100 {
		var reserved net.PacketConn
		var l net.Listener
		port := 10000 + rand.IntN(22000)
		if reserved, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port)); err != nil {
			continue
		}
		if l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err != nil {
			reserved.Close()
			continue
		}
		l.Close()
		t.Cleanup(func() { reserved.Close() })
		return port
	}
	t.Fatal(err)
	return 0
}

// FreeAddress returns 127.0.0.1 with a free port.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", FreePort(t))
}

// New returns a server that is not started yet. args must make the program listen on
// port; ready is the path that answers when it is ready. With -short, New skips the test.
func New(t testing.TB, program string, port int, ready string, args ...string) *Server {
	t.Helper()
	if testing.Short() {
		t.Skipf("starts %s", program)
	}
	s := &Server{
		URL: fmt.Sprintf("http://127.0.0.1:%d", port), t: t,
		bin: Binary(t, program), args: args, ready: ready,
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("output of %s:\n%s", program, s.log.String())
		}
	})
	return s
}

// Influxd starts InfluxDB 1.x. The lines in http are added to the section [http] of its
// configuration.
func Influxd(t testing.TB, http ...string) *Server {
	t.Helper()
	return startInfluxd(t, "influxd", http)
}

// Influxd18 starts InfluxDB 1.8 with Flux. It also has the write API of 2.x: the bucket
// is "DATABASE/RETENTION POLICY", the token "USER:PASSWORD", the organization anything.
// Its program is $SOCKWATCH_INFLUXD18, or where .ci/run installs it.
func Influxd18(t testing.TB, http ...string) *Server {
	t.Helper()
	program := cached(t, "SOCKWATCH_INFLUXD18", "influxd-1.8.3", "influxd")
	return startInfluxd(t, program, append([]string{"flux-enabled = true"}, http...))
}

func startInfluxd(t testing.TB, program string, http []string) *Server {
	t.Helper()
	dir, port := t.TempDir(), FreePort(t)
	config := fmt.Sprintf(`
reporting-disabled = true
bind-address = "127.0.0.1:%d"
[meta]
  dir = %q
[data]
  dir = %q
  wal-dir = %q
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:%d"
  log-enabled = false
`, FreePort(t), filepath.Join(dir, "meta"), filepath.Join(dir, "data"), filepath.Join(dir, "wal"), port)
	for _, line := range http {
		config += "  " + line + "\n"
	}
	path := filepath.Join(dir, "influxdb.conf")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(t, program, port, "/ping", "-config", path)
	s.Start()
	return s
}

// VictoriaMetrics starts VictoriaMetrics with a retention of 100 years and more arguments.
func VictoriaMetrics(t testing.TB, args ...string) *Server {
	t.Helper()
	port := FreePort(t)
	s := New(t, "victoria-metrics", port, "/health", append([]string{
		"-storageDataPath=" + t.TempDir(), "-retentionPeriod=100y", fmt.Sprintf("-httpListenAddr=127.0.0.1:%d", port), "-search.latencyOffset=0s",
	}, args...)...)
	s.flush = "/internal/force_flush" // otherwise a query that came too early hides new series for 10 s
	s.Start()
	return s
}

// Start starts the server and waits until it is ready.
func (s *Server) Start() {
	s.t.Helper()
	s.cmd = exec.Command(s.bin, s.args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, exited := s.cmd, make(chan error, 1)
	s.exited = exited
	go func() { exited <- cmd.Wait() }()

	ctx, cancel := context.WithTimeout(s.t.Context(), 90*time.Second)
	defer cancel()
	for {
		if s.answers(ctx) {
			return
		}
		select {
		case err := <-exited:
			exited <- err
			s.t.Fatalf("%s ended: %v", s.bin, err)
		case <-ctx.Done():
			s.t.Fatalf("%s is not ready in time", s.bin)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *Server) answers(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+s.ready, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusNoContent
}

// Stop kills the server and its children. It does nothing if the server is stopped.
func (s *Server) Stop() { s.end(syscall.SIGKILL) }

// Shutdown ends the server gracefully, so that it writes its data to disk first.
func (s *Server) Shutdown() { s.end(syscall.SIGTERM) }

func (s *Server) end(signal syscall.Signal) {
	if s.cmd != nil {
		syscall.Kill(-s.cmd.Process.Pid, signal)
		<-s.exited
		s.cmd = nil
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// VictoriaLogs starts VictoriaLogs with a retention of 100 years. Its program is
// $SOCKWATCH_VICTORIA_LOGS, or where .ci/run installs it.
func VictoriaLogs(t testing.TB) *Server {
	t.Helper()
	port := FreePort(t)
	s := New(t, cached(t, "SOCKWATCH_VICTORIA_LOGS", "victoria-logs-1.52.1", "victoria-logs"), port, "/health",
		"-storageDataPath="+t.TempDir(), "-retentionPeriod=100y", fmt.Sprintf("-httpListenAddr=127.0.0.1:%d", port))
	s.Start()
	return s
}

// cached returns the path of a program that .ci/run builds: the value of an environment
// variable, or a path in the cache.
func cached(t testing.TB, variable string, path ...string) string {
	t.Helper()
	if program := os.Getenv(variable); program != "" {
		return program
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(append([]string{cache, "sockwatch"}, path...)...)
}

// Until calls ask until it returns want, or a minute has passed, which only a fault exceeds.
func Until[T any](t testing.TB, want T, ask func() T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		diff := cmp.Diff(want, ask())
		if diff == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in time (-want +got):\n%s", diff)
		}
	}
}
