package prometheus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// The listeners of the tests have this program. Only trusted readers may see it.
const innerText = "/usr/sbin/nginx"

func TestWhoIsTrusted(t *testing.T) {
	unix := &net.UnixAddr{Net: "unix", Name: "/run/s"}
	for _, test := range []struct {
		name   string
		remote string
		local  net.Addr
		proto  int // minor version
		header []string
		state  *tls.ConnectionState
		want   bool
	}{
		{name: "loopback", remote: "127.0.0.1:5", proto: 1, want: true},
		{name: "IPv6 loopback", remote: "[::1]:5", proto: 1, want: true},
		{name: "mapped loopback", remote: "[::ffff:127.9.9.9]:5", proto: 1, want: true},
		{name: "remote", remote: "192.0.2.1:5", proto: 1},
		{name: "remote with a password that nobody has checked", remote: "192.0.2.1:5", proto: 1, header: []string{"Authorization", "Basic eDp5"}},
		{name: "link-local", remote: "[fe80::1%eth0]:5", proto: 1},
		{name: "unix socket", remote: "@", local: unix, proto: 1, want: true},
		{name: "no address", remote: "", proto: 1},
		{name: "not an address", remote: "127.0.0.1", proto: 1},
		{name: "proxy, Forwarded", remote: "127.0.0.1:5", proto: 1, header: []string{"Forwarded", "for=192.0.2.1"}},
		{name: "proxy, X-Forwarded-For", remote: "127.0.0.1:5", proto: 1, header: []string{"X-Forwarded-For", "127.0.0.1"}},
		{name: "proxy, X-Forwarded-Proto", remote: "[::1]:5", proto: 1, header: []string{"X-Forwarded-Proto", "https"}},
		{name: "proxy, X-Real-IP", remote: "127.0.0.1:5", proto: 1, header: []string{"X-Real-IP", ""}},
		{name: "proxy, X-Cluster-Client-IP", remote: "127.0.0.1:5", proto: 1, header: []string{"X-Cluster-Client-IP", "192.0.2.1"}},
		{name: "proxy, Fastly-Client-IP", remote: "127.0.0.1:5", proto: 1, header: []string{"Fastly-Client-IP", "192.0.2.1"}},
		{name: "proxy, CF-Connecting-IPv6", remote: "127.0.0.1:5", proto: 1, header: []string{"CF-Connecting-IPv6", "2001:db8::1"}},
		{name: "proxy, X-Azure-ClientIP", remote: "127.0.0.1:5", proto: 1, header: []string{"X-Azure-ClientIP", "192.0.2.1"}},
		{name: "proxy, X-Envoy-External-Address", remote: "127.0.0.1:5", proto: 1, header: []string{"X-Envoy-External-Address", "192.0.2.1"}},
		{name: "other headers", remote: "127.0.0.1:5", proto: 1, header: []string{"X-Request-Id", "1", "User-Agent", "x", "Accept-Language", "en"}, want: true},
		{name: "proxy, Via", remote: "127.0.0.1:5", proto: 1, header: []string{"Via", "1.1 x"}},
		{name: "proxy before a unix socket", remote: "@", local: unix, proto: 1, header: []string{"X-Forwarded-For", "192.0.2.1"}},
		{name: "nginx with its defaults", remote: "127.0.0.1:5", proto: 0},
		{name: "certificate", remote: "192.0.2.1:5", proto: 1, state: &tls.ConnectionState{VerifiedChains: make([][]*x509.Certificate, 1)}, want: true},
		{name: "certificate that nobody has verified", remote: "192.0.2.1:5", proto: 1, state: &tls.ConnectionState{PeerCertificates: make([]*x509.Certificate, 1)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr, r.ProtoMinor, r.TLS = test.remote, test.proto, test.state
			if test.local != nil {
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, test.local))
			}
			for i := 0; i+1 < len(test.header); i += 2 {
				r.Header.Set(test.header[i], test.header[i+1])
			}
			if got := trusted(r); got != test.want {
				t.Errorf("trusted: %v, want %v", got, test.want)
			}
		})
	}
}

// TestReadersWithAPasswordAreTrusted, through a proxy too, if exporter-toolkit has checked
// the password.
func TestReadersWithAPasswordAreTrusted(t *testing.T) {
	web := filepath.Join(t.TempDir(), "web.yml")
	writeFile(t, web, webConfigUsers)
	e, _ := newTestEndpoint(t, func(o *Options) { o.WebConfigFile = web })
	url := "http://" + serve(t, e, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))[0].String()
	for _, test := range []struct {
		name, config, password string
		wantStatus             int
		wantInner              bool
	}{
		{name: "right", config: webConfigUsers, password: "secret", wantStatus: 200, wantInner: true},
		{name: "wrong", config: webConfigUsers, password: "x", wantStatus: 401},
		{name: "nobody asks for one", config: "http_server_config:\n  http2: true\n", password: "secret", wantStatus: 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			writeFile(t, web, test.config)
			for _, path := range []string{"/api/listeners", "/metrics"} {
				r, err := http.NewRequest(http.MethodGet, url+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.SetBasicAuth("prometheus", test.password)
				r.Header.Set("X-Forwarded-For", "192.0.2.1")
				answer, err := client(t, nil).Do(r)
				if err != nil {
					t.Fatal(err)
				}
				inner := strings.Contains(bodyOf(t, answer), innerText)
				if answer.StatusCode != test.wantStatus || inner != (test.wantInner && path != "/metrics") {
					t.Errorf("%s: status %d, shows the program: %v", path, answer.StatusCode, inner)
				}
			}
		})
	}
}

