package agent

import (
	"errors"
	"time"

	"sockwatch/agent/filter"
	"sockwatch/agent/plugin"
)

// Options are the [agent] table.
type Options struct {
	// How often every input gathers, unless it has an interval of its own.
	Interval plugin.Duration `toml:"interval"`
	// Gather at whole multiples of the interval: "10s" at :00, :10, :20.
	RoundInterval bool `toml:"round_interval"`
	// Each gather is put off by a random time up to this.
	CollectionJitter plugin.Duration `toml:"collection_jitter"`
	// How long SIGTERM waits for queued points to be delivered.
	ShutdownTimeout plugin.Duration `toml:"shutdown_timeout"`
	// The tag "host" of every point; empty: what the system calls itself.
	Hostname string `toml:"hostname"`
	// Leave the tag "host" out.
	OmitHostname bool `toml:"omit_hostname"`
	// Where queues and rejected points are kept; empty: $STATE_DIRECTORY, and
	// without that queues live in memory.
	StateDirectory string `toml:"state_directory"`
	// "debug", "info", "warn" or "error".
	LogLevel string `toml:"log_level"`
	// "text" or "json"; the log goes to stderr.
	LogFormat string `toml:"log_format"`
}

// DefaultOptions returns the [agent] table of an empty configuration.
func DefaultOptions() Options {
	return Options{
		Interval:        plugin.Duration(10 * time.Second),
		RoundInterval:   true,
		ShutdownTimeout: plugin.Duration(10 * time.Second),
		LogLevel:        "info",
		LogFormat:       "text",
	}
}

// Validate returns every error of the options, joined.
func (o *Options) Validate() error {
	return errors.Join(
		check(o.Interval > 0, "interval", "must be longer than 0s"),
		check(o.ShutdownTimeout > 0, "shutdown_timeout", "must be longer than 0s"),
		oneOf("log_level", o.LogLevel, "debug", "info", "warn", "error"),
		oneOf("log_format", o.LogFormat, "text", "json"),
	)
}

// InputOptions are the options that every [[inputs.NAME]] has.
type InputOptions struct {
	// How often this input gathers; "0s": as the agent.
	Interval plugin.Duration `toml:"interval"`
	// Each gather is put off by a random time up to this; "0s": as the agent.
	CollectionJitter plugin.Duration `toml:"collection_jitter"`
	// How long a gather may take; "0s": the interval.
	Timeout plugin.Duration `toml:"timeout"`
	// Tells this instance from others of its kind.
	Alias string `toml:"alias"`
	// The name of every point, in place of its own.
	NameOverride string `toml:"name_override"`
	// Put before the name of every point.
	NamePrefix string `toml:"name_prefix"`
	// Put behind the name of every point.
	NameSuffix string `toml:"name_suffix"`
	// Tags of every point that does not have them itself.
	Tags map[string]string `toml:"tags"`

	filter.Options
}

// Validate returns every error of the options, joined.
func (o *InputOptions) Validate() error {
	return errors.Join(checkAlias(o.Alias), checkTags("tags", o.Tags), o.Options.Validate())
}

// PushOptions are the options that every [[outputs.NAME]] that pushes has.
type PushOptions struct {
	// Tells this instance from others of its kind; names its queue.
	Alias string `toml:"alias"`
	// How long one request may take.
	Timeout plugin.Duration `toml:"timeout"`
	// How often what is queued is sent; "0s": at once.
	FlushInterval plugin.Duration `toml:"flush_interval"`
	// Each flush is put off by a random time up to this.
	FlushJitter plugin.Duration `toml:"flush_jitter"`
	// Where points wait for delivery: "disk", "memory", or "auto": disk where there
	// is a state directory.
	Buffer string `toml:"buffer"`
	// What may wait; beyond it the oldest points are dropped and counted.
	BufferLimit plugin.Size `toml:"buffer_limit"`

	filter.Options
}

// DefaultPushOptions returns the options of an output of kind p that sets none.
func DefaultPushOptions(p plugin.Plugin) PushOptions {
	return PushOptions{
		Timeout:       plugin.Duration(10 * time.Second),
		FlushInterval: plugin.Duration(p.FlushInterval),
		Buffer:        "auto",
		BufferLimit:   64 << 20,
	}
}

// Validate returns every error of the options, joined.
func (o *PushOptions) Validate() error {
	return errors.Join(
		checkAlias(o.Alias),
		check(o.Timeout > 0, "timeout", "must be longer than 0s"),
		oneOf("buffer", o.Buffer, "auto", "disk", "memory"),
		check(o.BufferLimit >= 64<<10, "buffer_limit", "must be 64KiB at least"),
		o.Options.Validate(),
	)
}

// EndpointOptions are the options that every [[outputs.NAME]] that is asked has.
type EndpointOptions struct {
	// Tells this instance from others of its kind.
	Alias string `toml:"alias"`

	filter.Options
}

// Validate returns every error of the options, joined.
func (o *EndpointOptions) Validate() error {
	return errors.Join(checkAlias(o.Alias), o.Options.Validate())
}
