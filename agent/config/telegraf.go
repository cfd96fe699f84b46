package config

import (
	"slices"

	"sockwatch/agent/plugin"
)

// What Telegraf has in a table and sockwatch has not, with what to do instead.
var (
	telegrafTables = map[string]string{
		"aggregators":  "there are no aggregators: leave them out",
		"processors":   "there are no processors: every input and output has filters, and inputs add tags",
		"secretstores": "there are no secret stores: write a variable such as ${TOKEN}, or name a file such as token_file",
	}

	telegrafAgentOptions = map[string]string{
		"always_include_global_tags":        "leave it out: global tags are always added",
		"always_include_local_tags":         "leave it out: tags of an input are always added",
		"buffer_directory":                  `write state_directory = "DIRECTORY"`,
		"buffer_strategy":                   `write buffer = "disk" or "memory" in each output`,
		"collection_offset":                 "leave it out: it cannot be set",
		"debug":                             `write log_level = "debug"`,
		"flush_interval":                    "write it in each output that pushes",
		"flush_jitter":                      "write it in each output that pushes",
		"log_with_timezone":                 "leave it out: it cannot be set",
		"logfile":                           "leave it out: the log goes to stderr, and from there where the service manager sends it",
		"logfile_rotation_interval":         "leave it out: the log goes to stderr",
		"logfile_rotation_max_archives":     "leave it out: the log goes to stderr",
		"logfile_rotation_max_size":         "leave it out: the log goes to stderr",
		"logformat":                         `write log_format = "text" or "json"`,
		"logtarget":                         "leave it out: the log goes to stderr",
		"metric_batch_size":                 "leave it out: a request is bounded by its size, which some outputs have an option for",
		"metric_buffer_limit":               `write buffer_limit = "64MiB" in each output that pushes: queues are bounded by their size`,
		"precision":                         "leave it out: times have nanoseconds",
		"quiet":                             `write log_level = "error"`,
		"skip_processors_after_aggregators": "leave it out: there are no processors",
		"snmp_translator":                   "leave it out: there is no SNMP",
		"statefile":                         `write state_directory = "DIRECTORY"`,
	}

	telegrafCommonOptions = map[string]string{
		"drop":                   "write fieldexclude",
		"fielddrop":              "write fieldexclude",
		"fieldpass":              "write fieldinclude",
		"log_level":              "write it in [agent]: it is of the whole program",
		"metricpass":             "write namepass, tagpass and fieldinclude",
		"namepass_separator":     `leave it out: "*" matches every character`,
		"namedrop_separator":     `leave it out: "*" matches every character`,
		"pass":                   "write fieldinclude",
		"startup_error_behavior": "leave it out: an output that cannot deliver keeps its points and tries again",
	}

	telegrafInputOptions = map[string]string{
		"collection_offset": "leave it out: it cannot be set",
		"precision":         "leave it out: times have nanoseconds",
		"time_source":       "leave it out: points have the time of their gather",
	}

	telegrafPushOptions = map[string]string{
		"metric_batch_size":   telegrafAgentOptions["metric_batch_size"],
		"metric_buffer_limit": `write buffer_limit = "64MiB": the queue is bounded by its size`,
		"name_override":       "write it in the input",
		"name_prefix":         "write it in the input",
		"name_suffix":         "write it in the input",
	}
)

// telegrafOptions returns what to write instead of Telegraf's options of an instance.
func telegrafOptions(p plugin.Plugin) []map[string]string {
	of := []map[string]string{p.Telegraf.Options, telegrafCommonOptions}
	switch {
	case p.NewInput != nil:
		return append(of, telegrafInputOptions)
	case p.NewPusher != nil:
		return append(of, telegrafPushOptions)
	default:
		return append(of, map[string]string{
			"flush_interval":      "leave it out: an endpoint shows the latest points to whoever asks",
			"metric_batch_size":   "leave it out: an endpoint has no queue",
			"metric_buffer_limit": "leave it out: an endpoint has no queue",
		})
	}
}

// instead returns what to do instead of a foreign option, "" if that is not known.
func instead(option string, known []map[string]string) string {
	for _, hints := range known {
		if hint := hints[option]; hint != "" {
			return hint
		}
	}
	return ""
}

// telegrafPlugin returns the plugin that does what Telegraf's of that name does.
func (l *loader) telegrafPlugin(side, kind string) (plugin.Plugin, bool) {
	for _, p := range l.plugins {
		if sideOf(p) == side && slices.Contains(p.Telegraf.Names, kind) {
			return p, true
		}
	}
	return plugin.Plugin{}, false
}
