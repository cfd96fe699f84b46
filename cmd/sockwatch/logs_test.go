package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v2"

	"sockwatch/agent/plugin/plugintest/schematest"
)

// The configuration of docs/logs.md writes only events, each valid by the
// schema.
func TestDocumentedEventStream(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	dir := t.TempDir()
	text := markdownBlock(t, readFile(t, "docs", "logs.md"), "toml")
	path := filepath.Join(dir, "events.jsonl")
	for _, change := range [][2]string{
		{"/var/lib/sockwatch", filepath.Join(dir, "state")},
		{"/var/log/sockwatch/events.jsonl", path},
		{"[agent]\n", "[agent]\n  interval = \"200ms\"\n"},
		{"[[inputs.tcp_listen]]\n", "[[inputs.tcp_listen]]\n  timeout = \"10s\"\n  settle = \"200ms\"\n"},
	} {
		changed := strings.Replace(text, change[0], change[1], 1)
		if changed == text {
			t.Fatalf("no %q in\n%s", change[0], text)
		}
		text = changed
	}
	start(t, "sockwatch", nil, "--config", writeFile(t, dir, "s.toml", text))
	eventually(t, "a history", func() bool {
		_, err := os.Stat(filepath.Join(dir, "state", "tcp_listen.history.jsonl"))
		return err == nil
	})
	listener := start(t, "listener", nil)
	eventually(t, "the listener's port", func() bool { return strings.HasSuffix(listener.stdout.String(), "\n") })
	port := strings.TrimSpace(listener.stdout.String())
	event := func(kind string) func() bool {
		return func() bool {
			lines, _ := os.ReadFile(path)
			return regexp.MustCompile(`(?m)"event":"` + kind + `".*"port":"` + port + `".*\}$`).Match(lines)
		}
	}
	eventually(t, "opened", event("opened"))
	listener.stdin.Close()
	eventually(t, "closed", event("closed"))
	lines, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	schematest.Lines(t, string(lines))
	for line := range strings.Lines(string(lines)) {
		if !strings.HasPrefix(line, `{"name":"tcp_listen_event",`) {
			t.Errorf("not an event: %s", line)
		}
	}
}

// documentedEvent returns the line that docs/logs.md shows.
func documentedEvent(t *testing.T) (line string, event map[string]any) {
	t.Helper()
	line = markdownBlock(t, readFile(t, "docs", "logs.md"), "json")
	if err := json.Unmarshal([]byte(line), &event); err != nil {
		t.Fatal(err)
	}
	return line, event
}

func TestDocumentedEventIsValid(t *testing.T) {
	line, _ := documentedEvent(t)
	schematest.Line(t, []byte(line))
}

// at returns the value at a path of keys in an object, or nil.
func at(event map[string]any, path string) any {
	var value any = event
	for key := range strings.SplitSeq(path, ".") {
		m, _ := value.(map[string]any)
		value = m[key]
	}
	return value
}

