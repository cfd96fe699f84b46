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
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
)

// reports collects the health that an endpoint reports.
func reports(e *endpoint) chan string {
	reported := make(chan string, 100)
	e.ReportHealth(func(err error) { reported <- fmt.Sprint(err) })
	return reported
}

// TestBrokenCertificateIsReported at the first connection that fails, and at a
// reload. The endpoint is up again when the certificate is.
func TestBrokenCertificateIsReported(t *testing.T) {
	if testing.Short() {
		t.Skip("waits between two checks, as TestBrokenWebConfigIsReported does not")
	}
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
			t.Parallel()
			dir, ca := t.TempDir(), newAuthority(t, "test authority")
			cert, key, web := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"), filepath.Join(dir, "web.yml")
			ca.issue(cert, key, "first", nil)
			writeFile(t, web, webConfigTLS)
			e, book := newTestEndpoint(t, func(o *Options) { o.WebConfigFile = web })
			reported := reports(e)
			address := serve(t, e, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))[0].String()
			if r, err := client(t, &tls.Config{RootCAs: ca.pool()}).Get("https://" + address + "/-/healthy"); err != nil || r.StatusCode != 200 {
				t.Fatalf("with a good certificate: %v, %v", r, err)
			}
			writeFile(t, cert, "half a certifi")
			test.cause(t, e, address)
			want := fmt.Sprintf("web_config_file %q: failed to load X509KeyPair: tls: failed to find any PEM data in certificate input", web)
			if got := next(t, reported); got != want {
				t.Errorf("reported %q, want %q", got, want)
			}
			ca.issue(cert, key, "second", nil)
			e.Reload()
			if got := next(t, reported); got != "<nil>" {
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

// TestBrokenWebConfigIsReported: without TLS, every request is then answered with 500.
func TestBrokenWebConfigIsReported(t *testing.T) {
	web := filepath.Join(t.TempDir(), "web.yml")
	writeFile(t, web, webConfigUsers)
	e, book := newTestEndpoint(t, func(o *Options) { o.WebConfigFile = web })
	reported := reports(e)
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
	if got := next(t, reported); got != want {
		t.Errorf("reported %q, want %q", got, want)
	}
	for _, line := range book.all() {
		if strings.Contains(line, "level=ERROR") {
			t.Errorf("logged %q, which the agent does", line)
		}
	}
}

// TestFailingClientsAreNotAReason: a client that does not use TLS does not affect the
// endpoint's health.
func TestFailingClientsAreNotAReason(t *testing.T) {
	e, _, _, _ := serveTLS(t, webConfigTLS, nil)
	other, _ := newTestEndpoint(t, func(o *Options) { *o = e.opts })
	reported := reports(other)
	address := serve(t, other, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))[0]
	exchange(t, address, "GET / HTTP/1.0\r\n\r\n")
	if got := next(t, reported); got != "<nil>" {
		t.Errorf("reported %q", got)
	}
}

// TestWatchChecksRarely: many requests cause one check per second, and a failed check is
// repeated until the endpoint is up again.
func TestWatchChecksRarely(t *testing.T) {
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
		var reported []string
		w.report = func(err error) { reported = append(reported, fmt.Sprint(err)) }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.run(ctx)
		}()
		for range 30 { // three seconds of failing handshakes
			w.checkSoon()
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(17 * time.Second)
		broken.Store(true)
		w.checkSoon()
		time.Sleep(15 * time.Second)
		broken.Store(false)
		time.Sleep(time.Hour)
		cancel()
		<-done
		second := time.Second
		if diff := cmp.Diff([]time.Duration{0, second, 2 * second, 3 * second, 20 * second, 30 * second, 40 * second}, checks); diff != "" {
			t.Errorf("checked after (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"<nil>", "<nil>", "<nil>", "<nil>", "broken", "broken", "<nil>"}, reported); diff != "" {
			t.Errorf("reported (-want +got):\n%s", diff)
		}
	})
}

