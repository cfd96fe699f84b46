package config_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/config"
)

func TestWrongValuesAreNamed(t *testing.T) {
	for _, b := range []badFile{
		{"durations", `[agent]
interval = 10
collection_jitter = "10"
shutdown_timeout = "soon"
[[inputs.tcp_listen]]
interval = "-1s"
timeout = ["1s"]
owner_refresh = true
[[outputs.file]]
timeout = "0s"
flush_interval = 1.5
`, `s.toml:2: agent: interval: 10 has no unit: write a string such as "10s"
s.toml:3: agent: collection_jitter: 10 has no unit: write a string such as "10s"
s.toml:4: agent: shutdown_timeout: "soon" is not a duration: write a string such as "10s"
s.toml:6: inputs.tcp_listen: interval: "-1s" is negative
s.toml:7: inputs.tcp_listen: timeout: a list cannot be used here: write a string
s.toml:8: inputs.tcp_listen: owner_refresh: "true" is not a duration: write a string such as "10s"
s.toml:10: outputs.file: timeout: must be at least 100ms
s.toml:11: outputs.file: flush_interval: 1.5 has no unit: write a string such as "1.5s"`},
		{"zero interval", whole("[agent]\ninterval = \"0s\"\nshutdown_timeout = \"0s\""), `s.toml:2: agent: interval: must be at least 100ms
s.toml:3: agent: shutdown_timeout: must be at least 100ms`},
		{"sizes", `[[inputs.tcp_listen]]
[[outputs.influxdb]]
database = "x"
max_body = 5
buffer_limit = "64 megs"
[[outputs.file]]
buffer_limit = "0B"
`, `s.toml:4: outputs.influxdb: max_body: 5 has no unit: write a string such as "5MiB"
s.toml:5: outputs.influxdb: buffer_limit: "64 megs" is not a size: write a string such as "64MiB"
s.toml:7: outputs.file: buffer_limit: must be at least 64KiB and at most 1024GiB`},
		{"a name with dots", `[[inputs.tcp_listen]]
tags = { k8s.node.name = "n1" }
[[outputs.file]]
`, `s.toml:2: inputs.tcp_listen: tags.k8s: must be a string: put a name with dots in quotes`},
		{"types", `[global_tags]
rack = 7
[[inputs.tcp_listen]]
backend = 4
namespaces = "yes"
max_listeners = "many"
ratio = "half"
labels = "x"
namepass = "tcp_*"
namedrop = ["a", 1]
expect = "ssh"
[inputs.tcp_listen.tags]
role = true
[inputs.tcp_listen.tagpass]
port = 80
[[outputs.prometheus]]
listen = 8088
[[outputs.influxdb]]
urls = ["http://a",
  5]
database = 2026-01-01
[[outputs.file]]
path = {}
`, `s.toml:2: global_tags: rack: must be a string: put it in quotes
s.toml:4: inputs.tcp_listen: backend: must be a string: put it in quotes
s.toml:5: inputs.tcp_listen: namespaces: "yes" is neither true nor false
s.toml:6: inputs.tcp_listen: max_listeners: "many" is not an integer
s.toml:7: inputs.tcp_listen: ratio: "half" is not a number
s.toml:8: inputs.tcp_listen: labels: "x" is not a table: write { key = ... }
s.toml:9: inputs.tcp_listen: namepass: must be a list: put it in [ ]
s.toml:10: inputs.tcp_listen: namedrop: must be a string: put it in quotes
s.toml:11: inputs.tcp_listen: expect: must be a list of tables: write [[inputs.tcp_listen.expect]]
s.toml:13: inputs.tcp_listen: tags.role: must be a string: put it in quotes
s.toml:15: inputs.tcp_listen: tagpass.port: must be a list: put it in [ ]
s.toml:17: outputs.prometheus: listen: 8088 is neither a string nor a list of strings
s.toml:20: outputs.influxdb: urls: must be a string: put it in quotes
s.toml:21: outputs.influxdb: database: must be a string: put it in quotes
s.toml:23: outputs.file: path: must be a string: put it in quotes`},
		{"types further", `[[inputs.tcp_listen]]
alias = 5
namespaces = 2026-01-01
ratio = { a = 1 }
max_listeners = [[1]]
labels = 1.5
expect = [1]
[[inputs.tcp_listen]]
alias = "b"
expect = []
"a\"b" = 1
[[outputs.prometheus]]
`, `s.toml:2: inputs.tcp_listen: alias: must be a string: put it in quotes
s.toml:3: inputs.tcp_listen: namespaces: a date is neither true nor false
s.toml:4: inputs.tcp_listen: ratio: a table is not a number
s.toml:5: inputs.tcp_listen: max_listeners: a list is not an integer
s.toml:6: inputs.tcp_listen: labels: 1.5 is not a table: write { key = ... }
s.toml:7: inputs.tcp_listen: expect: must be a list of tables: write [[inputs.tcp_listen.expect]]
s.toml:11: inputs.tcp_listen: unknown option "a\"b"`},
		{"values that do not hold", `[agent]
log_level = "loud"
log_format = "xml"
state_directory = "var/lib"
[global_tags]
x = "a\nb"
[[inputs.tcp_listen]]
backend = "magic"
max_listeners = 0
alias = "a/b"
namepass = ["[", "{"]
[inputs.tcp_listen.tagdrop]
port = ["}"]
[[outputs.influxdb]]
buffer = "tape"
urls = [
  "ftp://x",
]
[[outputs.file]]
buffer = "disk"
`, `s.toml:2: agent: log_level: unknown value "loud" (known: debug, info, warn, error)
s.toml:3: agent: log_format: unknown value "xml" (known: text, json)
s.toml:4: agent: state_directory: "var/lib" is not an absolute path
s.toml:6: global_tags: tag "x" = "a\nb" contains a control character
s.toml:8: inputs.tcp_listen: backend: unknown value "magic" (known: auto, netlink)
s.toml:9: inputs.tcp_listen: max_listeners: must be more than 0
s.toml:10: inputs.tcp_listen: alias: must be at most 64 letters, digits, '_', '-' and '.', and must not begin with '-' or '.'
s.toml:11: inputs.tcp_listen: namepass: pattern "[": "[" without "]"
s.toml:11: inputs.tcp_listen: namepass: pattern "{": "{" without "}"
s.toml:12: inputs.tcp_listen: tagdrop: pattern "}": "}" without "{"
s.toml:14: outputs.influxdb: neither a database nor a bucket is set
s.toml:15: outputs.influxdb: buffer: unknown value "tape" (known: auto, disk, memory)
s.toml:16: outputs.influxdb: urls: "ftp://x" is not a URL`},
		{"what Validate says of a mistyped option is left out", whole("[[inputs.tcp_listen]]\nbackend = 1\nmax_listeners = -1"),
			`s.toml:2: inputs.tcp_listen: backend: must be a string: put it in quotes
s.toml:3: inputs.tcp_listen: max_listeners: must be more than 0`},
		{"a constructor's error", whole("[[outputs.influxdb]]\ndatabase = \"x\"\ntoken = \"refused\""),
			`s.toml:3: outputs.influxdb: token: is refused`},
		{"a disk queue without a place", whole("[[outputs.file]]\n\nbuffer = \"disk\""),
			`s.toml:3: outputs.file: buffer: "disk" needs a state_directory in [agent], or $STATE_DIRECTORY`},
		{"not one table", "agent = 5\nglobal_tags = [1]\n[[inputs.tcp_listen]]\n[[outputs.file]]",
			`s.toml:1: agent: must be one table: write [agent]
s.toml:2: global_tags: must be one table: write [global_tags]`},
		{"a list of agents", whole("[[agent]]"), `s.toml:1: agent: must be one table: write [agent]`},
		{"one table where a list is needed", "[inputs.tcp_listen]\n[outputs.file]\npath = \"x\"",
			`s.toml:1: inputs.tcp_listen: must be a list of tables: write [[inputs.tcp_listen]]
s.toml:2: outputs.file: must be a list of tables: write [[outputs.file]]`},
		{"an empty list", "inputs.tcp_listen = []\n[[outputs.file]]",
			`s.toml:1: inputs.tcp_listen: must be a list of tables: write [[inputs.tcp_listen]]`},
		{"no plugin named", "[[inputs]]\n[[outputs.file]]", `s.toml:1: inputs: must name a plugin: write [[inputs.NAME]] (known: tcp_listen)`},
	} {
		b.run(t)
	}
}

