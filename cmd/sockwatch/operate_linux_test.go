package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/servertest"
)

// logrotateConfigurations returns those that docs/operate.md shows: logrotate alone, and beside the
// program's own rotation.
func logrotateConfigurations(t *testing.T) []string {
	t.Helper()
	block := regexp.MustCompile(`(?ms)^cat >/etc/logrotate.d/sockwatch <<'EOF'\n(.*?)^EOF$`)
	var all []string
	for _, m := range block.FindAllStringSubmatch(readFile(t, "docs/operate.md"), -1) {
		all = append(all, m[1])
	}
	if len(all) != 2 {
		t.Fatalf("docs/operate.md has %d configurations of logrotate, want 2", len(all))
	}
	return all
}

// A real logrotate rotates the file again and again while the program writes it, alone and beside
// the program's own rotation: every line is in one file, once.
func TestLogrotateOfTheDocumentsLosesNoLine(t *testing.T) {
	if testing.Short() {
		t.Skip("runs logrotate for some seconds")
	}
	logrotate := servertest.Binary(t, "logrotate")
	for i, rotation := range []string{`rotation_max_size = "0B"`, "rotation_max_size = \"64KiB\"\nrotation_max_archives = 1000"} {
		t.Run(strings.Fields("alone beside")[i], func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path, reference := filepath.Join(dir, "events.jsonl"), filepath.Join(dir, "reference")
			text := logrotateConfigurations(t)[i]
			for from, to := range map[string]string{"/var/log/sockwatch/events.jsonl": path, "    su sockwatch sockwatch\n": "", "rotate 14": "rotate 1000"} {
				if !strings.Contains(text, from) {
					t.Errorf("%q is not in\n%s", from, text)
				}
				text = strings.Replace(text, from, to, 1)
			}
			config := writeFile(t, dir, "logrotate.conf", text)
			if err := os.Chmod(config, 0o644); err != nil { // logrotate refuses others
				t.Fatal(err)
			}
			p := start(t, "sockwatch", nil, "run", "--config", writeFile(t, dir, "sockwatch.toml", fmt.Sprintf(`
[agent]
interval = "100ms"
round_interval = false
[[inputs.tcp_listen]]
timeout = "10s"
[[outputs.file]]
alias = "events"
path = %q
flush_interval = "0s"
%s
[[outputs.file]]
alias = "reference"
path = %q
rotation_max_size = "0B"
`, path, rotation, reference)))
			rotations := []int{20, 6}[i]
			for n := 0; n < rotations; {
				if i == 1 && n == 3 {
					eventually(t, "the program's own rotation", func() bool {
						_, err := os.Stat(path + ".1")
						return err == nil
					})
				}
				eventually(t, "more lines", func() bool {
					info, err := os.Stat(path)
					return err == nil && info.Size() > 2000
				})
				cmd := exec.CommandContext(t.Context(), logrotate, "--force", "--state", filepath.Join(dir, "state"), config)
				output, err := cmd.CombinedOutput()
				if strings.Contains(string(output), "already exists") { // the names differ from second to second
					time.Sleep(100 * time.Millisecond)
					continue
				}
				if err != nil {
					t.Fatalf("logrotate %d: %v\n%s", n, err, output)
				}
				n++
			}
			if err := p.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			if code := p.exitCode(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			names, err := filepath.Glob(path + "*")
			if err != nil {
				t.Fatal(err)
			}
			var numbered, others int
			var got []string
			for _, name := range names {
				reader := exec.CommandContext(t.Context(), "zcat", "--force", name)
				content, err := reader.Output()
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				got = append(got, strings.SplitAfter(string(content), "\n")...)
				if regexp.MustCompile(`\.jsonl\.[0-9]+(\.gz)?$`).MatchString(name) {
					numbered++
				} else {
					others++
				}
			}
			content, err := os.ReadFile(reference)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.SplitAfter(string(content), "\n")
			empty := func(line string) bool { return line == "" }
			got, want = slices.DeleteFunc(got, empty), slices.DeleteFunc(want, empty)
			slices.Sort(got)
			slices.Sort(want)
			if len(want) < 200 || len(names) < 5 {
				t.Errorf("%d lines in %d files: nothing was tested", len(want), len(names))
			}
			if i == 1 && (numbered == 0 || others < 2) {
				t.Errorf("%d files of the program's rotation, %d of logrotate: %q", numbered, others, names)
			}
			if !slices.Equal(got, want) {
				t.Errorf("lines (-written +found):\n%s", cmp.Diff(want, got))
			}
		})
	}
}

// Prometheus 3 scrapes the unix socket as docs/operate.md shows.
func TestPrometheusScrapesAUnixSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "metrics.sock")
	m := regexp.MustCompile("(?ms)^```yaml unix\n(.*?)^```").FindStringSubmatch(readFile(t, "docs/operate.md"))
	if m == nil {
		t.Fatal("docs/operate.md has no scrape job of a unix socket")
	}
	job := strings.Replace(m[1], "/run/sockwatch/metrics.sock", socket, 1)
	server := servertest.Prometheus3(t, "global: {scrape_interval: 1s}\n"+job, servertest.ScrapeAtOnce)
	start(t, "sockwatch", nil, "run", "--config", writeFile(t, dir, "sockwatch.toml", fmt.Sprintf(`
[[inputs.tcp_listen]]
[[outputs.prometheus]]
listen = "unix:%s"
`, socket)))
	var answer struct {
		Data struct {
			Result []struct{ Metric map[string]string }
		}
	}
	eventually(t, "what the socket serves", func() bool {
		fetch(t, http.MethodGet, server.URL+"/api/v1/query?query=sockwatch_input_up==1", func(body io.Reader) error {
			return json.NewDecoder(body).Decode(&answer)
		})
		return len(answer.Data.Result) == 1
	})
	if got := answer.Data.Result[0].Metric["instance"]; got != "web-1.example.org:8088" {
		t.Errorf("instance is %q", got)
	}
}

// The alerting rules use no metric that the lean preset of docs/operate.md removes, and the dashboard
// only the one that the document names.
func TestLeanPresetKeepsWhatAlertsUse(t *testing.T) {
	m := regexp.MustCompile(`(?m)^  fieldexclude = (\[.*\])$`).FindStringSubmatch(readFile(t, "docs/operate.md"))
	if m == nil {
		t.Fatal("docs/operate.md has no lean preset")
	}
	var removed []string
	if err := json.Unmarshal([]byte(m[1]), &removed); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{"deploy/prometheus/rules.yml": nil, "deploy/grafana/sockwatch.json": {"processes"}} {
		var used []string
		for _, field := range removed {
			if !documented("tcp_listen", field) {
				t.Errorf("tcp_listen has no field %s", field)
			}
			if regexp.MustCompile(`\btcp_listen_` + field + `\b`).MatchString(readFile(t, path)) {
				used = append(used, field)
			}
		}
		if diff := cmp.Diff(want, used); diff != "" {
			t.Errorf("%s uses (-want +got):\n%s", path, diff)
		}
	}
}
