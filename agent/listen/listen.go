// Package listen binds the listening sockets of endpoints, and passes them from one
// instance to the next at a reload.
package listen

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

// Sockets binds the listening sockets of endpoints. It lives as long as the program.
// Listeners on the same address share one socket, so that a reload does not refuse any
// connection. A new address may overlap with a bound one. The zero value is ready to
// use, and its methods may be called concurrently.
type Sockets struct {
	mu    sync.Mutex
	bound map[string]*socket // by network and address as given to Listen
}

// Listen returns a listener on an address of network "tcp" or "unix". Closing the last
// listener of an address unbinds it.
//
// If the file of a bound unix socket was removed, Listen creates it again, also for the
// listeners that it returned before.
func (s *Sockets) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := network + " " + address
	b := s.bound[key]
	var err error
	switch {
	case b == nil:
		b, err = s.bind(ctx, network, address)
	case !b.hasFile():
		err = b.bindAgain(ctx)
	}
	if err != nil {
		return nil, err
	}
	l, err := s.share(b)
	if err != nil {
		if len(b.shared) == 0 {
			b.close()
		}
		return nil, err
	}
	if s.bound == nil {
		s.bound = map[string]*socket{}
	}
	s.bound[key] = b
	return l, nil
}

// share returns another listener on a socket.
func (s *Sockets) share(b *socket) (net.Listener, error) {
	dup, err := duplicate(b.listener)
	if err != nil {
		return nil, err
	}
	l := &sharedListener{current: dup}
	l.release = sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(b.shared, l)
		if len(b.shared) == 0 {
			b.close()
			maps.DeleteFunc(s.bound, func(_ string, other *socket) bool { return other == b })
		}
	})
	b.shared[l] = struct{}{}
	return l, nil
}

// bind resolves an address. It returns our socket that is already bound to the result,
// or a new one, which may overlap with our other sockets.
func (s *Sockets) bind(ctx context.Context, network, address string) (*socket, error) {
	l, resolved, err := listen(ctx, network, address)
	if network == "tcp" && errors.Is(err, syscall.EADDRINUSE) {
		var ours []net.Listener
		for _, b := range s.bound {
			if b.resolved == resolved {
				return b, nil
			}
			if samePort(b.listener.Addr(), resolved) {
				ours = append(ours, b.listener)
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
	b := &socket{listener: l, resolved: resolved, shared: map[*sharedListener]struct{}{}}
	b.file, err = unixFile(l)
	if err != nil {
		l.Close()
		return nil, err
	}
	return b, nil
}

// samePort reports whether a bound TCP address has the port of "host:port".
func samePort(bound net.Addr, resolved string) bool {
	tcp, ok := bound.(*net.TCPAddr)
	_, port, err := net.SplitHostPort(resolved)
	return ok && err == nil && port == strconv.Itoa(tcp.Port)
}

// A socket is bound once and shared.
type socket struct {
	listener net.Listener
	resolved string      // the address it is bound to, with names resolved
	file     fs.FileInfo // of a unix socket when it was created; else nil
	shared   map[*sharedListener]struct{}
}

// hasFile reports whether a unix socket still has its file. It is always true for other
// sockets.
func (b *socket) hasFile() bool {
	if b.file == nil {
		return true
	}
	now, err := os.Lstat(b.listener.Addr().String())
	return err == nil && os.SameFile(now, b.file)
}

// bindAgain binds a unix socket whose file is gone, and replaces the old socket in all
// listeners that share it.
func (b *socket) bindAgain(ctx context.Context) error {
	l, _, err := listen(ctx, "unix", b.listener.Addr().String())
	if err != nil {
		return err
	}
	file, err := unixFile(l)
	if err != nil {
		l.Close()
		return err
	}
	for shared := range b.shared {
		dup, derr := duplicate(l)
		if derr != nil {
			err = errors.Join(err, derr)
			continue
		}
		shared.replace(dup)
	}
	b.listener.(*net.UnixListener).SetUnlinkOnClose(false) // it would remove the new file
	b.listener.Close()
	b.listener, b.file = l, file
	return err
}

// close unbinds the socket. If another file has taken the place of its file, it stays.
func (b *socket) close() {
	if l, ok := b.listener.(*net.UnixListener); ok && !b.hasFile() {
		l.SetUnlinkOnClose(false)
	}
	b.listener.Close()
}

// A sharedListener is one of several listeners on a socket. Closing it ends only its own
// Accept.
type sharedListener struct {
	release func()

	mu      sync.Mutex
	current net.Listener
	closed  bool
}

// Accept waits for a connection. It goes on if bindAgain replaces the socket.
func (l *sharedListener) Accept() (net.Conn, error) {
	for {
		current := l.get()
		c, err := current.Accept()
		if err == nil || current == l.get() {
			return c, err
		}
	}
}

// Addr returns the address of the socket.
func (l *sharedListener) Addr() net.Addr { return l.get().Addr() }

// Close ends Accept. The other listeners on the socket are not affected.
func (l *sharedListener) Close() error {
	l.mu.Lock()
	l.closed = true
	err := l.current.Close()
	l.mu.Unlock()
	l.release()
	return err
}

func (l *sharedListener) get() net.Listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

func (l *sharedListener) replace(next net.Listener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		next.Close()
		return
	}
	l.current.Close()
	l.current = next
}

func duplicate(l net.Listener) (net.Listener, error) {
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

// unixFile returns the file of a unix socket, or nil for another socket.
func unixFile(l net.Listener) (fs.FileInfo, error) {
	if l.Addr().Network() != "unix" {
		return nil, nil
	}
	return os.Lstat(l.Addr().String())
}

// listen binds. It also returns the resolved address, even after an error; wildcard
// addresses all get the form ":PORT". It replaces a unix socket file that nobody listens
// on, left by a killed program.
func listen(ctx context.Context, network, address string) (l net.Listener, bound string, err error) {
	lc := net.ListenConfig{Control: func(_, resolved string, _ syscall.RawConn) error {
		bound = resolved
		if at, err := netip.ParseAddrPort(resolved); err == nil && at.Addr().IsUnspecified() {
			bound = fmt.Sprintf(":%d", at.Port()) // package net binds one socket for both families
		}
		return nil
	}}
	l, err = lc.Listen(ctx, network, address)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return l, bound, err
	}
	if network != "unix" {
		if _, port, perr := net.SplitHostPort(bound); perr == nil {
			err = fmt.Errorf(`%w ("sockwatch list --port %s" shows by which process)`, err, port)
		}
		return nil, bound, err
	}
	info, serr := os.Lstat(address)
	if serr != nil || info.Mode().Type() != fs.ModeSocket {
		return nil, bound, fmt.Errorf("%w (the file exists and is not a socket)", err)
	}
	conn, derr := new(net.Dialer).DialContext(ctx, network, address)
	if derr == nil {
		conn.Close()
		return nil, bound, err
	}
	if !errors.Is(derr, syscall.ECONNREFUSED) {
		return nil, bound, err
	}
	if rerr := os.Remove(address); rerr != nil {
		return nil, bound, rerr
	}
	l, err = lc.Listen(ctx, network, address)
	return l, bound, err
}
