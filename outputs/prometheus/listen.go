package prometheus

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/prometheus/exporter-toolkit/web"
)

// quoted is what an error of the YAML parser shows of the file: perhaps a secret.
var quoted = regexp.MustCompile("`[^`]*`")

// checkWebConfig returns why web_config_file cannot be used, and warns where it,
// with its password hashes, is open to everybody.
func (e *endpoint) checkWebConfig() error {
	file := e.opts.WebConfigFile
	if file == "" {
		return nil
	}
	if err := web.Validate(file); err != nil {
		return fmt.Errorf("web_config_file %q: %s", file, quoted.ReplaceAllString(err.Error(), "`...`"))
	}
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("web_config_file: %w", err)
	}
	if info.Mode().Perm()&0o004 != 0 {
		e.env.Log.Warn("web_config_file can be read by every user of this host; chmod o-r would mend that", "file", file)
	}
	return nil
}

// warnOpen warns once where anybody who reaches this host reads the metrics.
func (e *endpoint) warnOpen() {
	if e.opts.WebConfigFile != "" {
		return
	}
	var open []string
	for _, l := range e.listeners {
		if !isLoopback(l.Addr()) {
			open = append(open, l.Addr().String())
		}
	}
	if len(open) > 0 {
		e.env.Log.Warn("what listens here and who owns it is shown to everybody who reaches this address; "+
			"web_config_file (TLS, basic auth) or a loopback address would limit that", "listen", strings.Join(open, ", "))
	}
}

// limit returns l accepting only as many connections as have a place in the
// channel; the rest wait in the kernel's queue and cost no descriptor, so that
// clients cannot take those which the inputs need.
func limit(l net.Listener, places chan struct{}) net.Listener {
	return &limited{Listener: l, places: places, closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	places chan struct{}
	closed chan struct{}
	once   sync.Once
}

// Accept waits for a place, then for a connection.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	leave := sync.OnceFunc(func() { <-l.places })
	c, err := l.Listener.Accept()
	if err != nil {
		leave()
		return nil, err
	}
	return &limitedConn{c, leave}, nil
}

// Close also ends an Accept that waits for a place.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	leave func()
}

// CloseWrite lets net/http end an answer so that the client reads it even where it
// has sent more than was read.
func (c *limitedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close leaves the place to another connection.
func (c *limitedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
