package prometheus

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// connections limits how many clients are connected, so that they cannot use up the
// descriptors that the inputs need. A client beyond the limit replaces the connection
// that has been idle longest. If all are busy, it waits, and later ones wait in the
// kernel's queue. Make one with newConnections.
type connections struct {
	most    int
	admit   func() error // called before data of a TLS handshake is handled; an error ends the handshake
	mu      sync.Mutex
	changed sync.Cond // broadcast when open, an idleSince or a closed has changed
	open    map[*limitedConn]struct{}
}

func newConnections(most int, admit func() error) *connections {
	c := &connections{most: most, admit: admit, open: map[*limitedConn]struct{}{}}
	c.changed.L = &c.mu
	return c
}

// observe is the ConnState of an http.Server.
func (c *connections) observe(conn net.Conn, state http.ConnState) {
	t, secure := conn.(*tls.Conn)
	if secure {
		conn = t.NetConn()
	}
	l, ok := conn.(*limitedConn)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l.handshaking = secure && state == http.StateNew
	l.idleSince = time.Time{}
	if state == http.StateIdle || state == http.StateNew { // a new one has not sent anything yet
		l.idleSince = time.Now()
	}
	c.changed.Broadcast()
}

// limit returns a listener that accepts from l within the limit.
func (c *connections) limit(l net.Listener) net.Listener {
	return &limitedListener{Listener: l, connections: c}
}

type limitedListener struct {
	net.Listener
	*connections
	closed bool // guarded by mu
}

// Accept waits for a connection, and for a slot for it.
func (l *limitedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.open) >= l.most {
		if l.closed {
			conn.Close()
			return nil, net.ErrClosed
		}
		if idle := l.longestIdle(); idle != nil {
			delete(l.open, idle)
			idle.Conn.Close()
		} else {
			l.changed.Wait()
		}
	}
	limited := &limitedConn{Conn: conn, connections: l.connections}
	l.open[limited] = struct{}{}
	return limited, nil
}

// longestIdle returns the connection that has been idle longest, or nil.
func (c *connections) longestIdle() (longest *limitedConn) {
	for conn := range c.open {
		if !conn.idleSince.IsZero() && (longest == nil || conn.idleSince.Before(longest.idleSince)) {
			longest = conn
		}
	}
	return longest
}

// Close also ends an Accept that waits for a slot.
func (l *limitedListener) Close() error {
	l.mu.Lock()
	l.closed = true
	l.changed.Broadcast()
	l.mu.Unlock()
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	connections *connections
	idleSince   time.Time // zero while busy; guarded by connections.mu
	handshaking bool      // TLS; guarded by connections.mu
}

// Read returns no data of a handshake that admit refuses.
func (c *limitedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.isHandshaking() {
		if err := c.connections.admit(); err != nil {
			return 0, err
		}
	}
	return n, err
}

func (c *limitedConn) isHandshaking() bool {
	c.connections.mu.Lock()
	defer c.connections.mu.Unlock()
	return c.handshaking
}

// CloseWrite lets net/http end an answer in such a way that the client can read it, even
// if the client has sent more than net/http has read.
func (c *limitedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close closes the connection and frees its slot.
func (c *limitedConn) Close() error {
	c.connections.mu.Lock()
	delete(c.connections.open, c)
	c.connections.changed.Broadcast()
	c.connections.mu.Unlock()
	return c.Conn.Close()
}
