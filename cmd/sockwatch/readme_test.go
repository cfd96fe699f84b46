package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v2"

	"sockwatch/agent/health"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/schematest"
)

// readmeBlocks returns the README's fenced blocks of a language.
func readmeBlocks(t *testing.T, language string) []string {
	t.Helper()
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(readFile(t, "README.md"), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("README.md has no block of %s", language)
	}
	return blocks
}

// The table in the README has the same head and the same form of rows as the output of
// list.
func TestReadmeTable(t *testing.T) {
	printed := sockwatchRun(nil, "list")
	head, _, _ := strings.Cut(printed.Stdout, "\n")
	command, table, _ := strings.Cut(readmeBlocks(t, "console")[0], "\n")
	if command != "$ sockwatch list" {
		t.Errorf("the block begins with %q", command)
	}
	rows := strings.Split(strings.TrimSpace(table), "\n")
	if diff := cmp.Diff(strings.Fields(head), strings.Fields(rows[0])); diff != "" {
		t.Errorf("head (-printed +README):\n%s", diff)
	}
	row := regexp.MustCompile(`^\S+:\d+ +(public|private|link_local|loopback) +\S+ +\d+(\+\d+)? +\S+ +\S+\.service +\d+/\d+ +\d+s$`)
	for _, r := range rows[1:] {
		if !row.MatchString(r) {
			t.Errorf("list does not print rows like %q", r)
		}
	}
}

// The JSON line in the README is what the stdout output writes for its point, and
// that point has the tags and fields of tcp_listen.
func TestReadmeJSONLine(t *testing.T) {
	line := strings.TrimSpace(readmeBlocks(t, "json")[0])
	var shown struct {
		Name      string
		Tags      map[string]string
		Fields    map[string]any
		Timestamp time.Time
	}
	if err := json.Unmarshal([]byte(line), &shown); err != nil {
		t.Fatal(err)
	}
	schematest.Line(t, []byte(line))
	point := metric.Point{Name: shown.Name, Time: shown.Timestamp}
	for key, value := range shown.Tags {
		point.Tags = append(point.Tags, metric.Tag{Key: key, Value: value})
	}
	metric.SortTags(point.Tags)
	for key, value := range shown.Fields {
		switch v := value.(type) {
		case string:
			point.Fields = append(point.Fields, metric.Field{Key: key, Value: metric.String(v)})
		case float64:
			point.Fields = append(point.Fields, metric.Field{Key: key, Value: metric.Float(v)})
		case bool:
			point.Fields = append(point.Fields, metric.Field{Key: key, Value: metric.Bool(v)})
		default:
			t.Fatalf("field %s is a %T", key, value)
		}
		if !documented(shown.Name, key) {
			t.Errorf("%s has no field %s", shown.Name, key)
		}
	}
	a := loadText(t, "[[inputs.tcp_listen]]\n[[outputs.stdout]]\n")
	record, err := a.Push[0].Pusher.Encode(nil, &point)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(line, strings.TrimSpace(string(record))); diff != "" {
		t.Errorf("(-README +printed):\n%s", diff)
	}
}

// documented reports whether a point of that name has the field.
func documented(name, field string) bool {
	descs := health.Descs
	for _, p := range plugins() {
		descs = slices.Concat(descs, p.Descs)
	}
	return slices.ContainsFunc(descs, func(d metric.Desc) bool { return d.Name == name && d.Field == field })
}

// Every series in the README belongs to a documented metric.
func TestReadmeSeries(t *testing.T) {
	for line := range strings.Lines(readmeBlocks(t, "text")[0]) {
		name, _, _ := strings.Cut(line, "{")
		point, field := "tcp_listen", strings.TrimPrefix(name, "tcp_listen_")
		if field == name {
			point, field = name, "value"
		}
		if !documented(point, field) {
			t.Errorf("no metric is called %s", name)
		}
	}
}

