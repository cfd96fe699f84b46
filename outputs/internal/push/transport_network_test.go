package push

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/soak"
	"sockwatch/outputs/internal/push/pushtest"
)

// TestProxyOfTheEnvironmentIsUsed pushes in a child process, since a process reads
// these variables once.
func TestProxyOfTheEnvironmentIsUsed(t *testing.T) {
	proxy := pushtest.NewServer(t)
	child := func(url string) ([]byte, error) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envPushTo+"="+url, "HTTP_PROXY="+proxy.URL, "HTTPS_PROXY="+proxy.URL, "NO_PROXY=direct.invalid", "GORACE=atexit_sleep_ms=0")
		return cmd.CombinedOutput()
	}
	if out, err := child("http://server.invalid:8086"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	want := []string{"http://server.invalid:8086/write"}
	var got []string
	for _, r := range proxy.Took() {
		got = append(got, r.URL)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests at the proxy (-want +got)\n%s", diff)
	}
	if out, err := child("https://server.invalid:8086"); err == nil {
		t.Errorf("a proxy that answers CONNECT with 204 was taken for the server: %s", out)
	}
	if r := proxy.Took(); len(r) != 1 || r[0].Method != "CONNECT" {
		t.Errorf("requests at the proxy: %v, want one CONNECT", r)
	}
	if out, err := child("http://direct.invalid:8086"); err == nil {
		t.Errorf("NO_PROXY does not hold: %s", out)
	}
	loopback := pushtest.NewServer(t)
	if out, err := child(loopback.URL); err != nil {
		t.Errorf("loopback: %v: %s", err, out)
	}
	if r := proxy.Took(); len(r) != 0 {
		t.Errorf("requests at the proxy in spite of NO_PROXY, or to loopback: %v", r)
	}
}

// TestProxyOfTheOptionsIsUsed, for loopback, too.
func TestProxyOfTheOptionsIsUsed(t *testing.T) {
	proxy := pushtest.NewServer(t)
	login := make(chan string, 1)
	proxy.Does(func(w http.ResponseWriter, r *http.Request) { login <- r.Header.Get("Proxy-Authorization") })
	o := to("http://127.0.0.1:1/a")
	o.HTTPProxyURL = strings.Replace(proxy.URL, "http://", "http://u:s3cret@", 1)
	out, _ := newOutput(t, o)
	if err := send(t, out, "m v=1i 1"); err != nil {
		t.Fatal(err)
	}
	if got, want := <-login, "Basic dTpzM2NyZXQ="; got != want {
		t.Errorf("Proxy-Authorization: %q, want %q", got, want)
	}
	if r := proxy.Took(); len(r) != 1 || r[0].URL != "http://127.0.0.1:1/a/write?db=d" || r[0].Login != "" {
		t.Errorf("requests at the proxy: %+v", r)
	}
}

