package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/servertest"
)

// addressChanges are reloads from one address to another of the same port, PORT
// standing for it, and where the second must answer.
var addressChanges = []struct{ from, to, ask string }{
	{":PORT", "127.0.0.1:PORT", "127.0.0.1:PORT"},
	{"127.0.0.1:PORT", ":PORT", "127.0.0.1:PORT"},
	{":PORT", "0.0.0.0:PORT", "127.0.0.1:PORT"},
	{"0.0.0.0:PORT", ":PORT", "127.0.0.1:PORT"},
	{":PORT", "[::]:PORT", "127.0.0.1:PORT"},
	{"127.0.0.1:PORT", "localhost:PORT", "127.0.0.1:PORT"},
	{"localhost:PORT", "127.0.0.1:PORT", "127.0.0.1:PORT"},
	{"0.0.0.0:PORT", "localhost:PORT", "127.0.0.1:PORT"},
	{"[::1]:PORT", ":PORT", "[::1]:PORT"},
	{":PORT", "[::1]:PORT", "[::1]:PORT"},
}

// A textEndpoint answers every request with its text.
type textEndpoint struct {
	sockets       *Sockets
	address, text string
	listener      net.Listener
	serving       chan struct{}
}

func (e *textEndpoint) Listen(ctx context.Context) (err error) {
	e.listener, err = e.sockets.Listen(ctx, "tcp", e.address)
	return err
}

func (e *textEndpoint) Serve(ctx context.Context, _ plugin.Board) error {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, e.text) })}
	context.AfterFunc(ctx, func() { srv.Shutdown(context.Background()) })
	close(e.serving)
	return srv.Serve(e.listener)
}

// A reload goes over to an address that overlaps the one before. A second sockwatch
// does not get in.
func TestReloadToAnAddressThatOverlaps(t *testing.T) {
	for _, tt := range addressChanges {
		t.Run(tt.from+" to "+tt.to, func(t *testing.T) {
			port := strconv.Itoa(servertest.FreePort(t))
			in := func(address string) string { return strings.Replace(address, "PORT", port, 1) }
			get := func() string {
				client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
				resp, err := client.Get("http://" + in(tt.ask))
				if err != nil {
					return err.Error()
				}
				defer resp.Body.Close()
				text, _ := io.ReadAll(resp.Body)
				return string(text)
			}
			refused := func(when string) {
				t.Helper()
				for _, address := range []string{in(tt.from), in(tt.to)} {
					if _, err := new(Sockets).Listen(t.Context(), "tcp", address); !errors.Is(err, unix.EADDRINUSE) {
						t.Errorf("%s, a second program on %s: %v", when, address, err)
					}
				}
			}
			r := newRig(t)
			sockets := &Sockets{}
			endpoint := func(address, text string) *textEndpoint {
				return &textEndpoint{sockets: sockets, address: in(address), text: text, serving: make(chan struct{})}
			}
			first, second := endpoint(tt.from, "first"), endpoint(tt.to, "second")
			r.agent.input("a", counting())
			r.agent.pull("page", first)
			next := r.sibling()
			next.input("a", counting())
			next.pull("page", second).Settings = &fakeSettings{Version: 2}

			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			go func() {
				r.ended <- r.agent.Run(ctx, r.reload, func() (*Agent, error) { return next, nil }, nil)
			}()
			<-first.serving
			if got := get(); got != "first" {
				t.Errorf("before: %s", got)
			}
			refused("before")
			r.reload <- struct{}{}
			select {
			case <-second.serving:
			case <-time.After(10 * time.Second):
				t.Fatalf("not reloaded:\n%s", r.log)
			}
			if got := get(); got != "second" {
				t.Errorf("after: %s", got)
			}
			refused("after")
			c, err := second.listener.(*sharedListener).Listener.(syscall.Conn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			c.Control(func(fd uintptr) {
				if shares, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil || shares != 0 {
					t.Errorf("SO_REUSEPORT is %d, %v", shares, err)
				}
			})
			stop()
			if err := <-r.ended; err != nil {
				t.Error(err)
			}
			l, err := net.Listen("tcp", in(tt.to))
			if err != nil {
				t.Fatalf("it is bound when nobody uses it: %v", err)
			}
			l.Close()
		})
	}
}
