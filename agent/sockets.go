package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// Sockets binds the listening sockets of endpoints and lives as long as the
// program: the socket of an equal address is shared, so that a reload hands it
// over without refusing a connection, and another address may overlap one that is
// bound. The zero value is ready.
type Sockets struct {
	mu    sync.Mutex
	bound map[string]*boundSocket // by network and address, as they were asked for
}

type boundSocket struct {
	net.Listener
	place string // the address that it was bound to, names looked up
	users int
}

// Listen returns a listener on an address of network "tcp" or "unix". Closing it
// unbinds the address when nobody else uses it.
func (s *Sockets) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := network + " " + address
	b := s.bound[key]
	if b == nil {
		var err error
		if b, err = s.lockedBind(ctx, network, address); err != nil {
			return nil, err
		}
	}
	dup, err := duplicate(b.Listener)
	if err != nil {
		if b.users == 0 {
			b.Close()
		}
		return nil, err
	}
	if s.bound == nil {
		s.bound = map[string]*boundSocket{}
	}
	s.bound[key] = b
	b.users++
	return &sharedListener{Listener: dup, release: sync.OnceFunc(func() { s.release(b) })}, nil
}

func (s *Sockets) release(b *boundSocket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.users--; b.users == 0 {
		b.Close()
		maps.DeleteFunc(s.bound, func(_ string, other *boundSocket) bool { return other == b })
	}
}

// lockedBind returns the socket that is bound to what an address turns out to mean,
// or a new one, beside those of ours that it collides with.
func (s *Sockets) lockedBind(ctx context.Context, network, address string) (*boundSocket, error) {
	var place string
	l, err := listen(ctx, network, address, &place)
	if network == "tcp" && errors.Is(err, syscall.EADDRINUSE) {
		var ours []net.Listener
		for _, b := range s.bound {
			if b.place == place {
				return b, nil
			}
			if samePort(b.Addr(), place) {
				ours = append(ours, b.Listener)
			}
		}
		if len(ours) > 0 {
			if beside, berr := listenBeside(ctx, address, ours); berr == nil {
				l, err = beside, nil
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return &boundSocket{Listener: l, place: place}, nil
}

// samePort reports whether a bound TCP address has the port of "host:port".
func samePort(bound net.Addr, place string) bool {
	tcp, ok := bound.(*net.TCPAddr)
	_, port, err := net.SplitHostPort(place)
	return ok && err == nil && port == strconv.Itoa(tcp.Port)
}

// A sharedListener is one user's descriptor of a socket: closing it ends its own
// Accept alone.
type sharedListener struct {
	net.Listener
	release func()
}

func (l *sharedListener) Close() error {
	err := l.Listener.Close()
	l.release()
	return err
}

func duplicate(l net.Listener) (net.Listener, error) {
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

// listen binds, and tells the place where it bound or tried to: in one form where
// it is every address of the host. A unix socket file that nobody listens on any
// more, left by a killed program, is replaced.
func listen(ctx context.Context, network, address string, place *string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, resolved string, _ syscall.RawConn) error {
		*place = resolved
		if at, err := netip.ParseAddrPort(resolved); err == nil && at.Addr().IsUnspecified() {
			*place = fmt.Sprintf(":%d", at.Port()) // what net binds is one socket for both families
		}
		return nil
	}}
	l, err := lc.Listen(ctx, network, address)
	if network != "unix" || !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	info, serr := os.Lstat(address)
	if serr != nil || info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%w (a file that is no socket stands there)", err)
	}
	conn, derr := net.Dial(network, address)
	if derr == nil {
		conn.Close()
		return nil, err
	}
	if !errors.Is(derr, syscall.ECONNREFUSED) {
		return nil, err
	}
	if rerr := os.Remove(address); rerr != nil {
		return nil, rerr
	}
	return lc.Listen(ctx, network, address)
}
