package netns

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/inet"
)

// TestBackendsAgree: both backends list the same sockets in both states, except what
// procfs does not show.
func TestBackendsAgree(t *testing.T) {
	isolated(t)
	start(t, "", task{Listen: []listener{{Addr: "127.0.0.1", Count: 300}, {Addr: "::", Port: 5000}, {Addr: "::", V6Only: true, Port: 5001}, {Addr: "0.0.0.0", Port: 5001}}}, nil)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != nil {
		t.Fatal(err)
	}
	for _, state := range []State{Listen, Established} {
		list := func(backend string) map[netip.AddrPort]inet.Socket {
			s := open(t, options(backend))
			all := make(map[netip.AddrPort]inet.Socket)
			for pass := range 4 {
				begun := 0
				source, err := s.All()[0].Dump(t.Context(), state, pass, func() { begun++ }, func(s *inet.Socket) {
					all[netip.AddrPortFrom(s.Addr, s.Port)] = *s
				})
				if err != nil || begun != 1 || source != (Source{Procfs: backend == Procfs}) {
					t.Fatalf("by %s: %+v, begun %d times, %v", backend, source, begun, err)
				}
			}
			return all
		}
		byNetlink, byProcfs := list(Netlink), list(Procfs)
		if wanted := map[State]int{Listen: 303, Established: 2}[state]; len(byNetlink) != wanted {
			t.Errorf("state %d: %d sockets, expected %d", state, len(byNetlink), wanted)
		}
		for _, s := range byNetlink {
			key := netip.AddrPortFrom(s.Addr, s.Port)
			s.Cookie, s.Cgroup, s.Limit, s.HasLimit = s.Inode, 0, 0, false
			byNetlink[key] = s
		}
		if diff := cmp.Diff(byNetlink, byProcfs, compareAddresses, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("state %d (-netlink +procfs):\n%s", state, diff)
		}
	}
}

// TestDumpObeysContext with both backends.
func TestDumpObeysContext(t *testing.T) {
	isolated(t)
	over, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	for _, backend := range []string{Netlink, Procfs} {
		s := open(t, options(backend))
		if _, err := s.All()[0].Dump(over, Listen, 0, func() {}, func(*inet.Socket) {}); !errors.Is(err, cause) {
			t.Errorf("by %s: %v", backend, err)
		}
		if _, err := s.All()[0].Local(over); !errors.Is(err, cause) {
			t.Errorf("Local by %s: %v", backend, err)
		}
	}
}
