//go:build unix

package prometheus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
)

// reports collects what an endpoint says of its health.
func reports(e *endpoint) chan string {
	said := make(chan string, 100)
	e.ReportHealth(func(err error) { said <- fmt.Sprint(err) })
	return said
}

// TestBrokenCertificateIsReported: at the first connection that fails, and at a
// reload. The endpoint is up again when the certificate is.
func TestBrokenCertificateIsReported(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		cause func(t *testing.T, e *endpoint, address string)
	}{
		{"at a connection", func(t *testing.T, e *endpoint, address string) {
			c, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", address, &tls.Config{InsecureSkipVerify: true})
			if err == nil {
				c.Close()
				t.Error("a handshake without a certificate succeeds")
			}
		}},
		{"at a reload", func(_ *testing.T, e *endpoint, _ string) { e.Reload() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, ca := t.TempDir(), newAuthority(t, "test authority")
			cert, key, web := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"), filepath.Join(dir, "web.yml")
			ca.issue(cert, key, "first", nil)
			writeFile(t, web, webConfigTLS)
			e, book := newTestEndpoint(t, func(o *Options) { o.WebConfigFile = web })
			said := reports(e)
			address := serve(t, e, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))[0].String()
			if r, err := client(t, &tls.Config{RootCAs: ca.pool()}).Get("https://" + address + "/-/healthy"); err != nil || r.StatusCode != 200 {
				t.Fatalf("with a good certificate: %v, %v", r, err)
			}
			writeFile(t, cert, "half a certifi")
			test.cause(t, e, address)
			want := fmt.Sprintf("web_config_file %q: failed to load X509KeyPair: tls: failed to find any PEM data in certificate input", web)
			if got := next(t, said); got != want {
				t.Errorf("reported %q, want %q", got, want)
			}
			ca.issue(cert, key, "second", nil)
			e.Reload()
			if got := next(t, said); got != "<nil>" {
				t.Errorf("reported %q of a good certificate", got)
			}
			for _, line := range book.all() {
				if strings.Contains(line, "level=ERROR") {
					t.Errorf("logged %q, which the agent does", line)
				}
			}
		})
	}
}

// TestBrokenWebConfigIsReported: without TLS every request is answered 500 then.
func TestBrokenWebConfigIsReported(t *testing.T) {
	web := filepath.Join(t.TempDir(), "web.yml")
	writeFile(t, web, webConfigUsers)
	e, book := newTestEndpoint(t, func(o *Options) { o.WebConfigFile = web })
	said := reports(e)
	address := serve(t, e, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))[0].String()
	c := client(t, nil)
	if r, err := c.Get("http://" + address + "/metrics"); err != nil || r.StatusCode != http.StatusUnauthorized {
		t.Fatalf("with a good file: %v, %v", r, err)
	}
	writeFile(t, web, "basic_auth_users: hunter2\n")
	for range 3 {
		r, err := c.Get("http://" + address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if bodyOf(t, r); r.StatusCode != http.StatusInternalServerError {
			t.Errorf("status %d", r.StatusCode)
		}
	}
	want := fmt.Sprintf("web_config_file %q: yaml: unmarshal errors:\n  line 1: cannot unmarshal !!str `...` into map[string]config.Secret", web)
	if got := next(t, said); got != want {
		t.Errorf("reported %q, want %q", got, want)
	}
	for _, line := range book.all() {
		if strings.Contains(line, "level=ERROR") {
			t.Errorf("logged %q, which the agent does", line)
		}
	}
}

// TestClientsThatFailAreNoReason: a client that speaks no TLS finds the endpoint as
// good as before.
func TestClientsThatFailAreNoReason(t *testing.T) {
	e, _, _, _ := serveTLS(t, webConfigTLS, nil)
	other, _ := newTestEndpoint(t, func(o *Options) { *o = e.opts })
	said := reports(other)
	address := serve(t, other, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))[0]
	exchange(t, address, "GET / HTTP/1.0\r\n\r\n")
	if got := next(t, said); got != "<nil>" {
		t.Errorf("reported %q", got)
	}
}

// TestWatchChecksSeldom: many doubts are one check a second, and a failed one is
// repeated until the endpoint is up again.
func TestWatchChecksSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var broken atomic.Bool
		var checks []time.Duration
		w := newWatch(func(context.Context) error {
			checks = append(checks, time.Since(start))
			if broken.Load() {
				return errors.New("broken")
			}
			return nil
		})
		var said []string
		w.report = func(err error) { said = append(said, fmt.Sprint(err)) }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.run(ctx)
		}()
		for range 30 { // three seconds of failing handshakes
			w.doubt()
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(17 * time.Second)
		broken.Store(true)
		w.doubt()
		time.Sleep(15 * time.Second)
		broken.Store(false)
		time.Sleep(time.Hour)
		cancel()
		<-done
		second := time.Second
		if diff := cmp.Diff([]time.Duration{0, second, 2 * second, 3 * second, 20 * second, 30 * second, 40 * second}, checks); diff != "" {
			t.Errorf("checked after (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"<nil>", "<nil>", "<nil>", "<nil>", "broken", "broken", "<nil>"}, said); diff != "" {
			t.Errorf("reported (-want +got):\n%s", diff)
		}
	})
}

// TestWebConfigThatCannotBeRead: a FIFO that nobody writes stands for a stalled mount.
func TestWebConfigThatCannotBeRead(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for five seconds")
	}
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "web.yml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	e, _ := newTestEndpoint(t, func(o *Options) { o.WebConfigFile = fifo })
	want := fmt.Sprintf("web_config_file %q: it or what it names cannot be read within 5s", fifo)
	if err := e.Listen(t.Context()); err == nil || err.Error() != want {
		t.Errorf("Listen gives %v, want %s", err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.web.validate(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a check of an endpoint that stops gives %v", err)
	}
	// web.Validate reads the file several times.
	written := make(chan struct{})
	go func() {
		defer close(written)
		for e.web.reading != nil && len(e.web.reading) == 0 {
			if f, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
				f.WriteString("# no user\n")
				f.Close()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	next(t, written)
	if err := e.web.validate(t.Context()); err != nil {
		t.Errorf("when it has been read: %v", err)
	}
}

// TestRemovedSocketIsMadeAgainAtReload, and its trouble is reported if it cannot be.
func TestRemovedSocketIsMadeAgainAtReload(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "metrics.sock")
	e, _ := newTestEndpoint(t, func(o *Options) { o.Listen = plugin.Strings{"unix://" + path} })
	said := reports(e)
	serve(t, e, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))
	scrape := func() {
		t.Helper()
		c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}
		r, err := c.Get("http://any/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if page := bodyOf(t, r); r.StatusCode != 200 || !strings.Contains(page, "tcp_listen_sockets{") {
			t.Errorf("status %d", r.StatusCode)
		}
	}
	scrape()
	for _, step := range []struct {
		text string // of a file in the place of the socket; "": none
		want string
	}{
		{"", "<nil>"},
		{"x", "listen unix " + path + ": bind: address already in use (a file that is not a socket has this path)"},
		{"", "<nil>"},
	} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if step.text != "" {
			writeFile(t, path, step.text)
		}
		e.Reload()
		if got := next(t, said); got != step.want {
			t.Errorf("reported %q, want %q", got, step.want)
		}
		if step.text == "" {
			scrape()
		}
	}
}
