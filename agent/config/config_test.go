package config_test

import (
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent"
	"sockwatch/agent/config"
	"sockwatch/agent/filter"
	"sockwatch/agent/plugin"
)

func TestLoadBuildsWhatTheFileSays(t *testing.T) {
	a := load(t, `
[global_tags]
  dc = "fra1"
  rack = "7"
[agent]
  interval = "30s"
  collection_jitter = "1s"
  state_directory = "/var/lib/x"
[[inputs.tcp_listen]]
  alias = "a"
  namepass = ["tcp_*", "x"]
  labels = { "a b" = "c" }
  ratio = 2
  [inputs.tcp_listen.tags]
    rack = "8"
  [inputs.tcp_listen.tagpass]
    port = ["80", "443"]
  [[inputs.tcp_listen.expect]]
    name = "ssh"
    port = 22
  [[inputs.tcp_listen.expect]]
    name = "dns"
    port = 53
    min = 2
[[outputs.influxdb]]
  urls = ["http://a", "http://b"]
  database = "db"
  max_body = "2MiB"
  buffer = "disk"
[[inputs.tcp_listen]]
  alias = "b"
  interval = "5s"
  timeout = "2s"
[[outputs.prometheus]]
  listen = [":1", ":2"]
[[outputs.file]]
  flush_interval = "1s"
`, nil)

	type built struct {
		Name             string
		Options, Setting any
	}
	var got []built
	for _, in := range a.Inputs {
		got = append(got, built{in.Name, in.Options, in.Input.(fake).options})
	}
	for _, p := range a.Push {
		got = append(got, built{p.Name, p.Options, p.Pusher.(fake).options})
	}
	for _, p := range a.Pull {
		got = append(got, built{p.Name, p.Options, p.Endpoint.(fake).options})
	}
	seconds := func(n int) plugin.Duration { return plugin.Duration(time.Duration(n) * time.Second) }
	want := []built{
		{"tcp_listen-a", agent.InputOptions{
			Alias: "a", Interval: seconds(30), CollectionJitter: seconds(1), Timeout: seconds(30),
			Tags: map[string]string{"dc": "fra1", "rack": "8", "host": "web1"},
			Options: filter.Options{
				NamePass: []string{"tcp_*", "x"},
				TagPass:  map[string][]string{"port": {"80", "443"}},
			},
		}, listenOptions{
			Backend: "auto", MaxListeners: 5000, OwnerRefresh: seconds(300), Ratio: 2,
			Labels: map[string]string{"a b": "c"},
			Expect: []expectOptions{{Name: "ssh", Port: 22, Min: 1}, {Name: "dns", Port: 53, Min: 2}},
		}},
		{"tcp_listen-b", agent.InputOptions{
			Alias: "b", Interval: seconds(5), CollectionJitter: seconds(1), Timeout: seconds(2),
			Tags: map[string]string{"dc": "fra1", "rack": "7", "host": "web1"},
		}, listenOptions{Backend: "auto", MaxListeners: 5000, OwnerRefresh: seconds(300)}},
		{"influxdb", agent.PushOptions{
			Timeout: seconds(10), FlushInterval: seconds(10), MinInterval: seconds(60), Buffer: "disk", BufferLimit: 64 << 20,
		}, influxOptions{URLs: []string{"http://a", "http://b"}, Database: "db", MaxBody: 2 << 20}},
		{"file", agent.PushOptions{
			Timeout: seconds(10), FlushInterval: seconds(1), Buffer: "auto", BufferLimit: 64 << 20,
		}, fileOptions{Path: "/var/log/x.jsonl"}},
		{"prometheus", agent.EndpointOptions{}, pageOptions{Listen: plugin.Strings{":1", ":2"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("instances (-want +got):\n%s", diff)
	}

	wantOptions := agent.DefaultOptions()
	wantOptions.Interval, wantOptions.CollectionJitter = seconds(30), seconds(1)
	wantOptions.StateDirectory = "/var/lib/x"
	if diff := cmp.Diff(wantOptions, a.Options); diff != "" {
		t.Errorf("agent options (-want +got):\n%s", diff)
	}
	env := a.Inputs[0].Input.(fake).env
	if env.Name != "tcp_listen-a" || env.Hostname != "web1" || env.StateDir != "/var/lib/x" || env.Log == nil || env.Listen == nil {
		t.Errorf("env = %+v", env)
	}
	if !a.Inputs[0].RoundInterval || a.Version != "1.2.3" || a.Log == nil {
		t.Errorf("agent = %+v", a)
	}
}

func TestHostTag(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       map[string]string
		hostname   string
	}{
		{name: "the system's name", text: ``, want: map[string]string{"host": "web1"}, hostname: "web1"},
		{name: "set", text: "[agent]\nhostname = \"a\"", want: map[string]string{"host": "a"}, hostname: "a"},
		{name: "left out", text: "[agent]\nomit_hostname = true", want: map[string]string{}, hostname: "web1"},
		{name: "left out, set by hand", text: "[agent]\nomit_hostname = true\n[global_tags]\nhost = \"b\"", want: map[string]string{"host": "b"}, hostname: "web1"},
		{name: "an instance's wins", text: "[[inputs.tcp_listen]]\ntags = {host = \"c\"}", want: map[string]string{"host": "c"}, hostname: "web1"},
		{name: "an empty tag takes it away", text: "[[inputs.tcp_listen]]\ntags = {host = \"\"}", want: map[string]string{}, hostname: "web1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := load(t, whole(test.text), nil)
			if diff := cmp.Diff(test.want, a.Inputs[0].Options.Tags); diff != "" {
				t.Errorf("tags (-want +got):\n%s", diff)
			}
			if got := a.Inputs[0].Input.(fake).env.Hostname; got != test.hostname {
				t.Errorf("Env.Hostname = %q, want %q", got, test.hostname)
			}
		})
	}
}

// TestHostNameOfAnyBytes escapes the system's name one-to-one: sethostname(2) takes any
// bytes.
func TestHostNameOfAnyBytes(t *testing.T) {
	for name, want := range map[string]string{
		"web1":         "web1",
		"wéb 1":        "wéb 1",
		"w\xe9b":       `w\xe9b`,
		`w\xe9b`:       `w\x5cxe9b`,
		"a\nb\x00\x7f": `a\x0ab\x00\x7f`,
		"\u200b\ufffd": `\xe2\x80\x8b` + "\ufffd",
	} {
		host := fakeHost(nil)
		host.Hostname = func() (string, error) { return name, nil }
		a, err := config.Load([]config.File{{Name: "s.toml", Text: whole("")}}, fakePlugins(), host)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if got := a.Inputs[0].Options.Tags["host"]; got != want || a.Inputs[0].Input.(fake).env.Hostname != want {
			t.Errorf("%q: the tag is %q, want %q", name, got, want)
		}
	}
}

func TestStateDirectoryFromSystemd(t *testing.T) {
	for _, test := range []struct{ env, text, want string }{
		{"", "", ""},
		{"/var/lib/sockwatch", "", "/var/lib/sockwatch"},
		{"/var/lib/a:/var/lib/b", "", "/var/lib/a"},
		{"/var/lib/a", "[agent]\nstate_directory = \"/b\"", "/b"},
	} {
		a := load(t, whole(test.text), map[string]string{"STATE_DIRECTORY": test.env})
		if got := a.Options.StateDirectory; got != test.want {
			t.Errorf("$STATE_DIRECTORY %q, %q: %q, want %q", test.env, test.text, got, test.want)
		}
	}
}

func TestFilesAddUp(t *testing.T) {
	a, err := config.Load([]config.File{
		{Name: "a.toml", Text: "[global_tags]\nx = \"1\"\n[[inputs.tcp_listen]]\nalias = \"a\""},
		{Name: "b.toml", Text: "[agent]\ninterval = \"1s\"\n[[inputs.tcp_listen]]\nalias = \"b\""},
		{Name: "c.toml", Text: "[[outputs.prometheus]]"},
		{Name: "d.toml", Text: "# nothing yet"},
	}, fakePlugins(), fakeHost(nil))
	if err != nil {
		t.Fatal(err)
	}
	got := []string{a.Inputs[0].Name, a.Inputs[1].Name, a.Pull[0].Name}
	if diff := cmp.Diff([]string{"tcp_listen-a", "tcp_listen-b", "prometheus"}, got); diff != "" {
		t.Errorf("instances (-want +got):\n%s", diff)
	}

	wantErrors(t, []config.File{
		{Name: "a.toml", Text: "[agent]\n[[inputs.tcp_listen]]"},
		{Name: "b.toml", Text: "\n[agent]\n[[inputs.tcp_listen]]\nalias=\"x\""},
		{Name: "c.toml", Text: "[[inputs.tcp_listen]]\nalias=\"x\"\n[[outputs.file]]"},
		{Name: "d.toml", Text: "[[outputs.file]]\nalias=\"x\""},
		{Name: "e.toml", Text: "x y"},
	}, nil, strings.Join([]string{
		`a.toml:2: inputs.tcp_listen: alias: there are 3 instances of this plugin: give each its own alias`,
		`b.toml:2: agent: is already defined at a.toml:1; only one file may have it`,
		`c.toml:2: inputs.tcp_listen: alias: "x" is already used by inputs.tcp_listen, b.toml:4`,
		`c.toml:3: outputs.file: alias: there are 2 instances of this plugin: give each its own alias`,
		`d.toml:1: outputs.file: file "/var/log/x.jsonl" is already used by outputs.file, c.toml:3`,
		`e.toml:1: expected '.' or '=', but got 'y' instead`,
	}, "\n"))
}

func TestEmptyFileIsRefused(t *testing.T) {
	for _, b := range []badFile{
		{"nothing", "", "s.toml: the file is empty"},
		{"blank", " \n\t\n", "s.toml: the file is empty"},
	} {
		b.run(t)
	}
}

func TestSyntaxErrorHasFileAndLine(t *testing.T) {
	for _, b := range []badFile{
		{"no end of string", "[agent]\nhostname = \"a\n", `s.toml:2: agent.hostname: strings cannot contain newlines`},
		{"no quotes", "[agent]\ninterval = 10s", `s.toml:2: agent: unexpected 's'; put a string in quotes`},
		{"no value", "[agent]\n\ninterval =\n", `s.toml:3: agent.interval: expected a value: a string in quotes, a number, true or false`},
		{"no equals sign", "[agent]\ninterval \"10s\"", `s.toml:2: agent: expected '.' or '=', but got '"' instead`},
		{"no closing bracket", "[[inputs.tcp_listen]\n", `s.toml:1: expected end of table array name delimiter ']', but got '\n' instead`},
		{"twice one key", "[agent]\ninterval = \"1s\"\ninterval = \"2s\"", `s.toml:3: agent.interval: is defined twice`},
		{"twice one table", "[agent]\n\n[agent]", `s.toml:3: agent: is defined twice`},
		{"a capital letter", "[[inputs.tcp_listen]]\nnamespaces = True", `s.toml:2: inputs.tcp_listen.namespaces: expected a value: a string in quotes, a number, true or false`},
		{"a bare word", "[[outputs.influxdb]]\ntoken = s3cretword", `s.toml:2: outputs.influxdb.token: expected a value: a string in quotes, a number, true or false`},
		{"a bare number", "[[outputs.influxdb]]\ntoken = 0123456", `s.toml:2: outputs.influxdb.token: Invalid integer: cannot have leading zeroes`},
		{"a NUL", "a\x00", `s.toml:1: files cannot contain NULL bytes; probably using UTF-16; TOML files must be UTF-8`},
		{"no UTF-8", "[agent]\nhostname = \"\xff\"", `s.toml:2: agent.hostname: invalid UTF-8 byte: 0xff`},
	} {
		b.run(t)
	}
}

func TestUnknownKeysAreNamed(t *testing.T) {
	for _, b := range []badFile{
		{"all at once, in order", `[agent]
intervall = "10s"
round_Interval = true
[global_tag]
[[inputs.tcp_listen]]
backendd = "auto"
nampeass = ["x"]
frobnicate = 1
[[inputs.tcp_listen.expect]]
prot = 22
[[outputs.prometheus]]
urls = ["http://x"]
[processors]
`, `s.toml:2: agent: unknown option "intervall" (did you mean "interval"?)
s.toml:3: agent: unknown option "round_Interval" (did you mean "round_interval"?)
s.toml:4: unknown table "global_tag" (did you mean "global_tags"?)
s.toml:6: inputs.tcp_listen: unknown option "backendd" (did you mean "backend"?)
s.toml:7: inputs.tcp_listen: unknown option "nampeass" (did you mean "namepass"?)
s.toml:8: inputs.tcp_listen: unknown option "frobnicate"
s.toml:9: inputs.tcp_listen.expect: name: is missing
s.toml:10: inputs.tcp_listen.expect: unknown option "prot" (did you mean "port"?)
s.toml:12: outputs.prometheus: unknown option "urls"
s.toml:13: unknown table "processors" (sockwatch has no processors: use the filters of inputs and outputs, and the tags of inputs)`},
		{"in no table", whole("interval = \"10s\"\n[[aggregator]]"), `s.toml:1: option "interval" is outside any table (the tables are [global_tags], [agent], [[inputs.NAME]] and [[outputs.NAME]])
s.toml:2: unknown table "aggregator" (the tables are [global_tags], [agent], [[inputs.NAME]] and [[outputs.NAME]])`},
	} {
		b.run(t)
	}
}

func TestErrorsIsATypeWithPlaces(t *testing.T) {
	_, err := config.Load([]config.File{{Name: "s.toml", Text: whole("[agent]\nx = 1")}}, fakePlugins(), fakeHost(nil))
	var errs config.Errors
	if !errors.As(err, &errs) || len(errs) != 1 || errs[0].File != "s.toml" || errs[0].Line != 2 {
		t.Errorf("Load = %#v", err)
	}
}

func TestByteOrderMarkIsNotText(t *testing.T) {
	a := load(t, "\ufeff"+whole("[agent]\ninterval = \"7s\""), nil)
	if got := a.Options.Interval.String(); got != "7s" {
		t.Errorf("interval %s", got)
	}
}

func TestSecretInAFileThatEveryoneCanReadIsAWarning(t *testing.T) {
	for _, test := range []struct {
		name, option string
		shared, want bool
	}{
		{name: "a token", option: `token = "t0p"`, shared: true, want: true},
		{name: "a token, in a file of one's own", option: `token = "t0p"`, shared: false, want: false},
		{name: "a token from the environment", option: `token = "${TOKEN}"`, shared: true, want: false},
		{name: "no token", option: `token = ""`, shared: true, want: false},
		{name: "a token as default", option: `token = "${NONE:-t0p}"`, shared: true, want: true},
		{name: "a token as default, in a file of one's own", option: `token = "${NONE:-t0p}"`, shared: false, want: false},
		{name: "an empty default", option: `token = "${NONE:-}"`, shared: true, want: false},
		{name: "a header with a token from the environment", option: `headers = { Authorization = "Bearer ${TOKEN}" }`, shared: true, want: false},
		{name: "a header", option: `headers = { Authorization = "Bearer t0p" }`, shared: true, want: true},
		{name: "a header from the environment", option: `headers = { Authorization = "${TOKEN}" }`, shared: true, want: false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log strings.Builder
			host := fakeHost(map[string]string{"TOKEN": "t0p"})
			host.Log = slog.New(slog.NewTextHandler(&log, nil))
			text := "[[inputs.tcp_listen]]\n[[outputs.influxdb]]\n" + test.option + "\ndatabase = \"d\"\n"
			if _, err := config.Load([]config.File{{Name: "s.toml", Text: text, Shared: test.shared}}, fakePlugins(), host); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(log.String(), "contains a secret"); got != test.want {
				t.Errorf("warned = %v, want %v", got, test.want)
			}
			if strings.Contains(log.String(), "t0p") {
				t.Error("the warning holds the secret")
			}
		})
	}
}