// The fields that the configurations of log shippers extract from an event exist, and have the
// expected form.
func TestDocumentedLogShippers(t *testing.T) {
	document := readFile(t, "docs", "logs.md")
	_, event := documentedEvent(t)
	timestamp := event["timestamp"].(string)

	var promtail struct {
		Positions     struct{ Filename string }
		Clients       []struct{ URL string }
		ScrapeConfigs []struct {
			JobName        string           `yaml:"job_name"`
			StaticConfigs  []map[string]any `yaml:"static_configs"`
			PipelineStages []map[string]any `yaml:"pipeline_stages"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.UnmarshalStrict([]byte(markdownBlock(t, document, "yaml promtail")), &promtail); err != nil {
		t.Fatal(err)
	}
	stages := promtail.ScrapeConfigs[0].PipelineStages
	expressions := make(map[string]string)
	for key, path := range stages[0]["json"].(map[any]any)["expressions"].(map[any]any) {
		expressions[key.(string)] = path.(string)
		if at(event, path.(string)) == nil {
			t.Errorf("Promtail: an event has no %s", path)
		}
	}
	for label := range stages[2]["labels"].(map[any]any) {
		if expressions[label.(string)] == "" {
			t.Errorf("Promtail: no expression finds the label %s", label)
		}
	}
	if _, err := time.Parse(time.RFC3339Nano, timestamp); err != nil || stages[1]["timestamp"].(map[any]any)["format"] != "RFC3339Nano" {
		t.Errorf("Promtail: the time is not in RFC3339Nano: %v", err)
	}

	// There is no parser for this language, so the test checks that Alloy extracts the same fields as
	// Promtail, and that the components refer to each other.
	alloy := markdownBlock(t, document, "alloy")
	taken := make(map[string]string)
	for _, m := range regexp.MustCompile(`(\w+) = "([\w.]+)"`).FindAllStringSubmatch(regexp.MustCompile(`expressions = \{.*\}`).FindString(alloy), -1) {
		taken[m[1]] = m[2]
	}
	if diff := cmp.Diff(expressions, taken); diff != "" {
		t.Errorf("expressions (-Promtail +Alloy):\n%s", diff)
	}
	for _, m := range regexp.MustCompile(`((?:local|loki)\.[\w.]+)\.(\w+)\.(?:targets|receiver)`).FindAllStringSubmatch(alloy, -1) {
		if component := fmt.Sprintf("%s %q {", m[1], m[2]); !strings.Contains(alloy, component) {
			t.Errorf("Alloy: no component %s", component)
		}
	}
	if strings.Count(alloy, "{") != strings.Count(alloy, "}") {
		t.Error("Alloy: braces do not match")
	}

	var filebeat struct {
		Inputs     []map[string]any `yaml:"filebeat.inputs"`
		Processors []struct {
			Timestamp struct {
				Field         string
				Layouts, Test []string
			}
			Fingerprint struct {
				Fields []string
				Target string `yaml:"target_field"`
			}
		}
		Output map[string]any `yaml:"output.elasticsearch"`
	}
	if err := yaml.UnmarshalStrict([]byte(markdownBlock(t, document, "yaml filebeat")), &filebeat); err != nil {
		t.Fatal(err)
	}
	paths := []string{filebeat.Processors[0].Timestamp.Field}
	for _, path := range append(paths, filebeat.Processors[1].Fingerprint.Fields...) {
		if inEvent, ok := strings.CutPrefix(path, "sockwatch."); !ok || at(event, inEvent) == nil {
			t.Errorf("Filebeat: an event has no %s", path)
		}
	}
	for _, text := range append(filebeat.Processors[0].Timestamp.Test, timestamp) {
		if _, err := time.Parse(filebeat.Processors[0].Timestamp.Layouts[0], text); err != nil {
			t.Errorf("Filebeat: %v", err)
		}
	}
}

// The queries of docs/logs.md use tags, fields and values that events have, and those for the
// journal match a printed line.
func TestDocumentedLogQueries(t *testing.T) {
	document := readFile(t, "docs", "logs.md")
	_, table, ok := strings.Cut(document, "## What to search for")
	if !ok {
		t.Fatal("no queries")
	}
	var tags []string
	fields := make(map[string]bool)
	for _, p := range plugins() {
		if p.Name == "tcp_listen" {
			tags = append(p.Tags, "host")
			for _, d := range p.Descs {
				if d.Name == "tcp_listen_event" || d.Name == "tcp_listen_rule_event" {
					fields[d.Field] = true
				}
			}
		}
	}
	count := 0
	for _, m := range regexp.MustCompile(`\b(tags|fields)[_.](\w+)`).FindAllStringSubmatch(table, -1) {
		count++
		if m[1] == "tags" && !slices.Contains(tags, m[2]) || m[1] == "fields" && !fields[m[2]] {
			t.Errorf("no event has %s", m[0])
		}
	}
	kinds := slices.Concat(pointRules["tcp_listen_event"].values["event"], pointRules["tcp_listen_rule_event"].values["event"])
	for _, m := range regexp.MustCompile(`event=~?"([^"]+)"`).FindAllStringSubmatch(table, -1) {
		for kind := range strings.SplitSeq(m[1], `\|`) {
			count++
			if !slices.Contains(kinds, kind) {
				t.Errorf("no event is called %s", kind)
			}
		}
	}
	if count < 20 {
		t.Errorf("only %d names found", count)
	}
	line := `{"name":"tcp_listen_event","tags":{"event":"%s","exposure":"public","port":"443"},"fields":{"exe":"/tmp/sshd","exe_changed":true,"login_uid":1000,"while_down":true},"timestamp":1}`
	for _, m := range regexp.MustCompile("--grep '([^']+)'").FindAllStringSubmatch(table, -1) {
		pattern, err := regexp.Compile(strings.ReplaceAll(m[1], `\|`, "|"))
		if err != nil {
			t.Error(err)
			continue
		}
		if !slices.ContainsFunc(kinds, func(kind string) bool { return pattern.MatchString(fmt.Sprintf(line, kind)) }) {
			t.Errorf("--grep %s finds no event", pattern)
		}
	}
}
