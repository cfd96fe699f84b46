package prometheus

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest"
)

// TestMain runs the tests, or is the child of TestSystemdPassesSockets.
func TestMain(m *testing.M) {
	if listen := os.Getenv(envListen); listen != "" {
		if err := serveActivated(strings.Split(listen, ",")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Set("test.parallel", "8") // the tests wait more than they compute; -parallel overrides it
	os.Exit(m.Run())
}

func TestConformance(t *testing.T) {
	t.Parallel()
	o := Defaults()
	o.Listen = plugin.Strings{"127.0.0.1:0", "unix:" + filepath.Join(t.TempDir(), "s")}
	plugintest.Endpoint(t, Plugin, &o)
	plugintest.Descs(t, Plugin)
}

func TestPage(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(
		batch("sockwatch", metric.Point{Name: "sockwatch_input", Tags: metric.NewTags("input", "tcp_listen"), Fields: []metric.Field{
			{Key: "up", Value: metric.Bool(true)}, {Key: "gathers_total", Value: metric.Uint(3)},
		}}),
		batch("tcp_listen",
			listener(80, "nginx", "root"),
			point("custom_port_exporter", 1814, "app", "docker-proxy", "host", "ip", "pid", "1814", "port", "tcp 0.0.0.0:8080", "state", "10"),
			point("unknown", 1.5),
		),
	)
	r := get(t, e, board, "/metrics")
	if r.StatusCode != 200 {
		t.Fatalf("status %d: %s", r.StatusCode, bodyOf(t, r))
	}
	if got, want := r.Header.Get("Content-Type"), "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"; got != want {
		t.Errorf("Content-Type %q, want %q", got, want)
	}
	const tags = `{address="0.0.0.0",exposure="private",family="ipv4",host="web-1",owner="resolved",port="80",process="nginx",unit="nginx.service",user="root"}`
	want := `# HELP custom_port_exporter port state description
# TYPE custom_port_exporter untyped
custom_port_exporter{app="docker-proxy",host="ip",pid="1814",port="tcp 0.0.0.0:8080",state="10"} 1814
# HELP sockwatch_input_gathers_total Gathers of the input that ended or timed out
# TYPE sockwatch_input_gathers_total counter
sockwatch_input_gathers_total{input="tcp_listen"} 3
# HELP sockwatch_input_up Whether the last gather of the input gave a batch
# TYPE sockwatch_input_up gauge
sockwatch_input_up{input="tcp_listen"} 1
# HELP tcp_listen_backlog Connections that wait for accept
# TYPE tcp_listen_backlog gauge
tcp_listen_backlog` + tags + ` 0
# HELP tcp_listen_backlog_limit How many connections may wait for accept
# TYPE tcp_listen_backlog_limit gauge
tcp_listen_backlog_limit` + tags + ` 4096
# HELP tcp_listen_first_seen_time_seconds When the listener was first seen
# TYPE tcp_listen_first_seen_time_seconds gauge
tcp_listen_first_seen_time_seconds` + tags + ` 1.79534160025e+09
# HELP tcp_listen_pid Process id of the named owner
# TYPE tcp_listen_pid gauge
tcp_listen_pid` + tags + ` 1080
# HELP tcp_listen_process_start_time_seconds When the named owner started
# TYPE tcp_listen_process_start_time_seconds gauge
tcp_listen_process_start_time_seconds` + tags + ` 1.7953415005e+09
# HELP tcp_listen_processes Processes that hold the listener
# TYPE tcp_listen_processes gauge
tcp_listen_processes` + tags + ` 2
# HELP tcp_listen_sockets Sockets of the listener
# TYPE tcp_listen_sockets gauge
tcp_listen_sockets` + tags + ` 1
# HELP tcp_listen_uid User id of the socket
# TYPE tcp_listen_uid gauge
tcp_listen_uid` + tags + ` 33
# TYPE unknown untyped
unknown 1.5
`
	page := bodyOf(t, r)
	if diff := cmp.Diff(want, gatheredPart(page)); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
	for _, name := range []string{"go_goroutines ", "process_cpu_seconds_total ", "process_open_fds ", "sockwatch_prometheus_series 12\n", `sockwatch_prometheus_left_out_series_total{reason="duplicate"} 0`} {
		if !strings.Contains(page, "\n"+name) {
			t.Errorf("the page has no line %q", name)
		}
	}
}

func TestNothingGatheredYetIsUnavailable(t *testing.T) {
	for _, path := range []string{"/metrics", "/a/b/c"} {
		t.Run(path, func(t *testing.T) {
			e, _ := newTestEndpoint(t, func(o *Options) { o.Path = path })
			board := boardOf()
			for _, page := range []string{path, "/-/ready", "/sd/listeners"} {
				r := get(t, e, board, page)
				if r.StatusCode != 503 || r.Header.Get("Retry-After") != "1" {
					t.Errorf("%s before the first gather: status %d, Retry-After %q", page, r.StatusCode, r.Header.Get("Retry-After"))
				}
			}
			for _, page := range []string{"/-/healthy", "/"} {
				if r := get(t, e, board, page); r.StatusCode != 200 {
					t.Errorf("%s before the first gather: status %d", page, r.StatusCode)
				}
			}
			board.publish(batch("tcp_listen", listener(80, "nginx", "root")))
			for _, page := range []string{path, "/-/ready", "/sd/listeners", "/-/healthy", "/"} {
				if r := get(t, e, board, page); r.StatusCode != 200 {
					t.Errorf("%s after the first gather: status %d", page, r.StatusCode)
				}
			}
			if r := get(t, e, board, "/nothing"); r.StatusCode != 404 {
				t.Errorf("/nothing: status %d", r.StatusCode)
			}
		})
	}
}

// TestFailedSourcesAreShown on /-/ready and the landing page, without the reason, which may
// not be for everyone to see.
func TestFailedSourcesAreShown(t *testing.T) {
	e, _ := newTestEndpoint(t, func(o *Options) { o.Page = false })
	board := boardOf(batch("sockwatch", point("sockwatch_input_up", 0)))
	board.sources = []plugin.SourceState{{Name: "cpu", Err: errors.New("secret")}, {Name: "disk", Gathered: true}, {Name: "tcp_listen", Err: errors.New("secret")}}
	r := get(t, e, board, "/-/ready")
	if body, want := bodyOf(t, r), "last gather failed: cpu, tcp_listen\n"; r.StatusCode != 503 || body != want {
		t.Errorf("/-/ready: status %d, %q, want 503, %q", r.StatusCode, body, want)
	}
	page := bodyOf(t, get(t, e, board, "/"))
	if want := "<p>Last gather failed: cpu, tcp_listen. The log has the reason.</p>"; !strings.Contains(page, want) || strings.Contains(page, "secret") {
		t.Errorf("the page for people does not hold %q, or the reason:\n%s", want, page)
	}
	board.sources = []plugin.SourceState{{Name: "cpu", Gathered: true}, {Name: "disk", Gathered: true}}
	if r := get(t, e, board, "/-/ready"); r.StatusCode != 200 {
		t.Errorf("/-/ready: status %d", r.StatusCode)
	}
	if page := bodyOf(t, get(t, e, board, "/")); strings.Contains(page, "failed") {
		t.Errorf("the page for people says that something has failed:\n%s", page)
	}
}

func TestClosedListenerLeavesThePage(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", listener(80, "nginx", "root"), listener(81, "nginx", "root")))
	if page := bodyOf(t, get(t, e, board, "/metrics")); !strings.Contains(page, `port="81"`) {
		t.Fatal("the listener is not on the page")
	}
	board.publish(batch("tcp_listen", listener(80, "nginx", "root")))
	page := bodyOf(t, get(t, e, board, "/metrics"))
	if strings.Contains(page, `port="81"`) || !strings.Contains(page, `port="80"`) {
		t.Errorf("after the gather without port 81 the page is\n%s", gatheredPart(page))
	}
	board.publish(batch("sockwatch", point("sockwatch_input_up", 0, "input", "tcp_listen")))
	if page := bodyOf(t, get(t, e, board, "/metrics")); strings.Contains(page, "tcp_listen_") {
		t.Error("the series of an input whose gather failed are still there")
	}
}

func TestHostileNamesOnTheLandingPage(t *testing.T) {
	e, _ := newTestEndpoint(t, func(o *Options) { o.Path, o.Page = "/m&'x", false })
	e.env.Hostname = `<script>alert("host")</script>`
	b := batch(`"><script>alert(1)</script>`, listener(80, "</td><script>", "root"))
	b.Partial = "<img src=x onerror=alert(2)>"
	r := get(t, e, boardOf(b), "/")
	page := bodyOf(t, r)
	for _, bad := range []string{"<script>", "<img", `"><s`} {
		if strings.Contains(page, bad) {
			t.Errorf("the page holds %q:\n%s", bad, page)
		}
	}
	for _, good := range []string{`<a href="/m&amp;%27x">Metrics</a>`, "&#34;&gt;&lt;script&gt;alert(1)", `href="/sd/listeners"`} {
		if !strings.Contains(page, good) {
			t.Errorf("the page does not hold %q:\n%s", good, page)
		}
	}
	if got := r.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'") {
		t.Errorf("Content-Security-Policy %q", got)
	}
}

func TestServeOnSeveralAddresses(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "metrics.sock")
	e, book := newTestEndpoint(t, func(o *Options) { o.Listen = plugin.Strings{"127.0.0.1:0", "unix:" + socket} })
	addrs := serve(t, e, boardOf(batch("tcp_listen", listener(80, "nginx", "root"))))
	for _, a := range addrs {
		client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, a.Network(), a.String())
			},
			DisableKeepAlives: true,
		}}
		r, err := client.Get("http://any/metrics")
		if err != nil {
			t.Fatalf("%s: %v", a, err)
		}
		if page := bodyOf(t, r); !strings.Contains(page, "tcp_listen_sockets{") {
			t.Errorf("%s answers %d %q", a, r.StatusCode, page)
		}
	}
	want := fmt.Sprintf(`level=INFO msg="serving metrics and the live page" listen="%s, %s"`, addrs[0], addrs[1])
	if lines := book.all(); len(lines) != 1 || lines[0] != want {
		t.Errorf("logged %q, want %q", lines, want)
	}
}

