package agent

import (
	"errors"
	"time"

	"sockwatch/agent/filter"
	"sockwatch/agent/plugin"
)

// Options are the [agent] table.
type Options struct {
	// How often every input without an interval of its own gathers.
	Interval plugin.Duration `toml:"interval"`
	// Gather at whole multiples of the interval: "10s" at :00, :10, :20.
	RoundInterval bool `toml:"round_interval"`
	// Delay each gather by a random time of at most this.
	CollectionJitter plugin.Duration `toml:"collection_jitter"`
	// How long a stop waits for queued points to be delivered.
	ShutdownTimeout plugin.Duration `toml:"shutdown_timeout"`
	// Value of the tag "host" of every point; empty: the hostname of the system.
	Hostname string `toml:"hostname"`
	// Omit the tag "host".
	OmitHostname bool `toml:"omit_hostname"`
	// Directory for queues and rejected points; empty: $STATE_DIRECTORY, or queues in
	// memory if that is not set.
	StateDirectory string `toml:"state_directory"`
	// Lowest level that is logged: "debug", "info", "warn" or "error".
	LogLevel string `toml:"log_level"`
	// Format of the log on stderr: "text" or "json".
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
		atLeast("interval", o.Interval),
		checkJitter("collection_jitter", o.CollectionJitter, o.Interval),
		atLeast("shutdown_timeout", o.ShutdownTimeout),
		checkText("hostname", "", o.Hostname),
		oneOf("log_level", o.LogLevel, "debug", "info", "warn", "error"),
		oneOf("log_format", o.LogFormat, "text", "json"),
	)
}

// InputOptions are the options that every [[inputs.NAME]] has.
type InputOptions struct {
	// How often this input gathers; "0s": the interval of [agent].
	Interval plugin.Duration `toml:"interval"`
	// Delay each gather by a random time of at most this; "0s": as in [agent].
	CollectionJitter plugin.Duration `toml:"collection_jitter"`
	// Time limit of a gather; "0s": the interval.
	Timeout plugin.Duration `toml:"timeout"`
	// Name that distinguishes this instance from others of its kind.
	Alias string `toml:"alias"`
	// Name of every point, in place of its own.
	NameOverride string `toml:"name_override"`
	// Prefix of the name of every point.
	NamePrefix string `toml:"name_prefix"`
	// Suffix of the name of every point.
	NameSuffix string `toml:"name_suffix"`
	// Tags to add to every point that does not have them itself.
	Tags map[string]string `toml:"tags"`

	filter.Options
}

// Validate returns every error of the options, joined.
func (o *InputOptions) Validate() error {
	return errors.Join(
		o.checkTimes(),
		checkAlias(o.Alias),
		checkText("name_override", "", o.NameOverride),
		checkText("name_prefix", "", o.NamePrefix),
		checkText("name_suffix", "", o.NameSuffix),
		checkTags("tags", o.Tags),
		o.Options.Validate(),
	)
}

// checkTimes leaves out what is 0, the agent's.
func (o *InputOptions) checkTimes() error {
	var errs []error
	if o.Interval > 0 {
		errs = append(errs, atLeast("interval", o.Interval), checkJitter("collection_jitter", o.CollectionJitter, o.Interval))
	}
	if o.Timeout > 0 {
		errs = append(errs, atLeast("timeout", o.Timeout))
	}
	return errors.Join(errs...)
}

// PushOptions are the options that every [[outputs.NAME]] that pushes has.
type PushOptions struct {
	// Name that distinguishes this instance from others of its kind, and names its
	// queue.
	Alias string `toml:"alias"`
	// Time limit of one request.
	Timeout plugin.Duration `toml:"timeout"`
	// How often queued points are sent; "0s": at once.
	FlushInterval plugin.Duration `toml:"flush_interval"`
	// Delay each flush by a random time of at most this.
	FlushJitter plugin.Duration `toml:"flush_jitter"`
	// Where points wait for delivery: "disk", "memory", or "auto", which is disk if
	// state_directory is set.
	Buffer string `toml:"buffer"`
	// Size limit of the queue. Beyond it the oldest points are dropped and counted.
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
		atLeast("timeout", o.Timeout),
		o.checkFlush(),
		oneOf("buffer", o.Buffer, "auto", "disk", "memory"),
		check(o.BufferLimit >= minBuffer && o.BufferLimit <= maxBuffer, "buffer_limit", "must be at least %v and at most %v", minBuffer, maxBuffer),
		o.Options.Validate(),
	)
}

// The bounds of buffer_limit: a queue that holds a useful request, and one that a disk
// may have.
const (
	minBuffer plugin.Size = 64 << 10
	maxBuffer plugin.Size = 1 << 40
)

// checkFlush leaves out an interval of 0, at once.
func (o *PushOptions) checkFlush() error {
	if o.FlushInterval == 0 {
		return nil
	}
	return errors.Join(atLeast("flush_interval", o.FlushInterval), checkJitter("flush_jitter", o.FlushJitter, o.FlushInterval))
}

// EndpointOptions are the options that every [[outputs.NAME]] that is asked has.
type EndpointOptions struct {
	// Name that distinguishes this instance from others of its kind.
	Alias string `toml:"alias"`

	filter.Options
}

// Validate returns every error of the options, joined.
func (o *EndpointOptions) Validate() error {
	return errors.Join(checkAlias(o.Alias), o.Options.Validate())
}
