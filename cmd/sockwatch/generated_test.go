package main

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sockwatch"
	"sockwatch/agent"
	"sockwatch/agent/config"
	"sockwatch/agent/health"
	"sockwatch/agent/listen"
	"sockwatch/agent/plugin"
)

var update = flag.Bool("update", false, "write the generated files")

// TestGenerated checks that config.example.toml, the man pages, the tables of the plugins'
// READMEs and docs/metrics.md match the command line, the options and the descriptions.
// With -update it writes them.
func TestGenerated(t *testing.T) {
	compareGenerated(t, "config.example.toml", renderExample(t, plugins()))
	compareGenerated(t, "docs/jsonlines.schema.json", renderLineSchema(t))
	compareGenerated(t, "docs/api.schema.json", renderAPISchema(t))
	compareGenerated(t, "docs/report.schema.json", renderReportSchema(t))
	compareGenerated(t, "deploy/man/sockwatch.1", renderProgramPage())
	compareGenerated(t, "deploy/man/sockwatch.toml.5", renderConfigPage(t, plugins()))

	for _, p := range plugins() {
		path, err := filepath.Rel(root, filepath.Join(pluginDir(p), "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		text := replaceBetween(readFile(t, path), "options", renderOptions(t, p))
		if !strings.Contains(text, "<!-- options -->") {
			t.Errorf("%s has no lines <!-- options --> and <!-- /options -->", path)
		}
		if len(p.Descs) > 0 {
			text = replaceBetween(text, "metrics", renderMetrics(p.Descs))
			text = replaceBetween(text, "events", renderEvents(p.Descs))
		}
		compareGenerated(t, path, text)
	}
	const own = "docs/metrics.md"
	text := replaceBetween(readFile(t, own), "metrics", renderMetrics(health.Descs))
	if !strings.Contains(text, "<!-- metrics -->") {
		t.Errorf("%s has no lines <!-- metrics --> and <!-- /metrics -->", own)
	}
	compareGenerated(t, own, text)
}

func compareGenerated(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(filepath.Join(root, path), []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, readFile(t, path)); diff != "" {
		t.Errorf("%s is not what \"go test ./cmd/sockwatch -run Generated -update\" writes (-want +got):\n%s", path, diff)
	}
}

// replaceBetween replaces the text between the lines <!-- name --> and
// <!-- /name -->.
func replaceBetween(text, name, with string) string {
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
	before, rest, ok := strings.Cut(text, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return text
	}
	return before + begin + with + end + after
}

func TestExampleLoadsAsShipped(t *testing.T) {
	a := loadText(t, sockwatch.ExampleConfig)
	if len(a.Inputs) != 1 || len(a.Push) != 1 || len(a.Pull) != 1 {
		t.Fatalf("%d inputs, %d push outputs, %d endpoints", len(a.Inputs), len(a.Push), len(a.Pull))
	}
	defaults := agent.DefaultOptions()
	defaults.Hostname, defaults.StateDirectory = a.Options.Hostname, ""
	if diff := cmp.Diff(defaults, a.Options); diff != "" {
		t.Errorf("[agent] (-defaults +shipped):\n%s", diff)
	}
	for _, instance := range []struct {
		plugin plugin.Plugin
		got    plugin.Options
	}{
		{a.Inputs[0].Plugin, a.Inputs[0].Settings},
		{a.Push[0].Plugin, a.Push[0].Settings},
		{a.Pull[0].Plugin, a.Pull[0].Settings},
	} {
		want := instance.plugin.Defaults()
		setAsShipped(t, instance.plugin, want)
		if diff := cmp.Diff(want, instance.got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-defaults and what is shipped active +shipped):\n%s", instance.plugin.Name, diff)
		}
	}
	if diff := cmp.Diff([]string{"tcp_listen*"}, a.Push[0].Options.NamePass); diff != "" || a.Push[0].Name != "stdout" {
		t.Errorf("%s: namepass (-want +got):\n%s", a.Push[0].Name, diff)
	}
}

// commented matches a line of the example that is an option or a plugin that is
// not set.
var commented = regexp.MustCompile(`(?m)^( *)# `)

func TestExampleUncommented(t *testing.T) {
	a := loadText(t, commented.ReplaceAllString(sockwatch.ExampleConfig, "$1"))
	type instance struct {
		plugin           plugin.Plugin
		settings, common any
	}
	var instances []instance
	for _, in := range a.Inputs {
		in.Options.Tags = map[string]string{"role": in.Options.Tags["role"]}
		instances = append(instances, instance{in.Plugin, in.Settings, &in.Options})
	}
	for _, out := range a.Push {
		instances = append(instances, instance{out.Plugin, out.Settings, &out.Options})
	}
	for _, out := range a.Pull {
		instances = append(instances, instance{out.Plugin, out.Settings, &out.Options})
	}
	if len(instances) != len(plugins()) {
		t.Errorf("%d instances of %d plugins", len(instances), len(plugins()))
	}
	for _, in := range instances {
		want := in.plugin.Example()
		if diff := cmp.Diff(want, in.settings, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-Example() +uncommented):\n%s", in.plugin.Name, diff)
		}
		if _, ok := allCommonShown[in.plugin.Name]; ok {
			want, _ := exampleCommon(in.plugin)
			if diff := cmp.Diff(want, in.common); diff != "" {
				t.Errorf("%s (-common +uncommented):\n%s", in.plugin.Name, diff)
			}
		}
	}
	if diff := cmp.Diff(exampleAgent(), &a.Options); diff != "" {
		t.Errorf("[agent] (-want +uncommented):\n%s", diff)
	}
}