// TestRefusalsOfAProxy keep the points, say what to do, and show no secret.
func TestRefusalsOfAProxy(t *testing.T) {
	for _, tt := range []struct {
		name   string
		url    string
		status int
		want   string // PROXY is the proxy's address
	}{
		{name: "login over http", url: "http://server.invalid", status: 407,
			want: `http://server.invalid: 407 Proxy Authentication Required: not "u:[secret]", "Basic [secret]": check the user and password of the proxy`},
		{name: "login over https", url: "https://server.invalid", status: 407,
			want: "https://server.invalid: the proxy PROXY answers CONNECT with 407 Proxy Authentication Required: check its user and password"},
		{name: "forbidden over https", url: "https://server.invalid", status: 403,
			want: "https://server.invalid: the proxy PROXY answers CONNECT with 403 Forbidden"},
		{name: "a server that the proxy cannot reach", url: "http://server.invalid", status: 502,
			want: `http://server.invalid: 502 Bad Gateway: not "u:[secret]", "Basic [secret]"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxy := pushtest.NewServer(t)
			proxy.Answers(tt.status, `not "u:s3cret", "Basic dTpzM2NyZXQ="`)
			o := to(tt.url)
			o.HTTPProxyURL = strings.Replace(proxy.URL, "http://", "http://u:s3cret@", 1)
			out, _ := newOutput(t, o)
			err := send(t, out, "m v=1i 1")
			got := strings.ReplaceAll(fmt.Sprint(err), strings.TrimPrefix(proxy.URL, "http://"), "PROXY")
			if diff := cmp.Diff([]string{"kept", tt.want}, []string{pushtest.Kind(err), got}); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestProxyThatIsDown keeps the points; the error shows no secret.
func TestProxyThatIsDown(t *testing.T) {
	o := to("http://server.invalid")
	o.HTTPProxyURL = "http://u:s3cret@127.0.0.1:1"
	out, _ := newOutput(t, o)
	err := send(t, out, "m v=1i 1")
	want := "http://server.invalid: proxyconnect tcp: dial tcp 127.0.0.1:1: connect: connection refused"
	if pushtest.Kind(err) != "kept" || fmt.Sprint(err) != want {
		t.Errorf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
	}
}

// TestSOCKSProxy speaks as much of SOCKS 5 (RFC 1928) as a client needs.
func TestSOCKSProxy(t *testing.T) {
	server := pushtest.NewServer(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		hello := make([]byte, 3) // version, one method, none
		io.ReadFull(in, hello)
		conn.Write([]byte{5, 0})
		head := make([]byte, 5) // version, connect, reserved, domain name, its length
		io.ReadFull(in, head)
		name := make([]byte, int(head[4])+2)
		io.ReadFull(in, name)
		asked <- string(name[:head[4]])
		conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		// Other tests replace the default resolver, which net.Dial reads.
		to, err := (&net.Dialer{Resolver: &net.Resolver{}}).Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
		if err != nil {
			return
		}
		defer to.Close()
		go io.Copy(to, in)
		io.Copy(conn, to)
	}()
	o := to("http://server.invalid")
	o.HTTPProxyURL = "socks5://" + l.Addr().String()
	out, _ := newOutput(t, o)
	if err := send(t, out, "m v=1i 1"); err != nil {
		t.Fatal(err)
	}
	if got := <-asked; got != "server.invalid" {
		t.Errorf("the proxy was asked for %q", got)
	}
	if n := len(server.Took()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// TestServerOnIPv6Only has a server that listens only on [::1].
func TestServerOnIPv6Only(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6: %v", err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	server.Listener = l
	server.Start()
	defer server.Close()
	out, _ := newOutput(t, to("http://"+l.Addr().String()))
	if err := send(t, out, "m v=1i 1"); err != nil {
		t.Error(err)
	}
}

// TestTwoAddressesOneDead has a name with an IPv4 and an IPv6 address, only one of which
// has a server.
func TestTwoAddressesOneDead(t *testing.T) {
	resolve(t, map[uint16][]byte{typeA: net.IPv4(127, 0, 0, 1).To4(), typeAAAA: net.IPv6loopback})
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Skipf("no listener on %s: %v", address, err)
		}
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
		server.Listener = l
		server.Start()
		defer server.Close()
		out, _ := newOutput(t, to(fmt.Sprintf("http://server.example:%d", l.Addr().(*net.TCPAddr).Port)))
		if err := send(t, out, "m v=1i 1"); err != nil {
			t.Errorf("server on %s: %v", l.Addr(), err)
		}
	}
}

// TestUnknownHostKeepsThePoints: the name does not resolve.
func TestUnknownHostKeepsThePoints(t *testing.T) {
	resolve(t, nil)
	out, _ := newOutput(t, to("http://server.example:8086"))
	err := send(t, out, "m v=1i 1")
	if pushtest.Kind(err) != "kept" || !strings.Contains(fmt.Sprint(err), "lookup server.example") {
		t.Errorf("%s: %v", pushtest.Kind(err), err)
	}
}

const typeA, typeAAAA = 1, 28 // of DNS records

// resolve makes a name server of the test answer every question with the records of
// these types, until the end of the test.
func resolve(t *testing.T, records map[uint16][]byte) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := dnsAnswer(buf[:n], records); answer != nil {
				conn.WriteTo(answer, from)
			}
		}
	}()
	system := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = system
		conn.Close()
	})
}

// dnsAnswer answers a query with one question.
func dnsAnswer(query []byte, records map[uint16][]byte) []byte {
	const header = 12
	end := bytes.IndexByte(query[header:], 0)
	if end < 0 || len(query) < header+end+5 {
		return nil
	}
	question := query[header : header+end+5]
	data := records[binary.BigEndian.Uint16(question[end+1:])]
	answer := append(bytes.Clone(query[:2]), 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0)
	answer = append(answer, question...)
	if data == nil {
		return answer
	}
	answer[7] = 1                                           // one record
	answer = append(answer, 0xc0, header)                   // of the same name
	answer = append(answer, question[end+1:]...)            // type and class
	answer = append(answer, 0, 0, 0, 0, 0, byte(len(data))) // time to live, length
	return append(answer, data...)
}

// TestHalfOpenConnectionIsReplaced keeps a connection whose other end has gone silently: the
// push that notices fails within its time, and the next one opens a new
// connection.
func TestHalfOpenConnectionIsReplaced(t *testing.T) {
	t.Parallel()
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
	out, _ := newOutput(t, to("http://"+l.Addr().String()))
	if err := send(t, out, "m v=1i 1"); err != nil {
		t.Fatal(err)
	}
	if err := sendIn(t, out, 200*time.Millisecond, "m v=1i 1"); pushtest.Kind(err) != "kept" {
		t.Fatalf("into the void: %s: %v", pushtest.Kind(err), err)
	}
	if err := send(t, out, "m v=1i 1"); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// TestDeadConnectionIsReplaced closes a kept connection before each request: net/http repeats
// the request on a new one.
func TestDeadConnectionIsReplaced(t *testing.T) {
	server := pushtest.NewServer(t)
	out, _ := newOutput(t, to(server.URL))
	for i := range 20 {
		if err := send(t, out, "m v=1i 1"); err != nil {
			t.Errorf("push %d: %v", i, err)
		}
		server.CloseClientConnections()
	}
}

// TestOnlyAWholeAnswerIsDelivery cuts the connection after every number of bytes that the
// server sends, and slows it down: only the whole answer means delivered.
func TestOnlyAWholeAnswerIsDelivery(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 204 No Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"
	step := 3 * soak.Step(3)
	for cut := len(answer) % step; cut <= len(answer); cut += step { // the last is the whole
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
				for _, b := range []byte(answer[:cut]) {
					time.Sleep(time.Millisecond)
					conn.Write([]byte{b})
				}
				conn.Close()
			}
		}()
		out, _ := newOutput(t, to("http://"+l.Addr().String()))
		err = send(t, out, "m v=1i 1")
		l.Close()
		if whole := strings.HasSuffix(answer[:cut], "\r\n\r\n"); (err == nil) != whole {
			t.Errorf("cut after %d bytes: %v", cut, err)
		}
	}
}