func TestListenUsesTheAgentsSockets(t *testing.T) {
	var asked []string
	o := Defaults()
	o.Listen = plugin.Strings{":8088", "[::1]:9000", "unix:/run/x"}
	e, err := Plugin.NewEndpoint(&o, plugin.Env{Log: slog.New(slog.DiscardHandler), Listen: func(ctx context.Context, network, address string) (net.Listener, error) {
		asked = append(asked, network+" "+address)
		return new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.(io.Closer).Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if diff := cmp.Diff([]string{"tcp :8088", "tcp [::1]:9000", "unix /run/x"}, asked); diff != "" {
		t.Errorf("listened (-want +got):\n%s", diff)
	}
}

func TestPortInUseIsAnError(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free := filepath.Join(t.TempDir(), "s")
	e, _ := newTestEndpoint(t, func(o *Options) { o.Listen = plugin.Strings{"unix:" + free, taken.Addr().String()} })
	err = e.Listen(t.Context())
	want := fmt.Sprintf(`listen tcp %s: bind: address already in use ("sockwatch list --port %d" shows by which process)`,
		taken.Addr(), taken.Addr().(*net.TCPAddr).Port)
	if err == nil || err.Error() != want {
		t.Errorf("Listen gives %v, want %s", err, want)
	}
	if _, err := os.Stat(free); !os.IsNotExist(err) {
		t.Errorf("the address that was free is still bound: %v", err)
	}
}

func TestWarnsOfOpenAddresses(t *testing.T) {
	for _, test := range []struct {
		listen plugin.Strings
		web    string
		want   int
	}{
		{listen: plugin.Strings{"127.0.0.1:0", "[::1]:0"}},
		{listen: plugin.Strings{"0.0.0.0:0", ":0", "127.0.0.1:0"}, want: 1},
		{listen: plugin.Strings{":0"}, web: "web.yml"},
		{listen: plugin.Strings{"unix:s"}},
	} {
		t.Run(strings.Join(test.listen, " "), func(t *testing.T) {
			dir := t.TempDir()
			e, book := newTestEndpoint(t, func(o *Options) {
				for i, s := range test.listen {
					test.listen[i] = strings.Replace(s, "unix:", "unix:"+dir+"/", 1)
				}
				o.Listen = test.listen
				if test.web != "" {
					o.WebConfigFile = filepath.Join(dir, test.web)
					if err := os.WriteFile(o.WebConfigFile, []byte("basic_auth_users: {}\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			})
			if err := e.Listen(t.Context()); err != nil {
				if strings.Contains(err.Error(), "::1") {
					t.Skip(err)
				}
				t.Fatal(err)
			}
			defer e.Close()
			if lines := book.warnings(); len(lines) != test.want {
				t.Errorf("%d warnings logged, want %d: %q", len(lines), test.want, lines)
			}
		})
	}
}

func TestServeEndsGracefully(t *testing.T) {
	t.Parallel()
	e, _ := newTestEndpoint(t, func(o *Options) { o.GatherOnScrape = true })
	entered, leave := make(chan struct{}), make(chan struct{})
	board := boardOf(batch("tcp_listen", listener(80, "nginx", "root")))
	board.refresh = func(context.Context, time.Duration) error {
		close(entered)
		<-leave
		return nil
	}
	if err := e.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	addr := e.listeners[0].Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	served, answered := make(chan error, 1), make(chan error, 1)
	go func() { served <- e.Serve(ctx, board) }()
	go func() {
		r, err := testClient.Get("http://" + addr + "/metrics")
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
			r.Body.Close()
		}
		answered <- err
	}()
	next(t, entered)
	cancel()
	time.AfterFunc(100*time.Millisecond, func() { close(leave) })
	if err := next(t, answered); err != nil {
		t.Errorf("the scrape under way was cut: %v", err)
	}
	if err := next(t, served); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("the address is bound still")
	}
}

func TestServeEndsWhereAnAddressFails(t *testing.T) {
	e, _ := newTestEndpoint(t, func(o *Options) { o.Listen = plugin.Strings{"127.0.0.1:0", "127.0.0.1:0"} })
	if err := e.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	bad, good := e.listeners[0], e.listeners[1].Addr().String()
	bad.Close()
	err := e.Serve(t.Context(), boardOf())
	want := fmt.Sprintf("serve %s: accept tcp %[1]s: use of closed network connection", bad.Addr())
	if err == nil || err.Error() != want {
		t.Errorf("Serve gives %v, want %s", err, want)
	}
	if _, err := net.Dial("tcp", good); err == nil {
		t.Error("the other address is bound still")
	}
}

func TestOnlyGetAndHead(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", listener(80, "nginx", "root")))
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "GETX"} {
		r := httptest.NewRequest(method, "/metrics", strings.NewReader("x"))
		w := httptest.NewRecorder()
		testHandler(e, board).ServeHTTP(w, r)
		if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" || w.Header().Get("Connection") != "close" {
			t.Errorf("%s: status %d, headers %v", method, w.Code, w.Header())
		}
	}
}
