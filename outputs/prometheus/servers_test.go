//go:build unix

package prometheus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/servertest"
	"sockwatch/agent/plugin/plugintest/soak"
)

// server returns the path of a program that a test needs. If it is not installed, the test is
// skipped, or fails if SOCKWATCH_REQUIRE_SERVERS is 1.
func server(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("SOCKWATCH_REQUIRE_SERVERS") == "1":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return ""
}

// A prom is a running Prometheus.
type prom struct {
	t   *testing.T
	url string
	log *bytes.Buffer // to be read when it has ended
}

// startPrometheus starts a Prometheus in the directory that scrapes every second with the
// given scrape configurations. It ends with the test. It is Prometheus 3, which can scrape at
// once; in a soak, or if that is not installed, it is Debian's.
func startPrometheus(t *testing.T, dir, scrapeConfigs string) *prom {
	t.Helper()
	if testing.Short() {
		t.Skip("starts Prometheus")
	}
	program, args := servertest.Prometheus3Program(t), []string{servertest.ScrapeAtOnce}
	if _, err := os.Stat(program); err != nil || os.Getenv(soak.Variable) != "" {
		program, args = server(t, "prometheus"), nil
	}
	config := filepath.Join(dir, "prometheus.yml")
	writeFile(t, config, "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"+scrapeConfigs)
	port := servertest.FreeAddress(t)
	p := &prom{t: t, url: "http://" + port, log: &bytes.Buffer{}}
	cmd := exec.Command(program, append(args, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+port)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		if t.Failed() {
			t.Logf("Prometheus says:\n%s", p.log)
		}
	})
	p.until("is ready", func() (string, bool) {
		r, err := testClient.Get(p.url + "/-/ready")
		if err != nil {
			return err.Error(), false
		}
		r.Body.Close()
		return r.Status, r.StatusCode == 200
	})
	return p
}

// until repeats a question, longer than any busy machine needs, and fails with the last
// answer.
func (p *prom) until(what string, ask func() (answer string, ok bool)) {
	p.t.Helper()
	last := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		answer, ok := ask()
		if ok {
			return
		}
		last = answer
	}
	p.t.Fatalf("waited in vain until Prometheus %s; last: %s", what, last)
}

// api queries Prometheus' API.
func (p *prom) api(path string, into any) error {
	r, err := testClient.Get(p.url + "/api/v1/" + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: into}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return nil
}

// query returns the series of an instant query, each as its labels and value.
func (p *prom) query(q string) ([]map[string]string, error) {
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	if err := p.api("query?query="+url.QueryEscape(q), &data); err != nil {
		return nil, err
	}
	series := []map[string]string{}
	for _, r := range data.Result {
		r.Metric["="] = fmt.Sprint(r.Value[1])
		series = append(series, r.Metric)
	}
	return series, nil
}

// untilQuery waits until a query returns the series.
func (p *prom) untilQuery(q string, want ...map[string]string) {
	p.t.Helper()
	if want == nil {
		want = []map[string]string{}
	}
	p.until("answers "+q, func() (string, bool) {
		got, err := p.query(q)
		if err != nil {
			return err.Error(), false
		}
		diff := cmp.Diff(want, got)
		return diff, diff == ""
	})
}

// untilTargetError waits until the only target of a job fails with an error.
func (p *prom) untilTargetError(job, want string) {
	p.t.Helper()
	p.until(job+" fails", func() (string, bool) {
		var data struct {
			ActiveTargets []struct{ ScrapePool, LastError string }
		}
		if err := p.api("targets?state=active", &data); err != nil {
			return err.Error(), false
		}
		for _, target := range data.ActiveTargets {
			if target.ScrapePool == job {
				return target.LastError, strings.Contains(target.LastError, want)
			}
		}
		return fmt.Sprint(data), false
	})
}

// fenced returns the blocks of a language in the README.
func fenced(t *testing.T, language string) []string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllSubmatch(readme, -1) {
		blocks = append(blocks, string(m[1]))
	}
	return blocks
}

// readmeBlock returns the block of the README that contains a text, with replacements
// that must each match.
func readmeBlock(t *testing.T, holds string, replace ...string) string {
	t.Helper()
	for _, block := range fenced(t, "yaml") {
		if !strings.Contains(block, holds) {
			continue
		}
		for i := 0; i+1 < len(replace); i += 2 {
			if !strings.Contains(block, replace[i]) {
				t.Fatalf("the README's block does not hold %q:\n%s", replace[i], block)
			}
			block = strings.ReplaceAll(block, replace[i], replace[i+1])
		}
		return block
	}
	t.Fatalf("no block of the README holds %q", holds)
	return ""
}