func TestReadersWithACertificateAreTrusted(t *testing.T) {
	config := webConfigTLS + "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n"
	_, metrics, dir, ca := serveTLS(t, config, nil)
	cert, key := filepath.Join(dir, "reader.crt"), filepath.Join(dir, "reader.key")
	ca.issue(cert, key, "reader", nil)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		certs []tls.Certificate
		want  bool
	}{"without": {nil, false}, "with": {[]tls.Certificate{pair}, true}} {
		r, err := http.NewRequest(http.MethodGet, strings.TrimSuffix(metrics, "/metrics")+"/api/listeners", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Via", "1.1 proxy")
		answer, err := client(t, &tls.Config{RootCAs: ca.pool(), Certificates: test.certs}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(bodyOf(t, answer), innerText); got != test.want || answer.StatusCode != http.StatusOK {
			t.Errorf("%s a certificate: status %d, shows the program: %v, want %v", name, answer.StatusCode, got, test.want)
		}
	}
}

func TestReadersOfAUnixSocketAreTrusted(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	e, _ := newTestEndpoint(t, func(o *Options) { o.Listen = plugin.Strings{"unix:" + socket} })
	serve(t, e, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))
	c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer c.CloseIdleConnections()
	r, err := c.Get("http://localhost/api/listeners")
	if err != nil {
		t.Fatal(err)
	}
	if text := bodyOf(t, r); !strings.Contains(text, innerText) {
		t.Errorf("status %d, without the program: %s", r.StatusCode, text)
	}
}

// TestPageIsServedUnderTheNamesOfTheHost. The other paths do not depend on the name.
func TestPageIsServedUnderTheNamesOfTheHost(t *testing.T) {
	e, _ := newTestEndpoint(t, func(o *Options) {
		o.Listen = plugin.Strings{"127.0.0.1:0", "Metrics.Internal:8088"}
		o.PageHosts = plugin.Strings{"*.Corp.example"}
	})
	e.env.Hostname = "web-1.prod.example"
	kernel, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	h := testHandler(e, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))
	for host, want := range map[string]int{
		"web-1:8088": 200, "web-1.prod.example": 200, "web-1.evil.example": 403, "a.corp.example": 200, "metrics.internal:8088": 200, kernel: 200, "127.0.0.1": 200,
		"evil.example": 403, "corp.example": 403,
	} {
		for _, path := range []string{"/", "/metrics", "/sd/listeners", "/-/healthy", "/-/ready"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Host = host
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if status := want; path == "/" && w.Code != status || path != "/" && w.Code != 200 {
				t.Errorf("%s of %s: status %d", path, host, w.Code)
			}
		}
	}
}