// withoutTime returns a log without times.
func withoutTime(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// TestDeprecatedOptionWorksAndIsAWarning: a deprecated option keeps its effect, and the warning
// says where it is and what to write instead, also of an included file.
func TestDeprecatedOptionWorksAndIsAWarning(t *testing.T) {
	var log strings.Builder
	host := fakeHost(nil)
	host.Log = withoutTime(&log)
	host.ReadFile = func(path string) (config.File, error) {
		return config.File{Text: "[[expect]]\nname = \"a\"\nport = 1\nlevel = \"high\"\n"}, nil
	}
	text := `[[outputs.prometheus]]
[[inputs.tcp_listen]]
  expect_file = "/r.toml"
  cache_ttl = "7s"
`
	a, err := config.Load([]config.File{{Name: "s.toml", Text: text}}, fakePlugins(), host)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Inputs[0].Input.(fake).options.(listenOptions); got.CacheTTL != plugin.Duration(7*time.Second) || got.Expect[0].Level != "high" {
		t.Errorf("options %+v", got)
	}
	want := `level=WARN msg="inputs.tcp_listen: cache_ttl: is deprecated and will be removed: write owner_refresh" file=s.toml line=4
level=WARN msg="expect: level: is deprecated and will be removed: write labels" file=/r.toml line=4
`
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestRegularExpressionIsAWarning(t *testing.T) {
	var log strings.Builder
	host := fakeHost(map[string]string{"NAME": "^t0p$"})
	host.Log = withoutTime(&log)
	text := `[[inputs.tcp_listen]]
namepass = ["tcp_listen*"]
fieldexclude = ["pid",
  "^exe$"]
[inputs.tcp_listen.tagdrop]
process = ["${NAME}"]
[[outputs.prometheus]]
  namedrop = ["custom.*", "[a-z]*"]
`
	if _, err := config.Load([]config.File{{Name: "s.toml", Text: text}}, fakePlugins(), host); err != nil {
		t.Fatal(err)
	}
	want := `level=WARN msg="inputs.tcp_listen: fieldexclude: pattern \"^exe$\" looks like a regular expression, but is a glob, which matches whole values: write \"exe\"" file=s.toml line=3
level=WARN msg="outputs.prometheus: namedrop: pattern \"custom.*\" looks like a regular expression, but is a glob, which matches whole values: write \"custom*\"" file=s.toml line=8
`
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}
