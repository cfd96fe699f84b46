package stdout

import "sockwatch/outputs/internal/format"

// Options are the options of [[outputs.stdout]].
type Options struct {
	// "json": one JSON object per line, or "influx": line protocol.
	DataFormat string `toml:"data_format"`
	// Format of times in JSON: "rfc3339" (with nanoseconds), "unix", "unix_ms", "unix_us" or
	// "unix_ns". Line protocol always has nanoseconds.
	TimestampFormat string `toml:"timestamp_format"`
}

// Defaults returns the options of an instance that sets none.
func Defaults() Options {
	return Options{DataFormat: "json", TimestampFormat: "rfc3339"}
}

// Example returns options for the example file.
func Example() Options { return Defaults() }

// Validate returns every error of the options, joined.
func (o *Options) Validate() error { return format.Validate(o.DataFormat, o.TimestampFormat) }
