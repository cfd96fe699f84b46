package config_test

import "testing"

// Every error of a Telegraf configuration says what to write instead, or why there is nothing.
func TestTelegrafConfiguration(t *testing.T) {
	for _, b := range []badFile{
		{"agent", whole(`[agent]
interval = "10s"
metric_batch_size = 1000
metric_buffer_limit = 10000
flush_interval = "10s"
debug = false
quiet = false
logfile = ""
log_with_timezone = "local"
`), `s.toml:3: agent: unknown option "metric_batch_size" (leave it out: requests are limited by their size, for which some outputs have an option)
s.toml:4: agent: unknown option "metric_buffer_limit" (write buffer_limit = "64MiB" in each output that pushes: queues are limited by their size)
s.toml:5: agent: unknown option "flush_interval" (write it in each output that pushes)
s.toml:6: agent: unknown option "debug" (write log_level = "debug")
s.toml:7: agent: unknown option "quiet" (write log_level = "error")
s.toml:8: agent: unknown option "logfile" (leave it out: the log goes to stderr, where the service manager collects it)
s.toml:9: agent: unknown option "log_with_timezone" (leave it out: it cannot be set)`},
		{"inputs and outputs", `[[inputs.tcp_listen]]
fieldpass = ["x"]
fielddrop = ["x"]
precision = "1s"
[[outputs.file]]
files = ["stdout"]
metric_buffer_limit = 1
name_prefix = "x"
[[outputs.prometheus]]
flush_interval = "1s"
fieldpass = ["x"]
`, `s.toml:2: inputs.tcp_listen: unknown option "fieldpass" (write fieldinclude)
s.toml:3: inputs.tcp_listen: unknown option "fielddrop" (write fieldexclude)
s.toml:4: inputs.tcp_listen: unknown option "precision" (leave it out: timestamps are in nanoseconds)
s.toml:6: outputs.file: unknown option "files" (write path = "FILE")
s.toml:7: outputs.file: unknown option "metric_buffer_limit" (write buffer_limit = "64MiB": the queue is limited by its size)
s.toml:8: outputs.file: unknown option "name_prefix" (write it in the input)
s.toml:10: outputs.prometheus: unknown option "flush_interval" (leave it out: an endpoint serves the latest points on request)
s.toml:11: outputs.prometheus: unknown option "fieldpass" (write fieldinclude)`},
		{"another name of a plugin", "[[inputs.tcp_listen]]\n[[outputs.prometheus_client]]\nlisten = \":1\"",
			`s.toml:2: outputs.prometheus_client: unknown plugin "prometheus_client" (write [[outputs.prometheus]])`},
		{"tables", "[[inputs.tcp_listen]]\n[[outputs.file]]\n[[processors.rename]]\n[[aggregators.basicstats]]\n[[secretstores.os]]",
			`s.toml:3: unknown table "processors" (sockwatch has no processors: use the filters of inputs and outputs, and the tags of inputs)
s.toml:4: unknown table "aggregators" (sockwatch has no aggregators: leave them out, and write min_interval in an output to send points less often)
s.toml:5: unknown table "secretstores" (sockwatch has no secret stores: use a variable such as ${TOKEN}, or an option such as token_file)`},
	} {
		b.run(t)
	}
}
