package influxdb

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestN7ProxyFromTheEnvironment pushes in a child process, since a process reads
// these variables once.
func TestN7ProxyFromTheEnvironment(t *testing.T) {
	if url := os.Getenv("TEST_PUSH_TO"); url != "" {
		out, _ := newOutput(t, v1(url))
		if err := push(t, out, "m v=1i 1"); err != nil {
			t.Fatal(err)
		}
		return
	}
	proxy := newFake(t)
	child := func(url string) ([]byte, error) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestN7ProxyFromTheEnvironment$")
		cmd.Env = append(os.Environ(), "TEST_PUSH_TO="+url, "HTTP_PROXY="+proxy.URL, "HTTPS_PROXY="+proxy.URL, "NO_PROXY=direct.invalid")
		return cmd.CombinedOutput()
	}
	if out, err := child("http://influxdb.invalid:8086"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	want := []string{"http://influxdb.invalid:8086/write?db=sockwatch&precision=ns"}
	var got []string
	for _, r := range proxy.took() {
		got = append(got, r.url)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests at the proxy (-want +got)\n%s", diff)
	}
	if out, err := child("https://influxdb.invalid:8086"); err == nil {
		t.Errorf("a proxy that answers CONNECT with 204 was taken for the server: %s", out)
	}
	if r := proxy.took(); len(r) != 1 || r[0].method != "CONNECT" {
		t.Errorf("requests at the proxy: %v, want one CONNECT", r)
	}
	if out, err := child("http://direct.invalid:8086"); err == nil {
		t.Errorf("NO_PROXY does not hold: %s", out)
	}
	if r := proxy.took(); len(r) != 0 {
		t.Errorf("requests at the proxy in spite of NO_PROXY: %v", r)
	}
}

// TestN8IPv6Only has a server on [::1] alone: by its address, and by a name that
// has an IPv4 address too, where nothing answers.
func TestN8IPv6Only(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6: %v", err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	server.Listener = l
	server.Start()
	defer server.Close()
	out, _ := newOutput(t, v1("http://"+l.Addr().String()))
	if err := push(t, out, "m v=1i 1"); err != nil {
		t.Error(err)
	}

	t.Run("two addresses, one dead", func(t *testing.T) {
		addrs, err := net.DefaultResolver.LookupHost(t.Context(), "localhost")
		if err != nil || !slices.Contains(addrs, "127.0.0.1") || !slices.Contains(addrs, "::1") {
			t.Skipf("localhost is %v here, %v: want both families", addrs, err)
		}
		out, _ := newOutput(t, v1(fmt.Sprintf("http://localhost:%d", l.Addr().(*net.TCPAddr).Port)))
		if err := push(t, out, "m v=1i 1"); err != nil {
			t.Error(err)
		}
	})
}

// TestN9HalfOpenConnection keeps a connection whose other end has gone without a
// word: the push that finds out fails in its time, the next one has a new
// connection.
func TestN9HalfOpenConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	defer close(done)
	go func() {
		for conns := 0; ; conns++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					io.Copy(io.Discard, req.Body)
					io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
					if conns == 0 {
						<-done
					}
				}
			}()
		}
	}()
	out, _ := newOutput(t, v1("http://"+l.Addr().String()))
	if err := push(t, out, "m v=1i 1"); err != nil {
		t.Fatal(err)
	}
	if err := pushIn(t, out, 200*time.Millisecond); kind(err) != "kept" {
		t.Fatalf("into the void: %s: %v", kind(err), err)
	}
	if err := push(t, out, "m v=1i 1"); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// TestN9CutAnywhere cuts the connection after every number of bytes that the
// server sends, and slows it down: nothing but the whole answer is delivery.
func TestN9CutAnywhere(t *testing.T) {
	const answer = "HTTP/1.1 204 No Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"
	for cut := 0; cut <= len(answer); cut += 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				if req, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					io.Copy(io.Discard, req.Body)
				}
				for _, b := range []byte(answer[:min(cut, len(answer))]) {
					time.Sleep(time.Millisecond)
					conn.Write([]byte{b})
				}
				conn.Close()
			}
		}()
		out, _ := newOutput(t, v1("http://"+l.Addr().String()))
		err = push(t, out, "m v=1i 1")
		l.Close()
		if whole := strings.HasSuffix(answer[:cut], "\r\n\r\n"); (err == nil) != whole {
			t.Errorf("cut after %d bytes: %v", cut, err)
		}
	}
}
