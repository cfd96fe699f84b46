package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sockwatch/agent/plugin/plugintest/servertest"
)

// The alert and the queries of docs/baseline.md find in the points of 90 days what the document
// says: a host without rules, violations, coverage and digests. Package monitoring tests the
// alerts that the document refers to.
func TestBaselineAlertsAndQueries(t *testing.T) {
	if testing.Short() {
		t.Skip("starts promtool")
	}
	promtool := servertest.Binary(t, "promtool")
	text := readFile(t, "docs", "baseline.md")
	const alerts = `
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'up{job="sockwatch",instance="a:1"}'
        values: 1x60
      - series: 'up{job="sockwatch",instance="b:1"}'
        values: 1x60
      - series: 'up{job="sockwatch",instance="c:1"}'
        values: 0x60
      - series: 'tcp_listen_rules_expect{instance="a:1",digest="0123456789ab"}'
        values: 2x60
    alert_rule_test:
      - eval_time: 20m
        alertname: BaselineNotInForce
        exp_alerts:
          - exp_labels: {job: sockwatch, instance: "b:1"}
          - exp_labels: {job: sockwatch, instance: "c:1"}
`
	audit := `
evaluation_interval: 12h
tests:
  - interval: 12h
    input_series:
      - series: 'up{job="sockwatch",instance="a:1"}'
        values: 1x179
      - series: 'tcp_listen_rules_expect{host="a",instance="a:1",digest="0123456789ab"}'
        values: 2x89
      - series: 'tcp_listen_rules_expect{host="a",instance="a:1",digest="ba9876543210"}'
        values: _x90 2x44 _x45
      - series: 'tcp_listen_violation_active{host="a",instance="a:1",verdict="forbidden",rule="telnet",address="0.0.0.0",port="23",process="in.telnetd",user="root",exposure="public"}'
        values: _x10 1x5 _x164
    promql_expr_test:
`
	want := [][]string{
		{`labels: '{host="a",verdict="forbidden",rule="telnet",address="0.0.0.0",port="23",process="in.telnetd",user="root"}', value: 6`},
		{`labels: '{instance="a:1"}', value: 0.75`},
		{`labels: '{digest="0123456789ab"}', value: 1`, `labels: '{digest="ba9876543210"}', value: 1`},
	}
	var queries []string
	for line := range strings.Lines(markdownBlock(t, text, "promql")) {
		if !strings.HasPrefix(line, "#") {
			queries = append(queries, strings.TrimSpace(line))
		}
	}
	if len(queries) != len(want) {
		t.Fatalf("%d queries, want %d", len(queries), len(want))
	}
	for i, q := range queries {
		audit += "      - expr: '" + q + "'\n        eval_time: 89d12h\n        exp_samples:\n"
		for _, sample := range want[i] {
			audit += "          - {" + sample + "}\n"
		}
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"rules.yml": markdownBlock(t, text, "yaml"), "alerts.yml": alerts, "audit.yml": audit} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "alerts.yml"}, {"test", "rules", "audit.yml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// markdownBlock returns the first fenced block of a language.
func markdownBlock(t *testing.T, text, language string) string {
	t.Helper()
	m := regexp.MustCompile("(?ms)^```" + language + "\n(.*?)^```$").FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no block of %s", language)
	}
	return m[1]
}

// Every metric that docs/baseline.md names exists.
func TestBaselineNamesMetricsThatExist(t *testing.T) {
	count := 0
	for _, name := range regexp.MustCompile(`tcp_listen_[a-z_]+`).FindAllString(readFile(t, "docs", "baseline.md"), -1) {
		if name == "tcp_listen_rule_event" {
			continue
		}
		i := strings.LastIndexByte(name, '_')
		if !documented(name[:i], name[i+1:]) {
			t.Errorf("no metric is called %s", name)
		}
		count++
	}
	if count == 0 {
		t.Error("no metrics found")
	}
}
