package push

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sockwatch/outputs/internal/push/pushtest"
)

// A rawServer serves each connection with a function of the test.
func rawServer(t *testing.T, serve func(conn net.Conn, in *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn, bufio.NewReader(conn))
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// large returns options for uncompressed bodies, and a body of more than a
// mebibyte.
func large(url string) (options, string) {
	o := to(url)
	o.ContentEncoding = "identity"
	return o, `m s="` + strings.Repeat("x", 16<<20) + `" 1`
}

// TestLargeBodyThatIsRefusedEarly has a server that answers 413 to the headers, and
// resets the connection if the body is sent anyway.
func TestLargeBodyThatIsRefusedEarly(t *testing.T) {
	if testing.Short() {
		t.Skip("sends large bodies")
	}
	url := rawServer(t, func(conn net.Conn, in *bufio.Reader) {
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		conn.(*net.TCPConn).SetLinger(0)
		io.WriteString(conn, "HTTP/1.1 413 Request Entity Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		time.Sleep(100 * time.Millisecond) // a body that arrives now causes a reset
	})
	o, record := large(url)
	out, _ := newOutput(t, o)
	for range 10 {
		err := send(t, out, record)
		if want := url + ": 413 Request Entity Too Large (too large)"; fmt.Sprint(err) != want || pushtest.Kind(err) != "too large" {
			t.Fatalf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
		}
	}
}

// TestLargeBodyIsDelivered to servers that answer "Expect: 100-continue" correctly, with 417,
// or not at all.
func TestLargeBodyIsDelivered(t *testing.T) {
	if testing.Short() {
		t.Skip("sends large bodies")
	}
	t.Parallel()
	for _, tt := range []struct {
		name     string
		answer   string // to the headers
		closes   bool   // after that answer
		requests int    // of two pushes
	}{
		{name: "100", answer: "HTTP/1.1 100 Continue\r\n\r\n", requests: 2},
		{name: "417", answer: "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", closes: true, requests: 3},
		{name: "nothing", answer: "", requests: 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			requests := make(chan int64, 10) // lengths of bodies
			url := rawServer(t, func(conn net.Conn, in *bufio.Reader) {
				for {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					expects := req.Header.Get("Expect") == "100-continue"
					if expects {
						io.WriteString(conn, tt.answer)
						if tt.closes {
							requests <- 0
							return
						}
					}
					n, _ := io.Copy(io.Discard, req.Body)
					requests <- n
					io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
				}
			})
			o, record := large(url)
			out, _ := newOutput(t, o)
			for range 2 {
				if err := send(t, out, record); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(requests); n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
			var last int64
			for range len(requests) {
				last = <-requests
			}
			if want := int64(len(record) + 1); last != want {
				t.Errorf("%d bytes delivered, want %d", last, want)
			}
		})
	}
}

// TestSmallBodyIsNotAskedAbout: requests of the usual size take one round
// trip.
func TestSmallBodyIsNotAskedAbout(t *testing.T) {
	server := pushtest.NewServer(t)
	expect := make(chan string, 1)
	server.Does(func(w http.ResponseWriter, r *http.Request) {
		expect <- r.Header.Get("Expect")
		w.WriteHeader(http.StatusNoContent)
	})
	o := to(server.URL)
	o.ContentEncoding = "identity"
	out, _ := newOutput(t, o)
	if err := send(t, out, strings.Repeat("x", 1<<20-1)); err != nil {
		t.Fatal(err)
	}
	if got := <-expect; got != "" {
		t.Errorf("Expect: %s", got)
	}
}
