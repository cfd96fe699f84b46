// Package tcplisten is the input tcp_listen: every listening TCP socket of the host,
// with the processes that hold it.
package tcplisten

import (
	"sockwatch/agent/plugin"
)

// Plugin defines the input for the list of plugins.
var Plugin = plugin.DefineInput(plugin.Definition[Options, plugin.Input]{
	Name:     pointListener,
	Descs:    descs(),
	Tags:     tags(),
	Defaults: Defaults,
	Example:  Example,
	New:      newInput,
	Sample:   plugin.Sample{Active: true, Options: []string{"custom_port_exporter", "resolve_addresses"}},
})
