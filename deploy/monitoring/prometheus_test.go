package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sockwatch/agent/plugin/plugintest/servertest"
)

// A sick fleet: every alert has a reason to fire, and every panel something to show.
//
//	web1   a listener that is missing, one that is forbidden, public ones, a full accept
//	       queue, an approval that ends, one output that is behind and one that drops
//	web2   sockwatch without capabilities: owners that it may not read
//	web3   an input that cannot gather, and a configuration that cannot be reloaded
//	down   no sockwatch at all
//	pushed a host that has pushed its points until an hour ago
const (
	web1 = `
[agent]
  interval = "500ms"
  hostname = "web1"
[[inputs.tcp_listen]]
  settle = "1s"
  established = true
  unlisted = "unexpected"
[[inputs.tcp_listen.expect]]
  name = "web"
  port = 8443
  labels = { team = "edge" }
[[inputs.tcp_listen.allow]]
  port = "9000-9999"
  expires = %q
[[inputs.tcp_listen.forbid]]
  name = "telnet"
  port = 23
[[outputs.prometheus]]
  listen = "127.0.0.1:9101"
[[outputs.influxdb]]
  alias = "behind"
  urls = ["http://127.0.0.1:1"]
  database = "db"
  flush_interval = "500ms"
[[outputs.influxdb]]
  alias = "drops"
  urls = ["http://127.0.0.1:1"]
  database = "db"
  flush_interval = "500ms"
  buffer_limit = "64KiB"
`
	web2 = `
[agent]
  interval = "500ms"
  hostname = "web2"
[[inputs.tcp_listen]]
[[outputs.prometheus]]
  listen = "127.0.0.1:9102"
`
	web3 = `
[agent]
  interval = "500ms"
  hostname = "web3"
[[inputs.tcp_listen]]
  backend = "procfs"
  proc = %q
[[outputs.prometheus]]
  listen = "127.0.0.1:9103"
`
	prometheusConfig = `
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [%q]
scrape_configs:
  - job_name: sockwatch
    static_configs:
      - targets: ["127.0.0.1:9101", "127.0.0.1:9102", "127.0.0.1:9103", "127.0.0.1:9104"]
`
)

