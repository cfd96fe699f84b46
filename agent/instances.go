package agent

import (
	"log/slog"

	"sockwatch/agent/health"
	"sockwatch/agent/plugin"
)

// An Agent is a configuration ready to run. config.Load builds it and opens nothing.
type Agent struct {
	Options Options
	Log     *slog.Logger
	Version string            // the program's version, for sockwatch_build_info
	Tags    map[string]string // of the agent's own points: the global tags and the host tag

	// InForce, if not nil, is called when this configuration has taken effect.
	InForce func()

	// Keepalive applies to the whole run; a reload does not change it.
	Keepalive Keepalive

	Inputs []*Input
	Push   []*Push
	Pull   []*Pull
}

// An Input is one [[inputs.NAME]], built. All fields except Input are plain data: a
// reload keeps the running instance if they are equal.
type Input struct {
	Name string // KIND or KIND-ALIAS; also the source of its batches
	// The agent's Interval, CollectionJitter and Timeout are filled in where the input
	// has none. Tags includes the global tags and the host tag.
	Options       InputOptions
	RoundInterval bool
	Settings      plugin.Options // the plugin's own options
	Plugin        plugin.Plugin
	Input         plugin.Input
}

// ownInput returns the input that gathers the agent's own points.
func (a *Agent) ownInput(h *health.Registry) *Input {
	o := InputOptions{
		Interval: a.Options.Interval, CollectionJitter: a.Options.CollectionJitter,
		Timeout: a.Options.Interval, Tags: a.Tags,
	}
	return &Input{
		Name: health.Source, Options: o, RoundInterval: a.Options.RoundInterval,
		Plugin: plugin.Plugin{Name: health.Source, Descs: health.Descs}, Input: h,
	}
}

// A Push is one [[outputs.NAME]] that pushes, built.
type Push struct {
	Name     string // KIND or KIND-ALIAS; also the name of its queue
	Options  PushOptions
	Settings plugin.Options
	Plugin   plugin.Plugin
	Pusher   plugin.Pusher
}

// A Pull is one [[outputs.NAME]] that serves, built.
type Pull struct {
	Name     string // KIND or KIND-ALIAS
	Options  EndpointOptions
	Settings plugin.Options
	Plugin   plugin.Plugin
	Endpoint plugin.Endpoint
}

// A configured is an Input, a Push or a Pull, running or not.
type configured interface {
	name() string
	title() string // for logs and errors, such as "inputs.tcp_listen"
	settings() any // deeply equal if the configuration is the same
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