// The example has every option of every plugin, and every common one of either side, with
// its explanation.
func TestExampleShowsEveryOption(t *testing.T) {
	missing := make(map[string]bool) // common options
	for _, p := range plugins() {
		side := "outputs "
		if p.NewInput != nil {
			side = "inputs "
		}
		common, _ := exampleCommon(p)
		for _, o := range optionsOf(t, common) {
			missing[side+o.name] = true
		}
	}
	for _, p := range plugins() {
		if _, all := allCommonShown[p.Name]; !all {
			continue
		}
		side := "outputs "
		if p.NewInput != nil {
			side = "inputs "
		}
		common, _ := exampleCommon(p)
		for _, o := range optionsOf(t, common) {
			delete(missing, side+o.name)
		}
	}
	for name := range missing {
		t.Errorf("no plugin shows the common option %s", name)
	}
	for _, p := range plugins() {
		_, section, ok := strings.Cut(sockwatch.ExampleConfig, "s."+p.Name+"]]\n")
		if !ok {
			t.Errorf("%s is missing", p.Name)
			continue
		}
		section, _, _ = strings.Cut(section, "\n\n## ")
		for _, o := range optionsOf(t, p.Example()) {
			active := regexp.MustCompile(`(?m)^ +(# )?(\[\[\w+\.\w+\.)?` + o.name + `( = |\]\])`)
			if !active.MatchString(section) {
				t.Errorf("%s: option %s is missing", p.Name, o.name)
			}
			if o.value.Kind() == reflect.Slice && o.value.Type().Elem().Kind() == reflect.Struct && o.nested == nil {
				t.Errorf("%s: Example() has no element of %s", p.Name, o.name)
			}
		}
	}
}

// An option that is a list of tables appears in the example like this.
func TestGeneratedTables(t *testing.T) {
	field := func(name, doc string, value any) option {
		return option{name: name, doc: []string{doc}, value: reflect.ValueOf(value)}
	}
	expect := option{name: "expect", doc: []string{"What has to listen."}, nested: [][]option{
		{field("name", "Its name.", "ssh"), field("port", "Its port.", 22)},
		{field("name", "Its name.", "dns"), field("port", "Its port.", 0)},
	}}
	var w exampleWriter
	w.table(t, "inputs.x", expect)
	want := `
  ## What has to listen.
  # [[inputs.x.expect]]
    ## Its name.
    # name = "ssh"
    ## Its port.
    # port = 22
  # [[inputs.x.expect]]
    # name = "dns"
`
	if diff := cmp.Diff(want, w.text); diff != "" {
		t.Errorf("example (-want +got):\n%s", diff)
	}
}

// A plugin's own option must not have the name of a common one, which would hide
// it.
func TestOptionNamesAreUnique(t *testing.T) {
	for _, p := range plugins() {
		common, _ := exampleCommon(p)
		seen := make(map[string]bool)
		for _, o := range append(optionsOf(t, common), optionsOf(t, p.Defaults())...) {
			if seen[o.name] {
				t.Errorf("%s has two options %s", p.Name, o.name)
			}
			seen[o.name] = true
		}
	}
}

func loadText(t *testing.T, text string) *agent.Agent {
	t.Helper()
	a, err := load(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func load(text string, env map[string]string) (*agent.Agent, error) {
	p := &program{
		plugins: plugins(), sockets: &listen.Sockets{}, log: newLogSwitch(os.Stderr),
		getenv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	}
	return p.build([]config.File{{Name: "config", Text: text}})
}

// A plugin's hints for Telegraf's options are not about its own options.
func TestTelegrafOptionsAreForeign(t *testing.T) {
	for _, p := range plugins() {
		common, _ := exampleCommon(p)
		for _, o := range append(optionsOf(t, common), optionsOf(t, p.Defaults())...) {
			if hint := p.Telegraf.Options[o.name]; hint != "" {
				t.Errorf("%s has the option %s, of which it says %q", p.Name, o.name, hint)
			}
		}
	}
}
