package listen

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

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

// TestAddressesThatOverlap: an address is bound beside one that it overlaps, as a
// reload does. A second sockwatch cannot bind it.
func TestAddressesThatOverlap(t *testing.T) {
	for _, test := range addressChanges {
		t.Run(test.from+" to "+test.to, func(t *testing.T) {
			port := strconv.Itoa(servertest.FreePort(t))
			in := func(address string) string { return strings.Replace(address, "PORT", port, 1) }
			refused := func(when string) {
				t.Helper()
				for _, address := range []string{in(test.from), in(test.to)} {
					if _, err := new(Sockets).Listen(t.Context(), "tcp", address); !errors.Is(err, unix.EADDRINUSE) {
						t.Errorf("%s, a second program on %s: %v", when, address, err)
					}
				}
			}
			var s Sockets
			first := open(t, &s, "tcp", in(test.from))
			refused("before")
			second := open(t, &s, "tcp", in(test.to))
			refused("while both are bound")
			first.Close()
			answer(second, "second")
			if got := ask("tcp", in(test.ask)); got != "second" {
				t.Errorf("after: %s", got)
			}
			refused("after")
			c, err := second.(*sharedListener).current.(syscall.Conn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			c.Control(func(fd uintptr) {
				if shares, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil || shares != 0 {
					t.Errorf("SO_REUSEPORT is %d, %v", shares, err)
				}
			})
			second.Close()
			l, err := net.Listen("tcp", in(test.to))
			if err != nil {
				t.Fatalf("the address is bound though nobody uses it: %v", err)
			}
			l.Close()
		})
	}
}