func TestInputsAndOutputsAreRequired(t *testing.T) {
	for _, b := range []badFile{
		{"neither", "[agent]\n", `s.toml: no inputs: at least one [[inputs.NAME]] is needed (known: tcp_listen)
s.toml: no outputs: at least one [[outputs.NAME]] is needed (known: file, influxdb, prometheus)`},
		{"no outputs", "[[inputs.tcp_listen]]\n[outputs]",
			`s.toml: no outputs: at least one [[outputs.NAME]] is needed (known: file, influxdb, prometheus)`},
	} {
		b.run(t)
	}
	wantErrors(t, []config.File{{Name: "a", Text: "[agent]"}, {Name: "b", Text: "[[inputs.tcp_listen]]"}}, nil,
		`no outputs: at least one [[outputs.NAME]] is needed (known: file, influxdb, prometheus)`)
}

func TestExclusiveResourcesAreNotShared(t *testing.T) {
	for _, b := range []badFile{
		{"alias", `[[inputs.tcp_listen]]
[[outputs.file]]
alias = "x"
path = "/a"
[[outputs.file]]
alias = "x"
path = "/b"
`, `s.toml:6: outputs.file: alias: "x" is already used by outputs.file, s.toml:3`},
		{"no alias", `[[inputs.tcp_listen]]
[[inputs.tcp_listen]]
alias = "b"
[[outputs.file]]
path = "/a"
[[outputs.file]]
alias = ""
path = "/b"
`, `s.toml:1: inputs.tcp_listen: alias: there are 2 instances of this plugin: give each its own alias
s.toml:4: outputs.file: alias: there are 2 instances of this plugin: give each its own alias
s.toml:7: outputs.file: alias: there are 2 instances of this plugin: give each its own alias`},
		{"listen address", `[[inputs.tcp_listen]]
[[outputs.prometheus]]
alias = "a"
[[outputs.prometheus]]
alias = "b"
listen = ["127.0.0.1:1", ":8088"]
`, `s.toml:6: outputs.prometheus: listen ":8088" is already used by outputs.prometheus, s.toml:2`},
		{"file", `[[inputs.tcp_listen]]
[[outputs.file]]
alias = "a"
[[outputs.file]]
alias = "b"
`, `s.toml:4: outputs.file: file "/var/log/x.jsonl" is already used by outputs.file, s.toml:2`},
		{"several listen addresses", `[[inputs.tcp_listen]]
[[outputs.prometheus]]
alias = "a"
listen = ["127.0.0.1:1", "127.0.0.1:2"]
[[outputs.prometheus]]
alias = "b"
listen = ["127.0.0.1:2", "127.0.0.1:1", "127.0.0.1:3"]
[[outputs.prometheus]]
alias = "c"
listen = ["127.0.0.1:1", "127.0.0.1:3"]
`, `s.toml:7: outputs.prometheus: listen "127.0.0.1:2" is already used by outputs.prometheus, s.toml:4
s.toml:10: outputs.prometheus: listen "127.0.0.1:1" is already used by outputs.prometheus, s.toml:4
s.toml:10: outputs.prometheus: listen "127.0.0.1:3" is already used by outputs.prometheus, s.toml:7`},
	} {
		b.run(t)
	}
}