// TestPrometheusScrapesOverTLS uses the web configuration and the scrape
// configuration that the README shows.
func TestPrometheusScrapesOverTLS(t *testing.T) {
	t.Parallel()
	hash := regexp.MustCompile(`\$2a\$04\S+`).FindString(webConfigUsers)
	e, _, dir, _ := serveTLS(t, readmeBlock(t, "tls_server_config", "$2y$10$...", hash), nil)
	newAuthority(t, "another authority").write(filepath.Join(dir, "other.crt"))
	writeFile(t, filepath.Join(dir, "sockwatch.password"), "secret\n")
	writeFile(t, filepath.Join(dir, "wrong.password"), "guess\n")
	board := boardOf(
		batch("sockwatch", metric.Point{Name: "sockwatch_input", Tags: metric.NewTags("input", "tcp_listen"), Fields: []metric.Field{{Key: "gathers_total", Value: metric.Int(7)}}}),
		batch("tcp_listen", listener(80, "nginx", "root"), listener(81, "a\nb \"c\" \\", "root")))
	addr := serveBoard(t, e, board)
	job := func(name string, replace ...string) string {
		b := readmeBlock(t, "password_file", append([]string{"job_name: sockwatch", "job_name: " + name, "web-1.example.org:8088", addr}, replace...)...)
		return strings.TrimPrefix(b, "scrape_configs:\n")
	}
	p := startPrometheus(t, dir, "scrape_configs:\n"+job("good")+job("guess", "sockwatch.password", "wrong.password")+job("stranger", "ca.crt", "other.crt")+
		job("plain", "scheme: https", "scheme: http"))

	labels := func(port, process, unit, value string) map[string]string {
		return map[string]string{
			"__name__": "tcp_listen_sockets", "job": "good", "instance": addr, "address": "0.0.0.0", "port": port, "family": "ipv4",
			"process": process, "user": "root", "unit": unit, "exposure": "private", "owner": "resolved", "host": "web-1", "=": value,
		}
	}
	first, second := labels("80", "nginx", "nginx.service", "1"), labels("81", "a\nb \"c\" \\", "a\nb \"c\" \\.service", "1")
	p.untilQuery(`up{job="good"}`, map[string]string{"__name__": "up", "job": "good", "instance": addr, "=": "1"})
	p.untilQuery("sort(tcp_listen_sockets{port=\"80\"})", first)
	p.untilQuery("tcp_listen_sockets{port=\"81\"}", second)
	p.untilQuery("sockwatch_input_gathers_total", map[string]string{"__name__": "sockwatch_input_gathers_total", "input": "tcp_listen", "job": "good", "instance": addr, "=": "7"})

	// Seen from a real client: the error names the cause.
	p.untilTargetError("guess", "server returned HTTP status 401 Unauthorized")
	p.untilTargetError("stranger", "x509: certificate signed by unknown authority")
	p.untilTargetError("plain", "server returned HTTP status 400 Bad Request")

	// The series of a closed listener is stale at the next scrape, long before
	// the five minutes for which Prometheus looks back.
	board.publish(board.Latest()[0], batch("tcp_listen", listener(80, "nginx", "root")))
	p.untilQuery("tcp_listen_sockets", first)
	if past, err := p.query(`count_over_time(tcp_listen_sockets{port="81"}[5m]) > 0`); err != nil || len(past) != 1 {
		t.Errorf("the past of the closed listener: %v, %v", past, err)
	}
	board.publish(board.Latest()[0]) // the input fails
	p.untilQuery("tcp_listen_sockets")
	p.untilQuery(`up{job="good"}`, map[string]string{"__name__": "up", "job": "good", "instance": addr, "=": "1"})
}

// serveBoard serves the board from an endpoint with the same options and returns
// its address.
func serveBoard(t *testing.T, e *endpoint, board *fakeBoard) string {
	t.Helper()
	other, _ := newTestEndpoint(t, func(o *Options) { *o = e.opts })
	return serve(t, other, board)[0].String()
}