func TestWithoutThePageThereAreOnlyLinks(t *testing.T) {
	e, _ := newTestEndpoint(t, func(o *Options) { o.Page = false })
	board := boardOf(batch("tcp_listen", listener(80, "nginx", "root")))
	for path, want := range map[string]int{"/": 200, "/events": 404, "/health": 404, "/api/listeners": 404, "/api/events": 404, "/stream": 404, "/listener/x": 404, "/assets/x": 404} {
		r := get(t, e, board, path)
		if r.StatusCode != want || strings.Contains(bodyOf(t, r), "nginx") {
			t.Errorf("%s: status %d, want %d", path, r.StatusCode, want)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = "any.name"
	w := httptest.NewRecorder()
	testHandler(e, board).ServeHTTP(w, r)
	if w.Code != 200 {
		t.Errorf("the plain page under any name: status %d", w.Code)
	}
}

// TestPageAndScrapesHaveLimitsOfTheirOwn: readers of the page and scripts cannot use up
// those of scrapers, nor the other way around.
func TestPageAndScrapesHaveLimitsOfTheirOwn(t *testing.T) {
	for _, test := range []struct {
		path   string
		limit  int
		others []string
	}{
		{path: "/", limit: 16, others: []string{"/metrics", "/sd/listeners", "/api/listeners", "/-/ready"}},
		{path: "/api/listeners", limit: 4, others: []string{"/metrics", "/sd/listeners", "/", "/-/ready"}},
		{path: "/metrics", limit: maxRequests, others: []string{"/", "/events", "/api/events", "/-/ready"}},
	} {
		t.Run(test.path, func(t *testing.T) {
			e, _ := newTestEndpoint(t, nil)
			waiting, release := make(chan struct{}), make(chan struct{})
			board := &blockingBoard{waitingBoard{fakeBoard: boardOf(batch("tcp_listen", listener(80, "nginx", "root"))), waiting: waiting, release: release}, make(chan struct{}, test.limit)}
			for range test.limit {
				board.tokens <- struct{}{}
			}
			h := testHandler(e, board)
			ask := func(path string) *httptest.ResponseRecorder {
				w := httptest.NewRecorder()
				r := httptest.NewRequest(http.MethodGet, path, nil)
				h.ServeHTTP(w, r)
				return w
			}
			var wg sync.WaitGroup
			for range test.limit {
				wg.Go(func() { ask(test.path) })
				next(t, waiting)
			}
			if w := ask(test.path); w.Code != 503 || w.Header().Get("Retry-After") == "" {
				t.Errorf("request %d at the same time: status %d, Retry-After %q", test.limit+1, w.Code, w.Header().Get("Retry-After"))
			}
			for _, path := range test.others {
				if w := ask(path); w.Code != 200 {
					t.Errorf("%s meanwhile: status %d", path, w.Code)
				}
			}
			close(release)
			wg.Wait()
		})
	}
}

// A blockingBoard keeps as many readers waiting as it has tokens.
type blockingBoard struct {
	waitingBoard
	tokens chan struct{}
}

func (b *blockingBoard) Latest() []*metric.Batch {
	select {
	case <-b.tokens:
		return b.waitingBoard.Latest()
	default:
		return b.fakeBoard.Latest()
	}
}

func TestRequestsToThePageAreCounted(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", listener(80, "nginx", "root")))
	h := testHandler(e, board)
	for _, test := range []struct{ path, host, site string }{
		{"/", "web-1", ""}, {"/events", "web-1", ""}, {"/api/listeners", "web-1", ""}, {"/assets/x", "web-1", ""},
		{"/", "evil.example", ""}, {"/api/events", "web-1", "cross-site"}, {"/api/events", "web-1", "cross-site"}, {"/-/healthy", "web-1", ""},
	} {
		r := httptest.NewRequest(http.MethodGet, test.path, nil)
		r.Host = strings.Replace(test.host, "evil.example", "evil.test", 1)
		if test.site != "" {
			r.Header.Set("Sec-Fetch-Site", test.site)
		}
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	var got []string
	for line := range strings.Lines(bodyOf(t, get(t, e, board, "/metrics"))) {
		if strings.HasPrefix(line, ownName+"_page_") || strings.HasPrefix(line, ownName+"_refused") {
			got = append(got, strings.TrimSuffix(strings.TrimPrefix(line, ownName+"_"), "\n"))
		}
	}
	want := []string{
		`page_refused_requests_total{reason="busy"} 0`, `page_refused_requests_total{reason="cross_site"} 2`, `page_refused_requests_total{reason="host"} 1`,
		`page_requests_total{kind="api"} 1`, `page_requests_total{kind="asset"} 1`, `page_requests_total{kind="page"} 2`, `page_requests_total{kind="stream"} 0`,
		"refused_requests_total 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestOpenStreamsDoNotDelayAStop: Serve must return within a second.
func TestOpenStreamsDoNotDelayAStop(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	if err := e.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	url := "http://" + e.listeners[0].Addr().String() + "/stream"
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- e.Serve(ctx, boardOf(batch("tcp_listen", listener(80, "nginx", "root")))) }()
	r, err := testClient.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if _, err := r.Body.Read(make([]byte, 1)); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v", r.StatusCode, err)
	}
	cancel()
	if err := next(t, served); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		t.Errorf("the stream is cut off instead of ended: %v", err)
	}
}

// TestStreamsPassTLSAndPasswords: exporter-toolkit serves HTTP/2 over TLS.
func TestStreamsPassTLSAndPasswords(t *testing.T) {
	for _, test := range []struct {
		name      string
		http2     bool
		wantProto string
	}{
		{name: "HTTP/1.1", wantProto: "HTTP/1.1"},
		{name: "HTTP/2", http2: true, wantProto: "HTTP/2.0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, metrics, _, ca := serveTLS(t, webConfigTLS+webConfigUsers, nil)
			r, err := http.NewRequest(http.MethodGet, strings.TrimSuffix(metrics, "/metrics")+"/stream", nil)
			if err != nil {
				t.Fatal(err)
			}
			c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool()}, ForceAttemptHTTP2: test.http2}}
			defer c.CloseIdleConnections()
			answer, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if answer.StatusCode != http.StatusUnauthorized {
				t.Errorf("without a password: status %d", answer.StatusCode)
			}
			r.SetBasicAuth("prometheus", "secret")
			if answer, err = c.Do(r); err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			event := make([]byte, len("id: "))
			if _, err := io.ReadFull(answer.Body, event); err != nil || string(event) != "id: " || answer.Proto != test.wantProto {
				t.Errorf("%s, status %d, %q, %v", answer.Proto, answer.StatusCode, event, err)
			}
		})
	}
}