func TestUnknownPluginIsNamed(t *testing.T) {
	for _, b := range []badFile{
		{"near", "[[inputs.tcp_listn]]\n[[outputs.prometheus]]", `s.toml:1: inputs.tcp_listn: unknown plugin "tcp_listn" (did you mean "tcp_listen"? known: tcp_listen)`},
		{"far", "[[inputs.tcp_listen]]\n[[outputs.kafka]]\n[outputs.x.y]", `s.toml:2: outputs.kafka: unknown plugin "kafka" (known: file, influxdb, prometheus)
s.toml:3: outputs.x: unknown plugin "x" (known: file, influxdb, prometheus)`},
		{"of the other side", "[[inputs.prometheus]]\n[[outputs.tcp_listen]]",
			`s.toml:1: inputs.prometheus: prometheus belongs to the outputs: write [[outputs.prometheus]]
s.toml:2: outputs.tcp_listen: tcp_listen belongs to the inputs: write [[inputs.tcp_listen]]`},
	} {
		b.run(t)
	}
}

func TestSecretsAreNotInErrors(t *testing.T) {
	const secret = "correct-horse-battery"
	env := map[string]string{"TOKEN": secret, "URL": "ftp://user:" + secret + "@h"}
	for _, test := range []struct{ name, text, want string }{
		{"a token in the wrong place", "[agent]\ninterval = \"${TOKEN}\"\nlog_level = \"${TOKEN}\"\nstate_directory = \"${TOKEN}\"",
			`s.toml:2: agent: interval: "${TOKEN}" is not a duration: write a string such as "10s"
s.toml:3: agent: log_level: unknown value "${TOKEN}" (known: debug, info, warn, error)
s.toml:4: agent: state_directory: "${TOKEN}" is not an absolute path`},
		{"in a URL", "[[outputs.influxdb]]\ndatabase = \"x\"\nurls = [\"ftp://u:${TOKEN}@h\", \"${URL}\", \"${NONE:-ftp}\"]",
			`s.toml:3: outputs.influxdb: urls: "${NONE:-ftp}" is not a URL
s.toml:3: outputs.influxdb: urls: "${URL}" is not a URL
s.toml:3: outputs.influxdb: urls: "ftp://u:${TOKEN}@h" is not a URL`},
		{"without quotes", "[[outputs.influxdb]]\ndatabase = \"x\"\ntoken = 73514", `s.toml:3: outputs.influxdb: token: must be a string: put it in quotes`},
		{"a bare word", "[[outputs.influxdb]]\ntoken = " + secret, `s.toml:2: outputs.influxdb.token: expected a value: a string in quotes, a number, true or false`},
		{"a bare date", "[[outputs.influxdb]]\ntoken = 2026-99-99", `s.toml:2: outputs.influxdb.token: invalid datetime:`},
		{"a bare hexadecimal", "[[outputs.influxdb]]\ntoken = 0xbeefg", `s.toml:2: outputs.influxdb: unexpected 'g'; put a string in quotes`},
		{"a bare float", "[[outputs.influxdb]]\ntoken = 1.5e5.5", `s.toml:2: outputs.influxdb.token: Invalid float value:`},
		{"a large number", "[[outputs.influxdb]]\ntoken = 99999999999999999999", `s.toml:2: outputs.influxdb.token: the number is out of range for int64`},
	} {
		t.Run(test.name, func(t *testing.T) {
			wantErrors(t, []config.File{{Name: "s.toml", Text: whole(test.text)}}, env, test.want)
		})
	}
}