// Every expression of every panel and of every rule returns data from a Prometheus that
// has scraped the sick fleet.
func TestEveryExpressionReturnsData(t *testing.T) {
	if testing.Short() {
		t.Skip("starts prometheus")
	}
	prometheus, promtool := servertest.Binary(t, "prometheus"), servertest.Binary(t, "promtool")
	if !inNamespace(t) {
		return
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // for nobody
		t.Fatal(err)
	}
	sockwatch := buildProgram(t, dir)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tomorrow := time.Now().Add(24 * time.Hour).UTC().Format(time.DateOnly)
	empty := filepath.Join(dir, "proc")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}

	startListener(t, "in.telnetd", "127.0.0.1:23")
	deleted := startListener(t, "oldd", "127.0.0.1:9001")
	if err := os.Remove(deleted.cmd.Path); err != nil {
		t.Fatal(err)
	}
	fillAcceptQueue(t, "127.0.0.1:9002")
	handedOver := startListener(t, "nginx", "127.0.0.1:9003")

	startProgram(t, 0, sockwatch, "--config", write("web1.toml", fmt.Sprintf(web1, tomorrow)))
	startProgram(t, 65534, sockwatch, "--config", write("web2.toml", web2))
	third := startProgram(t, 0, sockwatch, "--config", write("web3.toml", fmt.Sprintf(web3, empty)))
	pages := make([]string, 3)
	for i := range pages {
		eventually(t, fmt.Sprintf("a page of web%d", i+1), func() bool {
			pages[i] = get(fmt.Sprintf("http://127.0.0.1:910%d/metrics", i+1))
			return pages[i] != ""
		})
	}
	write("web3.toml", "[agent]\nintervall = \"1s\"\n")
	if err := third.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	importPushed(t, promtool, pages[0], data)

	rules, err := filepath.Abs(filepath.Join(root, "deploy/prometheus/rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	config := write("prometheus.yml", fmt.Sprintf(prometheusConfig, rules))
	startProgram(t, 0, prometheus, "--config.file="+config, "--storage.tsdb.path="+data, "--web.listen-address=127.0.0.1:9090")
	eventually(t, "two scrapes", func() bool { return ask(t, `count_over_time(sockwatch_input_up{host="web1"}[1h]) > 1`) > 0 })

	// What changes while it is scraped.
	startListener(t, "backdoor", "203.0.113.7:9004")
	handedOver.close()
	startListener(t, "apache2", "127.0.0.1:9003")

	// Without "or vector(0)", which would hide that there is nothing.
	variables := strings.NewReplacer("$job", ".*", "$host", ".*", "$__rate_interval", "1m", " or vector(0)", "")
	for _, r := range rows() {
		for _, p := range r.panels {
			for _, q := range p.queries {
				eventually(t, fmt.Sprintf("data of panel %q: %s", p.title, q.expr), func() bool { return ask(t, variables.Replace(q.expr)) > 0 })
			}
		}
	}
	for _, a := range alerts() {
		expr := a.expr
		if a.name == "QueueGrowing" { // the exact threshold is tested with promtool
			ask(t, expr)
			expr = strings.Replace(expr, "> 300", "> 2", 1)
		}
		eventually(t, fmt.Sprintf("data of alert %s: %s", a.name, expr), func() bool { return ask(t, expr) > 0 })
	}
	var loaded struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	if err := json.Unmarshal([]byte(get("http://127.0.0.1:9090/api/v1/rules")), &loaded); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, g := range loaded.Data.Groups {
		for _, rule := range g.Rules {
			count++
			if rule.Health != "ok" {
				t.Errorf("rule %s: %s %s", rule.Name, rule.Health, rule.LastError)
			}
		}
	}
	if count != len(alerts()) {
		t.Errorf("Prometheus has loaded %d rules of %d", count, len(alerts()))
	}
}

// fillAcceptQueue listens and never accepts.
func fillAcceptQueue(t *testing.T, address string) {
	t.Helper()
	to, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	sockaddr := &syscall.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}
	if err := syscall.Bind(fd, sockaddr); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 2); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		conn, err := net.DialTimeout("tcp", address, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
}

// importPushed puts the points of a page into the database as if a host had pushed them
// until an hour ago: with their own labels alone.
func importPushed(t *testing.T, promtool, page, data string) {
	t.Helper()
	var b strings.Builder
	now := time.Now()
	for line := range strings.Lines(page) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok || !strings.HasPrefix(series, "sockwatch_build_info{") {
			continue
		}
		series = strings.Replace(series, `host="web1"`, `host="pushed"`, 1)
		b.WriteString("# TYPE sockwatch_build_info gauge\n")
		for at := now.Add(-2 * time.Hour); at.Before(now.Add(-time.Hour)); at = at.Add(time.Minute) {
			fmt.Fprintf(&b, "%s} %s %d\n", series, value, at.Unix())
		}
	}
	b.WriteString("# EOF\n")
	file := filepath.Join(t.TempDir(), "pushed.txt")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "tsdb", "create-blocks-from", "openmetrics", file, data).CombinedOutput(); err != nil {
		t.Fatalf("promtool: %v\n%s", err, out)
	}
}

// ask returns how many samples an expression has now. An expression that Prometheus
// does not take fails the test.
func ask(t *testing.T, expr string) int {
	t.Helper()
	resp, err := http.Get("http://127.0.0.1:9090/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return 0 // not started yet
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode == http.StatusServiceUnavailable {
		return 0
	}
	var answer struct {
		Status, Error string
		Data          struct{ Result []json.RawMessage }
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s: %v %s", expr, err, body)
	}
	return len(answer.Data.Result)
}

// get returns the body of a page, or "".
func get(address string) string {
	resp, err := http.Get(address)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}