// TestPrometheusTakesOpenMetrics: a Prometheus without any feature flag asks for
// OpenMetrics, gets it, and knows the types from it.
func TestPrometheusTakesOpenMetrics(t *testing.T) {
	t.Parallel()
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", listener(80, "nginx", "root"),
		point("custom_port_exporter", 1814, "app", "docker-proxy", "host", "ip", "pid", "1814", "port", "tcp 0.0.0.0:8080", "state", "10")),
		batch("sockwatch", metric.Point{Name: "sockwatch_input", Fields: []metric.Field{{Key: "gathers_total", Value: metric.Int(7)}}}))
	var mu sync.Mutex
	asked, answered := http.Header{}, http.Header{}
	h := testHandler(e, board)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		mu.Lock()
		defer mu.Unlock()
		asked, answered = r.Header.Clone(), w.Header().Clone()
	}))
	defer s.Close()
	addr := s.Listener.Addr().String()
	p := startPrometheus(t, t.TempDir(), fmt.Sprintf("scrape_configs: [{job_name: j, static_configs: [{targets: [%q]}]}]\n", addr))
	p.untilQuery("custom_port_exporter", map[string]string{
		"__name__": "custom_port_exporter", "job": "j", "instance": addr, "app": "docker-proxy", "host": "ip", "pid": "1814", "port": "tcp 0.0.0.0:8080", "state": "10", "=": "1814",
	})
	for name, want := range map[string]string{"tcp_listen_sockets": "gauge", "sockwatch_input_gathers": "counter", "custom_port_exporter": "unknown", "process_open_fds": "gauge"} {
		p.until("knows the type of "+name, func() (string, bool) {
			var data map[string][]struct{ Type string }
			if err := p.api("metadata?metric="+name, &data); err != nil {
				return err.Error(), false
			}
			return fmt.Sprint(data), len(data[name]) == 1 && data[name][0].Type == want
		})
	}
	mu.Lock()
	defer mu.Unlock()
	if got := answered.Get("Content-Type"); !strings.HasPrefix(got, "application/openmetrics-text; version=1.0.0") || answered.Get("Content-Encoding") != "gzip" {
		t.Errorf("Prometheus asked %v and got %v", asked, answered)
	}
	if got := asked.Get("X-Prometheus-Scrape-Timeout-Seconds"); got != "1" {
		t.Errorf("Prometheus says that it waits %q s", got)
	}
}

// TestPrometheusDiscoversListeners uses the scrape configuration that the README
// shows, with a program in place of blackbox_exporter that connects as it does.
func TestPrometheusDiscoversListeners(t *testing.T) {
	t.Parallel()
	listening, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listening.Close()
	_, open, _ := net.SplitHostPort(listening.Addr().String())
	_, closed, _ := net.SplitHostPort(servertest.FreeAddress(t))
	e, _ := newTestEndpoint(t, nil)
	addr := serve(t, e, boardOf(batch("tcp_listen",
		at("0.0.0.0", open, "exposure", "private", "process", "nginx"),
		at("127.0.0.1", closed, "exposure", "public", "process", "gone"),
		at("127.0.0.1", "1", "exposure", "loopback", "process", "hidden"),
	)))[0].String()
	blackbox := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		success := 0
		if c, err := net.Dial("tcp", r.URL.Query().Get("target")); err == nil && r.URL.Query().Get("module") == "tcp_connect" {
			c.Close()
			success = 1
		}
		fmt.Fprintf(w, "probe_success %d\n", success)
	}))
	defer blackbox.Close()
	p := startPrometheus(t, t.TempDir(), readmeBlock(t, "http_sd_configs",
		"web-1.example.org:8088", addr, "127.0.0.1:9115", strings.TrimPrefix(blackbox.URL, "http://")))
	series := func(port, process, value string) map[string]string {
		return map[string]string{"__name__": "probe_success", "job": "listeners", "instance": "127.0.0.1:" + port, "process": process, "=": value}
	}
	p.untilQuery("sort(probe_success)", series(closed, "gone", "0"), series(open, "nginx", "1"))
}

func TestPromtool(t *testing.T) {
	if testing.Short() {
		t.Skip("starts promtool")
	}
	promtool := server(t, "promtool")
	run := func(stdin string, args ...string) {
		t.Helper()
		cmd := exec.Command(promtool, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil || stdin != "" && len(out) > 0 {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	e, _ := newTestEndpoint(t, func(o *Options) { o.MaxSeries = 200 })
	points := append(listeners(40), point("custom_port_exporter", 7, "app", "a"))
	page := bodyOf(t, get(t, e, boardOf(batch("tcp_listen", points...)), "/metrics"))
	if !strings.Contains(page, `{reason="max_series"} 121`) {
		t.Error("the page has all series")
	}
	run(page, "check", "metrics")

	hash := regexp.MustCompile(`\$2a\$04\S+`).FindString(webConfigUsers)
	_, _, dir, _ := serveTLS(t, readmeBlock(t, "tls_server_config", "$2y$10$...", hash), nil)
	run("", "check", "web-config", filepath.Join(dir, "web.yml"))
	for _, block := range fenced(t, "yaml") {
		if strings.HasPrefix(block, "scrape_configs:") {
			config := filepath.Join(dir, "prometheus.yml")
			writeFile(t, config, block)
			writeFile(t, filepath.Join(dir, "sockwatch.password"), "secret")
			run("", "check", "config", config)
		}
	}
}
