//go:build unix

package prometheus

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sockwatch/agent/listen"
	"sockwatch/agent/plugin"
)

// envListen holds the addresses that the child of TestSystemdPassesSockets listens on.
const envListen = "SOCKWATCH_TEST_LISTEN"

// TestSystemdPassesSockets passes sockets to a child as systemd does.
func TestSystemdPassesSockets(t *testing.T) {
	for _, test := range []struct {
		listen string
		served []bool // of the TCP and the unix socket
	}{
		{"systemd", []bool{true, true}},
		{"systemd:web", []bool{true, false}},
		{"systemd:local,127.0.0.1:0", []bool{false, true}},
	} {
		t.Run(test.listen, func(t *testing.T) {
			tcp, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer tcp.Close()
			unix, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close()
			child := startActivated(t, test.listen, "web:local", tcp, unix)
			for range 2 { // before and after a reload
				child.waitServing(t)
				for i, l := range []net.Listener{tcp, unix} {
					if !test.served[i] {
						continue
					}
					c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
						return new(net.Dialer).DialContext(ctx, l.Addr().Network(), l.Addr().String())
					}}}
					r, err := c.Get("http://any/metrics")
					if err != nil {
						t.Fatal(err)
					}
					if page := bodyOf(t, r); r.StatusCode != 200 || !strings.Contains(page, "tcp_listen_sockets{") {
						t.Errorf("%s: status %d", l.Addr(), r.StatusCode)
					}
				}
				fmt.Fprintln(child.stdin, "next")
			}
			if err := child.cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

type activated struct {
	cmd    *exec.Cmd
	stdin  io.Writer
	stdout *bufio.Scanner
}

// startActivated runs this test binary with sockets from descriptor 3 on. The
// shell knows the pid that LISTEN_PID must have.
func startActivated(t *testing.T, listen, names string, sockets ...net.Listener) *activated {
	t.Helper()
	cmd := exec.CommandContext(deadline(t), "/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, os.Args[0])
	cmd.Env = append(os.Environ(), envListen+"="+listen, fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_FDNAMES="+names)
	for _, l := range sockets {
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &activated{cmd, stdin, bufio.NewScanner(stdout)}
}

// deadline returns a context that ends with the test, or long after any busy machine is done.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func (a *activated) waitServing(t *testing.T) {
	t.Helper()
	for a.stdout.Scan() {
		if a.stdout.Text() == "serving" {
			return
		}
		t.Log(a.stdout.Text())
	}
	t.Fatal("the child does not serve")
}

// serveActivated is the child: it serves, ends, and serves again, as at a reload,
// whenever it reads a line.
func serveActivated(addresses []string) error {
	in := bufio.NewScanner(os.Stdin)
	o := Defaults()
	o.Listen = addresses
	for range 2 {
		opened, err := newEndpoint(o, plugin.Env{Log: slog.New(slog.DiscardHandler), Listen: new(listen.Sockets).Listen})
		if err != nil {
			return err
		}
		e := opened.(*endpoint)
		ctx, cancel := context.WithCancel(context.Background())
		if err := e.Listen(ctx); err != nil {
			cancel()
			return err
		}
		served := make(chan error, 1)
		go func() { served <- e.Serve(ctx, boardOf(batch("tcp_listen", listener(80, "nginx", "root")))) }()
		fmt.Println("serving")
		in.Scan()
		cancel()
		if err := <-served; err != nil {
			return err
		}
	}
	return nil
}

func TestSystemdPassesNothing(t *testing.T) {
	e, _ := newTestEndpoint(t, func(o *Options) { o.Listen = plugin.Strings{"systemd"} })
	want := "listen: systemd has passed no socket to this process"
	if err := e.Listen(t.Context()); err == nil || err.Error() != want {
		t.Errorf("Listen gives %v, want %s", err, want)
	}
}

func TestSystemdPassesOtherSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	fd, err := syscall.Dup(int(socket.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	web := os.NewFile(uintptr(fd), "web")
	defer web.Close()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, test := range []struct {
		files      []*os.File
		name, want string
	}{
		{[]*os.File{web}, "local", `listen: systemd has passed no socket named "local", only ["web"]`},
		{[]*os.File{file}, "", `listen: socket "` + file.Name() + `" from systemd: file file+net ` + file.Name() + `: getsockopt: socket operation on non-socket`},
	} {
		if _, err := passedListeners(test.files, test.name); err == nil || err.Error() != test.want {
			t.Errorf("%q: %v, want %s", test.name, err, test.want)
		}
	}
	for range 2 { // the socket stays open for the next reload
		passed, err := passedListeners([]*os.File{web}, "web")
		if err != nil {
			t.Fatal(err)
		}
		if passed[0].Addr().String() != l.Addr().String() {
			t.Errorf("listening on %v, want %v", passed[0].Addr(), l.Addr())
		}
		passed[0].Close()
	}
}
