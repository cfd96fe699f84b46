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

	// Keepalive is that of the run; a reload does not change it.
	Keepalive Keepalive

	Inputs []*Input
	Push   []*Push
	Pull   []*Pull
}

// An Input is one [[inputs.NAME]], built. Its fields but Input are plain data: a
// reload keeps the running instance if they are equal.
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

// A configured is an Input, a Push or a Pull, at work or not.
type configured interface {
	name() string
	title() string // as in the log
	settings() any // two that are deeply equal configure alike
}

func (in *Input) name() string  { return in.Name }
func (in *Input) title() string { return "inputs." + in.Name }
func (in *Input) settings() any { return []any{in.Options, in.RoundInterval, in.Settings} }

func (p *Push) name() string  { return p.Name }
func (p *Push) title() string { return "outputs." + p.Name }
func (p *Push) settings() any { return []any{p.Options, p.Settings} }

func (p *Pull) name() string  { return p.Name }
func (p *Pull) title() string { return "outputs." + p.Name }
func (p *Pull) settings() any { return []any{p.Options, p.Settings} }
