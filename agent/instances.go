package agent

import (
	"log/slog"

	"sockwatch/agent/plugin"
)

// An Agent is a configuration ready to run. config.Load builds it; nothing of it
// has been opened yet.
type Agent struct {
	Options Options
	Log     *slog.Logger
	Version string            // of the program, for sockwatch_build_info
	Tags    map[string]string // of the agent's own points: the global tags and the host tag

	// InForce, unless nil, is called when a run has gone over to this configuration.
	InForce func()

	Inputs []*Input
	Push   []*Push
	Pull   []*Pull
}

// An Input is one [[inputs.NAME]], built. Its fields but Input are plain data: a
// reload keeps the running instance where they are equal.
type Input struct {
	Name string // KIND or KIND-ALIAS: the source of its batches
	// Interval and CollectionJitter, and Timeout, are filled in from the agent's;
	// Tags holds the global tags and the host tag too.
	Options       InputOptions
	RoundInterval bool
	Settings      plugin.Options // the plugin's own options
	Plugin        plugin.Plugin
	Input         plugin.Input
}

// A Push is one [[outputs.NAME]] that pushes, built.
type Push struct {
	Name     string // KIND or KIND-ALIAS: also of its queue
	Options  PushOptions
	Settings plugin.Options
	Plugin   plugin.Plugin
	Pusher   plugin.Pusher
}

// A Pull is one [[outputs.NAME]] that is asked, built.
type Pull struct {
	Name     string // KIND or KIND-ALIAS
	Options  EndpointOptions
	Settings plugin.Options
	Plugin   plugin.Plugin
	Endpoint plugin.Endpoint
}
