package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var record = flag.Bool("record", false, "record the pages of testdata/pages again; needs root")

const recordedConfig = `
[agent]
  interval = "200ms"
  hostname = "web1"
[[inputs.tcp_listen]]
  settle = "1s"
[[inputs.tcp_listen.expect]]
  name = "web"
  port = 8443
  process = "nginx"
  labels = { team = "edge" }
[[inputs.tcp_listen.allow]]
  address = ["127.0.0.0/8"]
[[inputs.tcp_listen.allow]]
  port = [22, 9000]
[[inputs.tcp_listen.forbid]]
  name = "telnet"
  port = 23
[[outputs.prometheus]]
  listen = "127.0.0.1:9101"
`

// TestRecordPages writes what the metrics endpoint of a real sockwatch shows while a host
// goes through the scenario of TestAlertsOverRecordedPages.
func TestRecordPages(t *testing.T) {
	if !*record {
		t.Skip("the recorded pages are in testdata/pages; -record makes them again")
	}
	if !inNamespace(t) {
		return
	}
	const address = "203.0.113.7:"
	dir := t.TempDir()
	config := filepath.Join(dir, "sockwatch.toml")
	if err := os.WriteFile(config, []byte(recordedConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	startListener(t, "sshd", address+"22")
	nginx := startListener(t, "nginx", address+"8443")
	startProgram(t, 0, buildProgram(t, dir), "--config", config)
	if err := os.RemoveAll("testdata/pages"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("testdata/pages", 0o755); err != nil {
		t.Fatal(err)
	}
	count := 0
	save := func(name string, shows, hides []string) {
		t.Helper()
		var text string
		defer func() {
			if t.Failed() {
				t.Logf("the last page:\n%s", text)
			}
		}()
		eventually(t, name, func() bool {
			text = get("http://127.0.0.1:9101/metrics")
			matches := func(pattern string) bool { return regexp.MustCompile(`(?m)^` + pattern).MatchString(text) }
			return text != "" && !slices.ContainsFunc(hides, matches) &&
				!slices.ContainsFunc(shows, func(p string) bool { return !matches(p) })
		})
		page := fmt.Sprintf("# recorded at %.3f\n", float64(time.Now().UnixMilli())/1000)
		for line := range strings.Lines(text) {
			if name, _, ok := strings.Cut(line, "{"); ok && inRules(name) {
				page += line
			}
		}
		if err := os.WriteFile(fmt.Sprintf("testdata/pages/%d-%s.txt", count, name), []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		count++
	}

	save("healthy", []string{`tcp_listen_expect_up{.*name="web".* 1$`}, nil)

	python := startListener(t, "python3", address+"9000")
	save("public", []string{`tcp_listen_changed_time_seconds{.*port="9000"`, `tcp_listen_events_total{.*event="opened",expected="yes".* 1$`}, nil)

	python.close()
	nginx.close()
	save("missing", []string{`tcp_listen_expect_up{.*name="web".* 0$`, `tcp_listen_events_total{.*event="closed",expected="yes".* 2$`}, nil)

	startListener(t, "nginx", address+"8443")
	telnet := startListener(t, "in.telnetd", address+"23")
	save("violation", []string{`tcp_listen_expect_up{.*name="web".* 1$`, `tcp_listen_violation_active{.*port="23",process="in.telnetd"`,
		`tcp_listen_changed_time_seconds{.*port="23"`, `tcp_listen_changed_time_seconds{.*port="8443"`}, nil)

	telnet.close()
	busybox := startListener(t, "busybox", address+"23")
	save("owner", []string{`tcp_listen_violation_active{.*port="23",process="busybox"`, `tcp_listen_events_total{.*event="owner_changed",expected="forbidden".* 1$`}, nil)

	busybox.close()
	save("healthy-again", nil, []string{`tcp_listen_violation_active{`, `tcp_listen_sockets{.*port="23"`})
}

// inRules reports whether any alert uses a metric.
func inRules(metric string) bool {
	word := regexp.MustCompile(`\b` + metric + `\b`)
	return slices.ContainsFunc(alerts(), func(a alert) bool { return word.MatchString(a.expr) })
}
