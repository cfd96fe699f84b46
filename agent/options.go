package agent

import (
	"errors"
	"time"

	"sockwatch/agent/filter"
	"sockwatch/agent/plugin"
)

// Options are the [agent] table.
type Options struct {
	// How often inputs gather, unless they set their own interval.
	Interval plugin.Duration `toml:"interval"`
	// Gather at whole multiples of the interval: with "10s" at :00, :10, :20.
	RoundInterval bool `toml:"round_interval"`
	// Maximum random delay before each gather.
	CollectionJitter plugin.Duration `toml:"collection_jitter"`
	// How long a stop waits for queued points to be delivered.
	ShutdownTimeout plugin.Duration `toml:"shutdown_timeout"`
	// Value of the tag "host" of every point; empty: the system's hostname.
	Hostname string `toml:"hostname"`
	// Omit the tag "host".
	OmitHostname bool `toml:"omit_hostname"`
	// Directory for queues and rejected points; empty: $STATE_DIRECTORY, or if that is
	// not set, queues in memory.
	StateDirectory string `toml:"state_directory"`
	// Lowest level to log: "debug", "info", "warn" or "error".
	LogLevel string `toml:"log_level"`
	// Log format on stderr: "text" or "json".
	LogFormat string `toml:"log_format"`
}

// DefaultOptions returns the options of an empty [agent] table.
func DefaultOptions() Options {
	return Options{
		Interval:        plugin.Duration(10 * time.Second),
		RoundInterval:   true,
		ShutdownTimeout: plugin.Duration(10 * time.Second),
		LogLevel:        "info",
		LogFormat:       "text",
	}
}

// Validate returns all errors of the options, joined.
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

// InputOptions are the options of every [[inputs.NAME]].
type InputOptions struct {
	// How often this input gathers; "0s": as in [agent].
	Interval plugin.Duration `toml:"interval"`
	// Maximum random delay before each gather; "0s": as in [agent].
	CollectionJitter plugin.Duration `toml:"collection_jitter"`
	// Time limit of one gather; "0s": the interval.
	Timeout plugin.Duration `toml:"timeout"`
	// Name to tell this instance from others of the same plugin.
	Alias string `toml:"alias"`
	// Replacement for the name of every point.
	NameOverride string `toml:"name_override"`
	// Prefix for the name of every point.
	NamePrefix string `toml:"name_prefix"`
	// Suffix for the name of every point.
	NameSuffix string `toml:"name_suffix"`
	// Tags to add to every point that does not already have them.
	Tags map[string]string `toml:"tags"`

	filter.Options
}

// Validate returns all errors of the options, joined.
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

// checkTimes skips times that are 0: those are taken from [agent].
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

// PushOptions are the options of every [[outputs.NAME]] that pushes.
type PushOptions struct {
	// Name to tell this instance from others of the same plugin. It also names the
	// queue.
	Alias string `toml:"alias"`
	// Time limit of one request.
	Timeout plugin.Duration `toml:"timeout"`
	// How often to send queued points; "0s": at once.
	FlushInterval plugin.Duration `toml:"flush_interval"`
	// Maximum random delay before each flush.
	FlushJitter plugin.Duration `toml:"flush_jitter"`
	// Queue the points of an input at most this often: with "60s" those of every sixth
	// gather if the interval is "10s". Events and the ends of series are queued at once.
	// "0s": all points.
	MinInterval plugin.Duration `toml:"min_interval"`
	// Where points wait for delivery: "disk", "memory", or "auto" (disk if
	// state_directory is set, else memory).
	Buffer string `toml:"buffer"`
	// Size limit of the queue. Beyond it the oldest points are dropped and counted.
	BufferLimit plugin.Size `toml:"buffer_limit"`

	filter.Options
}

// DefaultPushOptions returns the default options of an output of plugin p.
func DefaultPushOptions(p plugin.Plugin) PushOptions {
	return PushOptions{
		Timeout:       plugin.Duration(10 * time.Second),
		FlushInterval: plugin.Duration(p.FlushInterval),
		MinInterval:   plugin.Duration(p.MinInterval),
		Buffer:        "auto",
		BufferLimit:   64 << 20,
	}
}

// Validate returns all errors of the options, joined.
func (o *PushOptions) Validate() error {
	return errors.Join(
		checkAlias(o.Alias),
		atLeast("timeout", o.Timeout),
		o.checkFlush(),
		o.checkMinInterval(),
		oneOf("buffer", o.Buffer, "auto", "disk", "memory"),
		check(o.BufferLimit >= minBuffer && o.BufferLimit <= maxBuffer, "buffer_limit", "must be at least %v and at most %v", minBuffer, maxBuffer),
		o.Options.Validate(),
	)
}

// The bounds of buffer_limit: large enough for a useful request, small enough for a
// disk.
const (
	minBuffer plugin.Size = 64 << 10
	maxBuffer plugin.Size = 1 << 40
)

// checkFlush skips an interval of 0, which means at once.
func (o *PushOptions) checkFlush() error {
	if o.FlushInterval == 0 {
		return nil
	}
	return errors.Join(atLeast("flush_interval", o.FlushInterval), checkJitter("flush_jitter", o.FlushJitter, o.FlushInterval))
}

// checkMinInterval skips 0, which means every snapshot.
func (o *PushOptions) checkMinInterval() error {
	if o.MinInterval == 0 {
		return nil
	}
	return atLeast("min_interval", o.MinInterval)
}

// EndpointOptions are the options of every [[outputs.NAME]] that serves.
type EndpointOptions struct {
	// Name to tell this instance from others of the same plugin.
	Alias string `toml:"alias"`

	filter.Options
}

// Validate returns all errors of the options, joined.
func (o *EndpointOptions) Validate() error {
	return errors.Join(checkAlias(o.Alias), o.Options.Validate())
}
