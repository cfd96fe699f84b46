package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sockwatch/agent/plugin/plugintest/servertest"
)

// A page is what the metrics endpoint showed at one moment.
type page struct {
	at     float64            // Unix time
	values map[string]float64 // by series
}

// readPages reads the recorded pages.
func readPages(t *testing.T) []page {
	t.Helper()
	paths, err := filepath.Glob("testdata/pages/*.txt")
	if err != nil || len(paths) != 6 {
		t.Fatalf("%d pages, %v", len(paths), err)
	}
	pages := make([]page, len(paths))
	for i, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pages[i].values = make(map[string]float64)
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if at, ok := strings.CutPrefix(line, "# recorded at "); ok {
				pages[i].at, err = strconv.ParseFloat(at, 64)
			} else {
				blank := strings.LastIndexByte(line, ' ')
				pages[i].values[line[:blank]], err = strconv.ParseFloat(line[blank+1:], 64)
			}
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
	}
	return pages
}

// Each page is shown for ten minutes, the last one for 100.
const (
	pageMinutes = 10
	allMinutes  = 150
)

// promtoolSeries returns the pages as input_series of promtool, scraped from web1:8088
// once a minute. Unix times are moved to that clock, which begins at 0.
func promtoolSeries(pages []page) string {
	series := make(map[string]bool)
	for _, p := range pages {
		for s := range p.values {
			series[s] = true
		}
	}
	simulated := func(t float64) float64 {
		for i, p := range pages {
			if end := float64(i * pageMinutes * 60); t <= p.at {
				if i == 0 {
					return end - (p.at - t)
				}
				before := pages[i-1].at
				return end - (p.at-t)/(p.at-before)*pageMinutes*60
			}
		}
		return allMinutes * 60
	}
	b := "      - series: 'up{job=\"sockwatch\",instance=\"web1:8088\"}'\n        values: 1x" + strconv.Itoa(allMinutes) + "\n"
	for _, s := range slices.Sorted(maps.Keys(series)) {
		name, labels, _ := strings.Cut(s, "{")
		values, shown := "", false
		for minute := range allMinutes {
			value, ok := pages[min(minute/pageMinutes, len(pages)-1)].values[s]
			switch {
			case ok && strings.HasSuffix(name, "_time_seconds"):
				values += fmt.Sprintf(" %.3f", simulated(value))
			case ok:
				values += fmt.Sprintf(" %g", value)
			case shown:
				values += " stale"
			default:
				values += " _"
			}
			shown = ok
		}
		b += fmt.Sprintf("      - series: '%s{job=\"sockwatch\",instance=\"web1:8088\",%s'\n        values: '%s'\n", name, labels, values[1:])
	}
	return b
}

// A firing is an alert that fires: its labels beside job, instance, host and severity,
// and its summary.
type firing struct{ labels, summary string }

// TestAlertsOverRecordedPages shows the rules the pages of a host on which a public port
// opens, a service ends, telnet is started, and changes its owner.
func TestAlertsOverRecordedPages(t *testing.T) {
	promtool := servertest.Binary(t, "promtool")
	const at = `address: "203.0.113.7"`
	nginx := firing{at + `, exposure: public, port: "8443", process: nginx, user: root`, "New or changed public listener on web1: nginx (root) at 203.0.113.7 port 8443"}
	public := func(port, process string) firing {
		return firing{fmt.Sprintf("%s, exposure: public, port: %q, process: %s, user: root", at, port, process),
			"New or changed public listener on web1: " + process + " (root) at 203.0.113.7 port " + port}
	}
	telnet := func(process string) firing {
		return firing{at + `, port: "23"`, "Listener that is not allowed on web1: " + process + " (root) at 203.0.113.7 port 23"}
	}
	want := map[int]map[string][]firing{
		5:  {},
		12: {"NewPublicListener": {public("9000", "python3")}},
		21: {}, // missing for less than two minutes
		23: {"ExpectedListenerMissing": {{`name: web, rule: expect, team: edge`, "Expected listener missing on web1: web"}}},
		31: {"NewPublicListener": {nginx, public("23", "in.telnetd")}},
		33: {"NewPublicListener": {nginx, public("23", "in.telnetd")}, "ListenerNotAllowed": {telnet("in.telnetd")}},
		// Another owner does not restart the time that it must last.
		40: {"NewPublicListener": {nginx, public("23", "busybox")}, "ListenerNotAllowed": {telnet("busybox")}, "ListenerChanged": {{"event: owner_changed", "Listener changed on web1: owner_changed"}}},
		51: {"NewPublicListener": {nginx}},
		60: {"NewPublicListener": {nginx}},
		95: {}, // an hour after the last change
	}
	test := "rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n" + promtoolSeries(readPages(t)) + "    alert_rule_test:\n"
	for _, minute := range slices.Sorted(maps.Keys(want)) {
		for _, a := range alerts() {
			test += fmt.Sprintf("      - {eval_time: %dm, alertname: %s, exp_alerts: [", minute, a.name)
			for _, f := range want[minute][a.name] {
				test += fmt.Sprintf("{exp_labels: {job: sockwatch, instance: \"web1:8088\", host: web1, severity: %s, %s}, exp_annotations: {summary: %q, description: %q}}, ", a.severity, f.labels, f.summary, a.description())
			}
			test += "]}\n"
		}
	}
	runPromtool(t, promtool, test)
}

// TestAlertsOfAgents shows the rules series of healthy and of sick agents.
func TestAlertsOfAgents(t *testing.T) {
	promtool := servertest.Binary(t, "promtool")
	text, err := os.ReadFile("testdata/agents.yml")
	if err != nil {
		t.Fatal(err)
	}
	test := string(text)
	for _, a := range alerts() {
		if !a.first && !strings.Contains(test, "alertname: "+a.name+"\n        exp_alerts:") {
			t.Errorf("no test lets %s fire", a.name)
		}
		test = strings.ReplaceAll(test, "$"+a.name, strconv.Quote(a.description()))
	}
	runPromtool(t, promtool, test)
}

// Prometheus takes the configuration that docs/alerts.md shows.
func TestDocumentedScrapeConfiguration(t *testing.T) {
	promtool := servertest.Binary(t, "promtool")
	text, err := os.ReadFile(filepath.Join(root, "docs/alerts.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "```yaml prometheus\n")
	block, _, ok := strings.Cut(block, "```\n")
	if !ok || !strings.Contains(block, "job_name: sockwatch\n") {
		t.Fatalf("no configuration with the job sockwatch in docs/alerts.md: %q", block)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"rules.yml": renderRules(alerts(), true), "prometheus.yml": block} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), promtool, "check", "config", "prometheus.yml")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), fmt.Sprintf("%d rules found", len(alerts()))) {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// runPromtool runs "promtool test rules" with the rules.
func runPromtool(t *testing.T, promtool, test string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"rules.yml": renderRules(alerts(), true), "test.yml": test} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "test.yml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
