package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
)

// Sockets binds the listening sockets of endpoints and lives as long as the
// program: the socket of an equal address is shared, so that a reload hands it
// over without refusing a connection. The zero value is ready.
type Sockets struct {
	mu    sync.Mutex
	bound map[string]*boundSocket
}

type boundSocket struct {
	net.Listener
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
		l, err := listen(ctx, network, address)
		if err != nil {
			return nil, err
		}
		b = &boundSocket{Listener: l}
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
	return &sharedListener{Listener: dup, release: sync.OnceFunc(func() { s.release(key) })}, nil
}

func (s *Sockets) release(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bound[key]
	if b.users--; b.users == 0 {
		b.Close()
		delete(s.bound, key)
	}
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

// listen binds. A unix socket file that nobody listens on any more, left by a
// killed program, is replaced.
func listen(ctx context.Context, network, address string) (net.Listener, error) {
	var lc net.ListenConfig
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
