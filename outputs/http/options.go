package http

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/format"
	"sockwatch/outputs/internal/push"
)

// Options are the options of [[outputs.http]].
type Options struct {
	// URL that receives the points, or a list of URLs: each request goes to the one that
	// worked last, or to the next if that fails.
	URL plugin.Strings `toml:"url"`
	// HTTP method: "POST", "PUT" or "PATCH".
	Method string `toml:"method"`
	// "json_lines": one object per line; "json_array": an array of objects; "json_object":
	// a single object, with one request for each point.
	Format string `toml:"format"`
	// Format of times: "rfc3339" (with nanoseconds), "unix", "unix_ms", "unix_us" or
	// "unix_ns".
	TimestampFormat string `toml:"timestamp_format"`
	// Compression of request bodies: "gzip", "zstd", "snappy" (block format) or "identity"
	// (none).
	ContentEncoding string `toml:"content_encoding"`
	// Maximum size of the JSON in one request, before compression.
	MaxBody plugin.Size `toml:"max_body"`
	// Status codes, from 300 to 599, with which the receiver rejects all points of a request
	// for good. The points go to the dead-letter file.
	NonRetryableStatusCodes []int `toml:"non_retryable_statuscodes"`
	push.Options
}

// Defaults returns the options of an instance that sets none.
func Defaults() Options {
	return Options{
		Method:          http.MethodPost,
		Format:          "json_lines",
		TimestampFormat: "rfc3339",
		ContentEncoding: "identity",
		MaxBody:         1 << 20,
	}
}

// Example returns options for the example file.
func Example() Options {
	o := Defaults()
	o.URL = plugin.Strings{"https://hooks.example.org/listeners"}
	o.Format = "json_array"
	o.NonRetryableStatusCodes = []int{409, 413}
	o.TokenFile = "/etc/sockwatch/webhook.token"
	o.Headers = map[string]string{"X-Source": "sockwatch"}
	return o
}

// Validate returns every error of the options, joined. They contain no secrets.
func (o *Options) Validate() error {
	errs := []error{
		push.ValidateURLs("url", o.URL, true),
		oneOf("method", o.Method, http.MethodPost, http.MethodPut, http.MethodPatch),
		oneOf("format", o.Format, formats...),
		format.Validate("json", o.TimestampFormat),
		push.ValidateEncoding(o.ContentEncoding, "gzip", "zstd", "snappy", "identity"),
		push.ValidateMaxBody(o.MaxBody),
	}
	for _, code := range o.NonRetryableStatusCodes {
		if code < 300 || code > 599 {
			errs = append(errs, plugin.Invalid("non_retryable_statuscodes", "%d is not a status from 300 to 599", code))
		}
	}
	return errors.Join(append(errs, o.Options.Validate())...)
}

func oneOf(option, value string, known ...string) error {
	if slices.Contains(known, value) {
		return nil
	}
	return plugin.Invalid(option, "unknown value %q (known: %s)", value, strings.Join(known, ", "))
}