func TestVariablesAreExpanded(t *testing.T) {
	env := map[string]string{
		"DB": "metrics", "EMPTY": "", "INJECT": "x\"\nurls = [\"http://evil\"]", "NESTED": "${DB}", "A": "1", "BYTES": "\xff",
	}
	text := whole(`[[inputs.tcp_listen]]
alias = "${DB}"
[inputs.tcp_listen.tags]
"${DB}" = "key"
a = "${A}-${A}${NONE:-}"
b = "$${DB} $DB $ {DB} $$ }"
d = '${EMPTY:-empty}'
e = "${NESTED}"
f = "${DB:-x}"
[[outputs.influxdb]]
urls = ["http://${DB}", "http://${NONE:-b}"]
database = "${INJECT}"
token = "${EMPTY}"
`)
	a := load(t, text, env)
	if got := a.Inputs[0].Name; got != "tcp_listen-metrics" {
		t.Errorf("name %q", got)
	}
	wantTags := map[string]string{
		"${DB}": "key", "a": "1-1", "b": "${DB} $DB $ {DB} $$ }", "d": "empty", "e": "${DB}", "f": "metrics", "host": "web1",
	}
	if diff := cmp.Diff(wantTags, a.Inputs[0].Options.Tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	want := influxOptions{URLs: []string{"http://metrics", "http://b"}, Database: env["INJECT"], MaxBody: 1 << 20}
	if diff := cmp.Diff(want, a.Push[0].Pusher.(fake).options); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}

	const noVariable = `"${" does not begin a variable such as ${NAME} or ${NAME:-default}; write "$${" for a literal "${"`
	wantErrors(t, []config.File{{Name: "s.toml", Text: `[global_tags]
a = "${NONE}"
[[inputs.tcp_listen]]
interval = "${NONE_EITHER}"
labels = { a = "x", b = "${NONE}" }
[[inputs.tcp_listen.expect]]
name = "${NO NAME}"
[[outputs.influxdb]]
urls = [
  "http://a",
  "http://${NONE}",
]
database = "${DB"
token = "${}"
max_body = "${A:-${B}}"
password = "${NONE}"
[[outputs.file]]
path = "${BYTES}"
`}}, env, `s.toml:2: global_tags: a: the environment variable NONE is not set: set it, or write ${NONE:-default}
s.toml:4: inputs.tcp_listen: interval: the environment variable NONE_EITHER is not set: set it, or write ${NONE_EITHER:-default}
s.toml:5: inputs.tcp_listen: labels.b: the environment variable NONE is not set: set it, or write ${NONE:-default}
s.toml:7: inputs.tcp_listen.expect: name: `+noVariable+`
s.toml:11: outputs.influxdb: urls: the environment variable NONE is not set: set it, or write ${NONE:-default}
s.toml:13: outputs.influxdb: database: `+noVariable+`
s.toml:14: outputs.influxdb: token: `+noVariable+`
s.toml:15: outputs.influxdb: max_body: the default of ${A:-...} contains another variable, which is not expanded: set A in the environment
s.toml:16: outputs.influxdb: unknown option "password"
s.toml:18: outputs.file: path: the environment variable BYTES is not valid UTF-8`)
}

