package config_test

import (
	"strings"
	"testing"
	"time"

	"sockwatch/agent/config"
)

// Values of the right type that would fail later.
func TestValuesThatBreak(t *testing.T) {
	for _, b := range []badFile{
		{"times of the agent", whole(`[agent]
interval = "99ms"
collection_jitter = "1s"
shutdown_timeout = "1ns"
`), `s.toml:2: agent: interval: must be at least 100ms
s.toml:4: agent: shutdown_timeout: must be at least 100ms`},
		{"jitter above the interval", `[agent]
interval = "5s"
collection_jitter = "6s"
[[inputs.tcp_listen]]
interval = "1s"
collection_jitter = "1001ms"
timeout = "99ms"
[[outputs.file]]
flush_interval = "1s"
flush_jitter = "2s"
`, `s.toml:3: agent: collection_jitter: 6s is longer than the interval (5s)
s.toml:6: inputs.tcp_listen: collection_jitter: 1.001s is longer than the interval (1s)
s.toml:7: inputs.tcp_listen: timeout: must be at least 100ms
s.toml:10: outputs.file: flush_jitter: 2s is longer than the interval (1s)`},
		{"jitter of the agent above the interval of an input", `[agent]
collection_jitter = "6s"
[[inputs.tcp_listen]]
interval = "5s"
[[outputs.file]]
`, `s.toml:4: inputs.tcp_listen: collection_jitter: 6s is longer than the interval (5s)`},
		{"jitter of an input above the interval of the agent", `[agent]
interval = "5s"
[[inputs.tcp_listen]]

collection_jitter = "6s"
[[outputs.file]]
`, `s.toml:5: inputs.tcp_listen: collection_jitter: 6s is longer than the interval (5s)`},
		{"delivery", `[[inputs.tcp_listen]]
[[outputs.file]]
timeout = "1ms"
flush_interval = "2500000h"
min_interval = "99ms"
buffer_limit = "1025GiB"
[[outputs.influxdb]]
database = "d"
flush_interval = "1ns"
`, `s.toml:3: outputs.file: timeout: must be at least 100ms
s.toml:4: outputs.file: flush_interval: "2500000h" is longer than a year (8760h)
s.toml:5: outputs.file: min_interval: must be at least 100ms
s.toml:6: outputs.file: buffer_limit: must be at least 64KiB and at most 1024GiB
s.toml:9: outputs.influxdb: flush_interval: must be at least 100ms`},
		{"min_interval of an endpoint", `[[inputs.tcp_listen]]
[[outputs.prometheus]]
min_interval = "60s"
`, `s.toml:3: outputs.prometheus: unknown option "min_interval" (leave it out: an endpoint serves the latest points on request)`},
		{"names of files in the state directory", `[[inputs.tcp_listen]]
alias = "x.first_seen.json"
[[outputs.file]]
alias = "eu.rejected.jsonl"
[[outputs.file]]
alias = "eu.stored"
`, `s.toml:2: inputs.tcp_listen: alias: "x.first_seen.json" contains ".first_seen.json", which is reserved for files in the state directory
s.toml:4: outputs.file: alias: "eu.rejected.jsonl" contains ".rejected.jsonl", which is reserved for files in the state directory
s.toml:6: outputs.file: alias: "eu.stored" contains ".stored", which is reserved for files in the state directory`},
		{"names that nobody sees", `[agent]
hostname = " "
[global_tags]
"" = "x"
dc = " "
rack = "a\u0007"
[[inputs.tcp_listen]]
name_prefix = "a\n"
name_override = " x"
name_suffix = "\t"
[inputs.tcp_listen.tags]
" " = "x"
[[outputs.file]]
`, `s.toml:2: agent: hostname: " " begins or ends with a space
s.toml:4: global_tags: the name of a tag is empty
s.toml:5: global_tags: tag "dc" = " " begins or ends with a space
s.toml:6: global_tags: tag "rack" = "a\a" contains a control character
s.toml:8: inputs.tcp_listen: name_prefix: "a\n" contains a control character
s.toml:9: inputs.tcp_listen: name_override: " x" begins or ends with a space
s.toml:10: inputs.tcp_listen: name_suffix: "\t" contains a control character
s.toml:11: inputs.tcp_listen: tags: the name of the tag " " begins or ends with a space`},
		{"a name of characters without a shape, and the root directory", whole(`[agent]
hostname = "\u200b"
state_directory = "/var/../"
`), `s.toml:2: agent: hostname: "\u200b" has no printable character
s.toml:3: agent: state_directory: "/var/../" is the root directory: name a directory below it`},
		{"NUL", `[agent]
state_directory = "/var/lib\u0000"
[[inputs.tcp_listen]]
labels = { a = "\u0000" }
[[outputs.influxdb]]
database = "d"
urls = ["http://a\u0000"]
[[outputs.file]]
path = "/x\u0000"
[[outputs.prometheus]]
listen = "unix:/x\u0000"
`, `s.toml:2: agent: state_directory: contains a NUL character
s.toml:4: inputs.tcp_listen: labels.a: contains a NUL character
s.toml:7: outputs.influxdb: urls: contains a NUL character
s.toml:9: outputs.file: path: contains a NUL character
s.toml:11: outputs.prometheus: listen: contains a NUL character`},
		{"patterns that match nothing", `[[inputs.tcp_listen]]
namepass = [""]
[inputs.tcp_listen.tagpass]
port = []
[[outputs.file]]
`, `s.toml:2: inputs.tcp_listen: namepass: pattern "": is empty and matches nothing
s.toml:3: inputs.tcp_listen: tagpass: port has no patterns and matches nothing`},
		{"[[inputs]]", "[[inputs]]\n[[outputs.file]]", `s.toml:1: inputs: must name a plugin: write [[inputs.NAME]] (known: tcp_listen)`},
		{"[[outputs]]", "[[inputs.tcp_listen]]\n[[outputs]]", `s.toml:2: outputs: must name a plugin: write [[outputs.NAME]] (known: file, influxdb, prometheus)`},
	} {
		b.run(t)
	}
}