// TestHangingReadIsTheOnlyOne: nothing waits for a read that is late, such as one on a
// stalled mount, or starts another one. When it has ended, the file is read again.
func TestHangingReadIsTheOnlyOne(t *testing.T) {
	web := filepath.Join(t.TempDir(), "web.yml")
	writeFile(t, web, webConfigUsers)
	synctest.Test(t, func(t *testing.T) {
		c, reads, release := newWebConfig(web), atomic.Int32{}, make(chan struct{})
		c.read = func(string) (bool, error) {
			reads.Add(1)
			<-release
			return false, nil
		}
		want := fmt.Sprintf("web_config_file %q: it or a file that it names cannot be read within 5s", web)
		var waiting sync.WaitGroup
		for range 10 {
			waiting.Go(func() {
				if err := c.readable(t.Context()); err == nil || err.Error() != want {
					t.Errorf("readable gives %v, want %s", err, want)
				}
			})
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.validate(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("a check of an endpoint that stops gives %v", err)
		}
		waiting.Wait()
		began := time.Now()
		if err := c.validate(t.Context()); err == nil || err.Error() != want {
			t.Errorf("validate gives %v, want %s", err, want)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %v for a read that is late", waited)
		}
		if got := reads.Load(); got != 1 {
			t.Errorf("%d reads, want 1", got)
		}
		close(release)
		synctest.Wait()
		if err := c.validate(t.Context()); err != nil {
			t.Errorf("when it can be read: %v", err)
		}
		if got := reads.Load(); got != 2 {
			t.Errorf("%d reads, want 2", got)
		}
	})
}

// TestFIFOTakesNoThreads: a FIFO in place of any file would hold a thread for each
// handshake and request, for ever. The endpoint is down meanwhile, and up again when the
// file is back.
func TestFIFOTakesNoThreads(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a TLS server for each file")
	}
	t.Parallel()
	const config = webConfigTLS + "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n"
	for _, file := range []string{"web.yml", "server.crt", "server.key", "ca.crt"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			dir, ca := t.TempDir(), newAuthority(t, "test authority")
			ca.write(filepath.Join(dir, "ca.crt"))
			ca.issue(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"), "first", nil)
			web, path := filepath.Join(dir, "web.yml"), filepath.Join(dir, file)
			writeFile(t, web, config)
			e, _ := newTestEndpoint(t, func(o *Options) { o.WebConfigFile = web })
			reported := reports(e)
			address := serve(t, e, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))[0].String()
			kept := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool()}}}
			status := func(c *http.Client) int {
				t.Helper()
				r, err := c.Get("https://" + address + "/-/healthy")
				if err != nil {
					t.Fatal(err)
				}
				bodyOf(t, r)
				return r.StatusCode
			}
			if got := status(kept); got != http.StatusOK {
				t.Fatalf("status %d", got)
			}
			replaceByFIFO(t, path)
			for range 100 {
				c, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", address, &tls.Config{InsecureSkipVerify: true})
				if err == nil {
					c.Close()
					t.Fatal("a handshake without its files succeeds")
				}
				if got := status(kept); got != http.StatusServiceUnavailable {
					t.Fatalf("status %d on a connection that was open", got)
				}
			}
			wantNoReader(t, path)
			if got, want := next(t, reported), fmt.Sprintf("web_config_file %q: %s is not a regular file", web, path); got != want {
				t.Errorf("reported %q, want %q", got, want)
			}
			if err := os.Rename(path+".good", path); err != nil {
				t.Fatal(err)
			}
			e.Reload()
			for got := ""; got != "<nil>"; {
				got = next(t, reported)
			}
			for _, c := range []*http.Client{kept, client(t, &tls.Config{RootCAs: ca.pool()})} {
				if got := status(c); got != http.StatusOK {
					t.Errorf("status %d when the file is back", got)
				}
			}
		})
	}
}

// TestFIFOTakesNoThreadsWithoutTLS: without TLS, the requests read the file.
func TestFIFOTakesNoThreadsWithoutTLS(t *testing.T) {
	web := filepath.Join(t.TempDir(), "web.yml")
	writeFile(t, web, webConfigUsers)
	e, _ := newTestEndpoint(t, func(o *Options) { o.WebConfigFile = web })
	address := serve(t, e, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))[0].String()
	if r, err := client(t, nil).Get("http://" + address + "/metrics"); err != nil || r.StatusCode != http.StatusUnauthorized {
		t.Fatalf("with a good file: %v, %v", r, err)
	}
	replaceByFIFO(t, web)
	for range 100 {
		r, err := client(t, nil).Get("http://" + address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if body := bodyOf(t, r); r.StatusCode != http.StatusServiceUnavailable || body != "the web configuration cannot be read\n" {
			t.Fatalf("status %d, %q", r.StatusCode, body)
		}
	}
	wantNoReader(t, web)
}

// replaceByFIFO puts a FIFO that nobody writes in place of a file, which is kept
// with the suffix .good.
func replaceByFIFO(t *testing.T, path string) {
	t.Helper()
	if err := os.Rename(path, path+".good"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantNoReader checks that no thread has a FIFO open for reading, or waits in open(2) for a
// writer: only then does opening it for writing fail with ENXIO, see fifo(7).
func wantNoReader(t *testing.T, fifo string) {
	t.Helper()
	f, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if !errors.Is(err, syscall.ENXIO) {
		t.Errorf("opening %s for writing: %v, want %v: something reads it, or waits for it", fifo, err, syscall.ENXIO)
	}
	if err == nil {
		f.Close()
	}
}

// TestFIFOIsRefused at once, by Listen.
func TestFIFOIsRefused(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "web.yml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	e, _ := newTestEndpoint(t, func(o *Options) { o.WebConfigFile = fifo })
	want := fmt.Sprintf("web_config_file %q: %s is not a regular file", fifo, fifo)
	if err := e.Listen(t.Context()); err == nil || err.Error() != want {
		t.Errorf("Listen gives %v, want %s", err, want)
	}
}

// TestRemovedSocketIsRecreatedAtReload, and an error is reported if that fails.
func TestRemovedSocketIsRecreatedAtReload(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "metrics.sock")
	e, _ := newTestEndpoint(t, func(o *Options) { o.Listen = plugin.Strings{"unix://" + path} })
	reported := reports(e)
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
	steps := []struct {
		text string // content of a file in place of the socket; "": none
		want string
	}{
		{"", "<nil>"},
		{"x", "listen unix " + path + ": bind: address already in use (the file exists and is not a socket)"},
		{"", "<nil>"},
	}
	if testing.Short() {
		steps = steps[:1] // each further one waits for checkInterval
	}
	for _, step := range steps {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if step.text != "" {
			writeFile(t, path, step.text)
		}
		e.Reload()
		if got := next(t, reported); got != step.want {
			t.Errorf("reported %q, want %q", got, step.want)
		}
		if step.text == "" {
			scrape()
		}
	}
}