func TestHostThatCannotIdentifyItself(t *testing.T) {
	host := fakeHost(map[string]string{"STATE_DIRECTORY": "relative"})
	host.Hostname = func() (string, error) { return "", errors.New("it has none") }
	_, err := config.Load([]config.File{{Name: "s.toml", Text: whole("[agent]")}}, fakePlugins(), host)
	want := `s.toml:1: agent: $STATE_DIRECTORY: "relative" is not an absolute path
s.toml:1: agent: hostname: it has none: set it here`
	if err == nil || err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
	_, err = config.Load([]config.File{{Name: "s.toml", Text: whole("[agent]\nhostname = \"a\\nb\"")}}, fakePlugins(), host)
	want = `s.toml:1: agent: $STATE_DIRECTORY: "relative" is not an absolute path
s.toml:2: agent: hostname: "a\nb" contains a control character`
	if err == nil || err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
}

// FuzzLoad checks that data never causes a panic, and that every failure has a
// message.
func FuzzLoad(f *testing.F) {
	f.Add("[agent]\ninterval = \"${A:-10s}\"\n[[inputs.tcp_listen]]\nexpect = [{name = \"x\"}]\n[[outputs.prometheus]]\nlisten = \":1\"", "A", "1s")
	f.Add("[[inputs.tcp_listen]]\n[[inputs.tcp_listen.expect]]\n[[outputs.file]]\npath = \"$${\"\n[outputs.file.tagpass]\na = [\"b\"]", "", "")
	f.Add("agent = 1\ninputs = [1]\noutputs.x = {y = [[]]}", "", "")
	f.Fuzz(func(t *testing.T, text, name, value string) {
		a, err := config.Load([]config.File{{Name: "s.toml", Text: text}}, fakePlugins(), fakeHost(map[string]string{name: value}))
		if (a == nil) == (err == nil) {
			t.Fatalf("Load returned %v, %v", a, err)
		}
		if err != nil && err.Error() == "" {
			t.Fatal("an error that says nothing")
		}
		if err == nil && (len(a.Inputs) == 0 || len(a.Push)+len(a.Pull) == 0) {
			t.Fatal("an agent without an input or an output")
		}
	})
}
