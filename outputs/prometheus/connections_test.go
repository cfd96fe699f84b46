package prometheus

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// An acceptor accepts connections under a limit, in a synctest bubble.
type acceptor struct {
	t           *testing.T
	pipes       pipeListener
	listener    net.Listener
	connections *connections
	accepted    chan net.Conn
	ended       chan error
}

func newAcceptor(t *testing.T, most int) *acceptor {
	a := &acceptor{t: t, pipes: make(pipeListener), connections: newConnections(most, func() error { return nil }), accepted: make(chan net.Conn, 10), ended: make(chan error, 1)}
	a.listener = a.connections.limit(a.pipes)
	go func() {
		for {
			conn, err := a.listener.Accept()
			if err != nil {
				a.ended <- err
				return
			}
			a.accepted <- conn
		}
	}()
	return a
}

// dial connects and returns both ends; server is nil if the client waits for a slot.
func (a *acceptor) dial() (client, server net.Conn) {
	client, other := net.Pipe()
	a.pipes <- other
	synctest.Wait()
	select {
	case server = <-a.accepted:
	default:
	}
	return client, server
}

// end closes the listener and the connections that it has accepted.
func (a *acceptor) end(clients ...net.Conn) {
	a.listener.Close()
	if err := <-a.ended; !errors.Is(err, net.ErrClosed) {
		a.t.Errorf("Accept gives %v", err)
	}
	for _, c := range clients {
		c.Close()
	}
}

func isClosed(client net.Conn) bool {
	client.SetReadDeadline(time.Now().Add(time.Second))
	_, err := client.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

func TestBusyConnectionsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAcceptor(t, 2)
		dial := func() (client, server net.Conn) {
			client, server = a.dial()
			if server != nil {
				a.connections.observe(server, http.StateActive)
			}
			return client, server
		}
		client1, first := dial()
		client2, second := dial()
		client3, third := dial()
		if first == nil || second == nil || third != nil {
			t.Fatalf("of three connections two may be open: %v, %v, %v", first, second, third)
		}
		first.Close()
		first.Close() // releases its slot once
		synctest.Wait()
		third = <-a.accepted
		a.connections.observe(third, http.StateActive)
		client4, fourth := dial()
		if fourth != nil {
			t.Error("a connection beyond the limit has a slot")
		}
		a.end(client1, client2, client3)
		if !isClosed(client4) {
			t.Error("the connection that waited is open still")
		}
		client4.Close()
	})
}

// TestTheConnectionIdleLongestIsClosed: also one that has sent nothing yet, and one
// that becomes idle while another waits.
func TestTheConnectionIdleLongestIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAcceptor(t, 3)
		busy, busyServer := a.dial()
		silent, silentServer := a.dial()
		idle, idleServer := a.dial()
		a.connections.observe(busyServer, http.StateActive)
		a.connections.observe(silentServer, http.StateNew)
		time.Sleep(time.Second)
		a.connections.observe(idleServer, http.StateIdle)
		clients := []net.Conn{busy, silent, idle}
		for _, want := range []struct {
			client net.Conn
			name   string
		}{{silent, "the one that has sent nothing"}, {idle, "the idle one"}} {
			client, server := a.dial()
			if server == nil || !isClosed(want.client) {
				t.Fatalf("%s does not give way", want.name)
			}
			a.connections.observe(server, http.StateActive)
			clients = append(clients, client)
		}
		last, server := a.dial()
		if server != nil || isClosed(busy) {
			t.Fatal("a busy connection gives way")
		}
		a.connections.observe(busyServer, http.StateIdle)
		synctest.Wait()
		if len(a.accepted) != 1 || !isClosed(busy) {
			t.Error("a connection that has become idle does not give way to one that waits")
		}
		a.end(append(clients, last)...)
	})
}

// TestIdleClientsDoNotBlockScrapes over plain HTTP and over TLS, both with the maximum
// number of idle connections.
func TestIdleClientsDoNotBlockScrapes(t *testing.T) {
	if testing.Short() {
		t.Skip("opens hundreds of connections")
	}
	t.Parallel()
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			var addr string
			config := &tls.Config{}
			if scheme == "https" {
				e, _, _, ca := serveTLS(t, webConfigTLS, nil)
				addr, config.RootCAs = e.listeners[0].Addr().String(), ca.pool()
			} else {
				e, _ := newTestEndpoint(t, nil)
				addr = serve(t, e, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))[0].String()
			}
			for range maxConnections {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if scheme == "https" {
					c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
				}
				c.SetDeadline(time.Now().Add(time.Minute))
				if _, err := io.WriteString(c, "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				r, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				bodyOf(t, r)
			}
			c := client(t, config)
			c.Timeout = 30 * time.Second // a quarter of idleTimeout
			r, err := c.Get(scheme + "://" + addr + "/metrics")
			if err != nil {
				t.Fatalf("a scrape beside %d idle connections: %v", maxConnections, err)
			}
			if bodyOf(t, r); r.StatusCode != 200 {
				t.Errorf("status %d", r.StatusCode)
			}
		})
	}
}
