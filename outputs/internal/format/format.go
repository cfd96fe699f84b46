// Package format encodes points as text: each as one line without its newline, which is a
// JSON object or a line of InfluxDB line protocol.
package format

import (
	"errors"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// An Encoder encodes points in one format, as a plugin.Pusher and plugin.Restamper that embeds it
// does. It is not safe for concurrent use.
type Encoder interface {
	// Encode appends one point to dst as one line without a newline. The point must have
	// a time. On an error, Encode returns dst unchanged.
	Encode(dst []byte, p *metric.Point) ([]byte, error)
	// Restamp appends a line that Encode made to dst, with another time. On an error, it
	// returns dst unchanged.
	Restamp(dst, line []byte, t time.Time) ([]byte, error)
}

var (
	errEmpty     = errors.New("empty")
	errNotUTF8   = errors.New("not UTF-8")
	errNoTime    = errors.New("no time")
	errTimeRange = errors.New("time out of range")
	errTagOrder  = errors.New("tags out of order")
)

// New returns the encoder for options that Validate accepts.
func New(dataFormat, timestampFormat string) Encoder {
	if dataFormat == "influx" {
		return &LineProtocol{}
	}
	return NewJSON(timestampFormat)
}

// Validate returns the errors of the options data_format and timestamp_format,
// joined.
func Validate(dataFormat, timestampFormat string) error {
	dataFormats := []string{"json", "influx"}
	timestampFormats := []string{"rfc3339", "unix", "unix_ms", "unix_us", "unix_ns"}
	var errs []error
	if !slices.Contains(dataFormats, dataFormat) {
		errs = append(errs, unknown("data_format", dataFormat, dataFormats))
	}
	switch {
	case !slices.Contains(timestampFormats, timestampFormat):
		errs = append(errs, unknown("timestamp_format", timestampFormat, timestampFormats))
	case dataFormat == "influx" && timestampFormat != "rfc3339":
		errs = append(errs, plugin.Invalid("timestamp_format",
			`%q needs data_format "json": times in line protocol are always in nanoseconds`, timestampFormat))
	}
	return errors.Join(errs...)
}

func unknown(option, value string, known []string) error {
	return plugin.Invalid(option, "unknown value %q (known: %s)", value, strings.Join(known, ", "))
}