// Deep nesting costs the library memory by the square of the depth.
func TestDeepNesting(t *testing.T) {
	const want = "nested more than 32 levels deep"
	const mebi = 1 << 20
	for _, b := range []badFile{
		{"lists", "[agent]\nx = " + strings.Repeat("[", mebi), "s.toml:2: " + want},
		{"closed lists", "[agent]\nx = " + strings.Repeat("[", 40) + strings.Repeat("]", 40), "s.toml:2: " + want},
		{"tables", "\n\nx = " + strings.Repeat("{a=", 33), "s.toml:3: " + want},
		{"a dotted key", strings.Repeat("a.", mebi/2) + "a = 1", "s.toml:1: " + want},
		{"a dotted table", "[" + strings.Repeat("a.", 33) + "a]", "s.toml:1: " + want},
		{"a dotted key in a list of tables", "x = [{" + strings.Repeat("a . ", 33) + "a = 1}]", "s.toml:1: " + want},
	} {
		b.run(t)
	}
	// Brackets and dots that do not nest.
	load(t, `# `+strings.Repeat("[", 50)+`
[global_tags]
a = "`+strings.Repeat("[", 50)+`"
b = '`+strings.Repeat(".", 50)+`'
c = """
`+strings.Repeat("{\"", 50)+`"""
"d.`+strings.Repeat("e.", 50)+`" = "x"
[[inputs.tcp_listen]]
ratio = 1.5
namepass = [ # ]
  "a", # ]
]
[[outputs.file]]
`, nil)
}

func TestVariablesAreBounded(t *testing.T) {
	text := whole("[global_tags]\na = \"" + strings.Repeat("${A}", 20) + "\"")
	wantErrors(t, []config.File{{Name: "s.toml", Text: text}}, map[string]string{"A": strings.Repeat("x", 100_000)},
		"s.toml:2: global_tags: a: is longer than 1MiB after expansion of its variables")
}

// Text of an error that happens to equal a secret stays, and reveals nothing about it.
func TestRedactionLeavesTheTextOfErrorsAlone(t *testing.T) {
	env := map[string]string{"A": "unknown value", "B": "t", "C": "value"}
	wantErrors(t, []config.File{{Name: "s.toml", Text: whole(`[agent]
log_level = "${A}"
log_format = "${B}"
[[inputs.tcp_listen]]
backend = "x${C}x"
namespaces = "${C}"
max_listeners = "${B}"
owner_refresh = "${C}"
namepass = ["[${C}"]
[[outputs.influxdb]]
database = "d"
token = "auto"
buffer = "auto, disk"
`)}}, env, `s.toml:2: agent: log_level: unknown value "${A}" (known: debug, info, warn, error)
s.toml:3: agent: log_format: unknown value "${B}" (known: text, json)
s.toml:5: inputs.tcp_listen: backend: unknown value "x${C}x" (known: auto, netlink)
s.toml:6: inputs.tcp_listen: namespaces: "${C}" is neither true nor false
s.toml:7: inputs.tcp_listen: max_listeners: "${B}" is not an integer
s.toml:8: inputs.tcp_listen: owner_refresh: "${C}" is not a duration: write a string such as "10s"
s.toml:9: inputs.tcp_listen: namepass: pattern "[${C}": "[" without "]"
s.toml:13: outputs.influxdb: buffer: unknown value "[secret]" (known: auto, disk, memory)`)
}

func TestLongestTimesAreTaken(t *testing.T) {
	a := load(t, whole("[agent]\ninterval = \"8760h\"\ncollection_jitter = \"8760h\""), nil)
	if got, want := time.Duration(a.Options.Interval), 365*24*time.Hour; got != want {
		t.Errorf("%v, want %v", got, want)
	}
}
