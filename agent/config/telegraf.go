package config

import (
	"slices"

	"sockwatch/agent/plugin"
)

// Tables and options of Telegraf that sockwatch does not have, and what to do instead.
var (
	telegrafTables = map[string]string{
		"aggregators":  "sockwatch has no aggregators: leave them out, and write min_interval in an output to send points less often",
		"processors":   "sockwatch has no processors: use the filters of inputs and outputs, and the tags of inputs",
		"secretstores": "sockwatch has no secret stores: use a variable such as ${TOKEN}, or an option such as token_file",
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
		"logfile":                           "leave it out: the log goes to stderr, where the service manager collects it",
		"logfile_rotation_interval":         "leave it out: the log goes to stderr",
		"logfile_rotation_max_archives":     "leave it out: the log goes to stderr",
		"logfile_rotation_max_size":         "leave it out: the log goes to stderr",
		"logformat":                         `write log_format = "text" or "json"`,
		"logtarget":                         "leave it out: the log goes to stderr",
		"metric_batch_size":                 "leave it out: requests are limited by their size, for which some outputs have an option",
		"metric_buffer_limit":               `write buffer_limit = "64MiB" in each output that pushes: queues are limited by their size`,
		"precision":                         "leave it out: timestamps are in nanoseconds",
		"quiet":                             `write log_level = "error"`,
		"skip_processors_after_aggregators": "leave it out: sockwatch has no processors",
		"snmp_translator":                   "leave it out: sockwatch has no SNMP",
		"statefile":                         `write state_directory = "DIRECTORY"`,
	}

	telegrafCommonOptions = map[string]string{
		"drop":                   "write fieldexclude",
		"fielddrop":              "write fieldexclude",
		"fieldpass":              "write fieldinclude",
		"log_level":              "write it in [agent]: it applies to the whole program",
		"metricpass":             "write namepass, tagpass and fieldinclude",
		"namepass_separator":     `leave it out: "*" matches every character`,
		"namedrop_separator":     `leave it out: "*" matches every character`,
		"pass":                   "write fieldinclude",
		"startup_error_behavior": "leave it out: an output that cannot deliver keeps its points and retries",
	}

	telegrafInputOptions = map[string]string{
		"collection_offset": "leave it out: it cannot be set",
		"precision":         "leave it out: timestamps are in nanoseconds",
		"time_source":       "leave it out: points have the time of their gather",
	}

	telegrafPushOptions = map[string]string{
		"metric_batch_size":   telegrafAgentOptions["metric_batch_size"],
		"metric_buffer_limit": `write buffer_limit = "64MiB": the queue is limited by its size`,
		"name_override":       "write it in the input",
		"name_prefix":         "write it in the input",
		"name_suffix":         "write it in the input",
	}
)

// telegrafOptions returns the hints for Telegraf's options of an instance.
func telegrafOptions(p plugin.Plugin) []map[string]string {
	of := []map[string]string{p.Telegraf.Options, telegrafCommonOptions}
	switch {
	case p.NewInput != nil:
		return append(of, telegrafInputOptions)
	case p.NewPusher != nil:
		return append(of, telegrafPushOptions)
	default:
		return append(of, map[string]string{
			"flush_interval":      "leave it out: an endpoint serves the latest points on request",
			"min_interval":        "leave it out: an endpoint serves the latest points on request",
			"metric_batch_size":   "leave it out: an endpoint has no queue",
			"metric_buffer_limit": "leave it out: an endpoint has no queue",
		})
	}
}

// instead returns the hint for a foreign option, or "" if there is none.
func instead(option string, known []map[string]string) string {
	for _, hints := range known {
		if hint := hints[option]; hint != "" {
			return hint
		}
	}
	return ""
}

// telegrafPlugin returns the plugin that corresponds to the Telegraf plugin kind.
func (l *loader) telegrafPlugin(side, kind string) (plugin.Plugin, bool) {
	for _, p := range l.plugins {
		if sideOf(p) == side && slices.Contains(p.Telegraf.Names, kind) {
			return p, true
		}
	}
	return plugin.Plugin{}, false
}