// Each row of the table "where do your metrics live" leads to a section with a configuration
// of at most ten lines, which "sockwatch check" accepts without a word, and which has an output
// that the row names.
func TestReadmeDestinations(t *testing.T) {
	readme := readFile(t, "README.md")
	_, table, _ := strings.Cut(readme, "## Where do your metrics live?\n")
	row := regexp.MustCompile(`(?m)^\| \[[^\]]*\]\(#([^)]*)\) \| (.*) \|$`)
	section := regexp.MustCompile("(?ms)^### ([^\n]*)\n(.*?)(?:\\z|^##)")
	sections := map[string]string{}
	for rest := table; ; {
		at := section.FindStringSubmatchIndex(rest)
		if at == nil {
			break
		}
		sections[anchors("### " + rest[at[2]:at[3]])[0]] = rest[at[4]:at[5]]
		rest = rest[at[5]:]
	}
	rows := row.FindAllStringSubmatch(table, -1)
	if len(rows) < 9 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	for _, r := range rows {
		block := regexp.MustCompile("(?ms)^```toml( telegraf)?\n(.*?)^```$").FindStringSubmatch(sections[r[1]])
		if block == nil {
			t.Errorf("%s has no configuration", r[1])
			continue
		}
		if n := strings.Count(block[2], "\n"); n > 10 {
			t.Errorf("the configuration of %s has %d lines", r[1], n)
		}
		if block[1] != "" { // Telegraf's: the same as in docs/telegraf.md, whose test runs it
			if !strings.Contains(readFile(t, "docs", "telegraf.md"), block[0]) {
				t.Errorf("docs/telegraf.md has no such configuration:\n%s", block[2])
			}
			continue
		}
		file := filepath.Join(t.TempDir(), "sockwatch.toml")
		if err := os.WriteFile(file, []byte(block[2]), 0o600); err != nil {
			t.Fatal(err)
		}
		if checked := sockwatchRun(nil, "check", "--config", file); checked.Code != exitDone || checked.Stderr != "" {
			t.Errorf("check of %s:\n%s", r[1], checked.Stderr)
		}
		named := false
		for _, output := range regexp.MustCompile(`(?m)^\[\[outputs\.(\w+)\]\]$`).FindAllStringSubmatch(block[2], -1) {
			named = named || strings.Contains(r[2], "["+output[1]+"]")
		}
		if !named {
			t.Errorf("the configuration of %s has no output of its row, %s", r[1], r[2])
		}
	}
}

// Every command in the README exists.
func TestReadmeCommands(t *testing.T) {
	commands := regexp.MustCompile("(?m)^\\| `sockwatch (?:\\[)?([a-z]+)").FindAllStringSubmatch(readFile(t, "README.md"), -1)
	if len(commands) < 6 {
		t.Fatalf("the README names %d commands", len(commands))
	}
	for _, c := range commands {
		if r := sockwatchRun(nil, c[1], "--help"); r.Code != exitDone {
			t.Errorf("sockwatch %s --help: %s", c[1], r.Stderr)
		}
	}
}

// The alerts of the README are rules of the rule file, which deploy/monitoring tests, and
// all metrics of that file exist.
func TestReadmeAlerts(t *testing.T) {
	type ruleFile struct {
		Groups []struct {
			Name  string
			Rules []map[string]any
		}
	}
	read := func(text string) (rules []map[string]any) {
		t.Helper()
		var f ruleFile
		if err := yaml.UnmarshalStrict([]byte(text), &f); err != nil {
			t.Fatal(err)
		}
		for _, g := range f.Groups {
			rules = append(rules, g.Rules...)
		}
		return rules
	}
	all := read(readFile(t, "deploy", "prometheus", "rules.yml"))
	for _, rule := range all { // what to do, which the README does not show
		annotations := rule["annotations"].(map[any]any)
		if annotations["description"] == nil {
			t.Errorf("%s has no description", rule["alert"])
		}
		delete(annotations, "description")
	}
	shown := read(readmeBlocks(t, "yaml")[0])
	for _, rule := range shown {
		if !slices.ContainsFunc(all, func(r map[string]any) bool { return cmp.Equal(r, rule) }) {
			t.Errorf("rules.yml does not have the rule %v", rule)
		}
	}
	var names []string
	for _, rule := range shown {
		names = append(names, rule["alert"].(string))
	}
	if diff := cmp.Diff([]string{"NewPublicListener", "ExpectedListenerMissing", "ListenerNotAllowed", "ListenerChanged"}, names); diff != "" {
		t.Errorf("alerts of the README (-want +got):\n%s", diff)
	}
	for _, rule := range all {
		metrics := regexp.MustCompile(`\b(tcp_listen|sockwatch)_[a-z_]+`).FindAllString(rule["expr"].(string), -1)
		if len(metrics) == 0 && rule["alert"] != "SockwatchDown" {
			t.Errorf("%s has no metric", rule["alert"])
		}
		for _, metric := range metrics {
			if metric != "sockwatch_build_info" && !isMetric(metric) {
				t.Errorf("%s: no metric is called %s", rule["alert"], metric)
			}
		}
	}
}

// The lean preset of docs/operate.md removes no metric from the page that an alert needs.
func TestAlertsNeedNoFieldOfTheLeanPreset(t *testing.T) {
	m := regexp.MustCompile(`(?m)^  fieldexclude = \[(.*)\]$`).FindStringSubmatch(readFile(t, "docs", "operate.md"))
	if m == nil {
		t.Fatal("docs/operate.md has no preset")
	}
	rules := readFile(t, "deploy", "prometheus", "rules.yml")
	for field := range strings.SplitSeq(m[1], ", ") {
		metric := "tcp_listen_" + strings.Trim(field, `"`)
		if !isMetric(metric) || strings.Contains(rules, metric) {
			t.Errorf("%s is in rules.yml, or no metric", metric)
		}
	}
}

// isMetric reports whether a documented field makes a metric of that name.
func isMetric(name string) bool {
	for i := range name {
		if name[i] == '_' && documented(name[:i], name[i+1:]) {
			return true
		}
	}
	return false
}
