package main

import (
	"sockwatch/agent/plugin"
	"sockwatch/inputs/tcplisten"
	"sockwatch/outputs/file"
	"sockwatch/outputs/http"
	"sockwatch/outputs/influxdb"
	"sockwatch/outputs/otlp"
	"sockwatch/outputs/prometheus"
	"sockwatch/outputs/remotewrite"
	"sockwatch/outputs/stdout"
)

// plugins returns the plugins of this build, in the order of the example configuration.
// No other list exists.
func plugins() []plugin.Plugin {
	return []plugin.Plugin{
		tcplisten.Plugin,
		prometheus.Plugin,
		remotewrite.Plugin,
		influxdb.Plugin,
		otlp.Plugin,
		http.Plugin,
		stdout.Plugin,
		file.Plugin,
	}
}
