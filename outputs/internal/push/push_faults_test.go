package push

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"sockwatch/outputs/internal/push/pushtest"
)

// TestBadServers has servers that break the protocol, or never end. Each push ends, keeps the
// points unless the server said 2xx, needs little memory, and the next push with a good answer
// succeeds.
func TestBadServers(t *testing.T) {
	const ok = "HTTP/1.1 204 No Content\r\n\r\n"
	endless := func(conn net.Conn, head, part string) {
		io.WriteString(conn, head)
		for {
			if _, err := io.WriteString(conn, part); err != nil {
				return
			}
		}
	}
	chunk := strings.Repeat("x", 1<<16)
	for _, tt := range []struct {
		name   string
		answer func(conn net.Conn)
		kind   string
		err    string        // in the error
		within time.Duration // 0: a time that only a fault exceeds
	}{
		{name: "a flood of 1xx", answer: func(conn net.Conn) {
			endless(conn, "", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 1000))
		},
			kind: "kept", err: "server response headers exceeded 65536 bytes; aborted"},
		{name: "some 1xx", answer: func(conn net.Conn) {
			io.WriteString(conn, strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 4)+ok)
		}, kind: "stored"},
		{name: "another protocol", answer: func(conn net.Conn) { io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n") },
			kind: "kept", err: `malformed HTTP response "SSH-2.0-OpenSSH_9.2": this is not the port of an HTTP/1.1 server: check urls`},
		{name: "switching protocols", answer: func(conn net.Conn) { io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n") },
			kind: "kept", err: "101 Switching Protocols"},
		{name: "a header without an end", answer: func(conn net.Conn) { endless(conn, "HTTP/1.1 204 No Content\r\nX: ", chunk) },
			kind: "kept", err: "server response headers exceeded 65536 bytes; aborted"},
		{name: "headers without an end", answer: func(conn net.Conn) {
			endless(conn, "HTTP/1.1 204 No Content\r\n", strings.Repeat("X: y\r\n", 1000))
		}, kind: "kept", err: "server response headers exceeded 65536 bytes; aborted"},
		{name: "an error without an end", answer: func(conn net.Conn) { endless(conn, "HTTP/1.1 500 X\r\n\r\n", chunk) },
			kind: "kept", err: "500 Internal Server Error: xxx"},
		{name: "chunks without an end", answer: func(conn net.Conn) {
			endless(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "10000\r\n"+chunk+"\r\n")
		}, kind: "stored"},
		{name: "chunks that are none", answer: func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\nRetry-After: 9\r\n\r\nzz\r\n")
		}, kind: "after 9s", err: "the answer is incomplete: invalid byte in chunk length"},
		{name: "two lengths", answer: func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
		}, kind: "kept", err: "http: message cannot contain multiple Content-Length headers"},
		{name: "an end of the stream instead of an answer", answer: func(conn net.Conn) { conn.(*net.TCPConn).CloseWrite(); io.Copy(io.Discard, conn) },
			kind: "kept", err: "EOF"},
		{name: "an end of the stream in the status", answer: func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 20")
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn)
		}, kind: "kept", err: `malformed HTTP status code "20"`},
		{name: "silence", answer: func(conn net.Conn) { io.Copy(io.Discard, conn) }, kind: "kept", err: "context deadline exceeded", within: 300 * time.Millisecond},
		{name: "a byte now and then", answer: func(conn net.Conn) {
			for {
				if _, err := conn.Write([]byte("H")); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}, kind: "kept", err: "context deadline exceeded", within: 300 * time.Millisecond},
		{name: "an error page that trickles", answer: func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 403 X\r\n\r\n")
			for {
				if _, err := conn.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}, kind: "kept", err: "403 Forbidden: the answer is incomplete: context deadline exceeded", within: 300 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.within > 0 && testing.Short() {
				t.Skip("waits for a deadline")
			}
			good := false
			url := rawServer(t, func(conn net.Conn, in *bufio.Reader) {
				for {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					io.Copy(io.Discard, req.Body)
					if req.Header.Get("X-Good") == "" {
						tt.answer(conn)
						return
					}
					io.WriteString(conn, ok)
				}
			})
			out, _ := newOutput(t, to(url))
			request := func() *Request {
				r := &Request{Body: []byte("x"), Records: 2}
				if good {
					r.Header = http.Header{"X-Good": {"1"}}
				}
				return r
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := within(t, cmp.Or(tt.within, 30*time.Second), out, request())
			runtime.ReadMemStats(&after)
			if got := pushtest.Kind(err); got != tt.kind || !strings.Contains(fmt.Sprint(err), tt.err) || err != nil && !strings.HasPrefix(err.Error(), url+": ") {
				t.Errorf("%s: error %.300v, want %s: %s", got, err, tt.kind, tt.err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
				t.Errorf("%d bytes allocated", n)
			}
			good = true
			if err := within(t, 30*time.Second, out, request()); err != nil {
				t.Errorf("the next push: %v", err)
			}
		})
	}
}
