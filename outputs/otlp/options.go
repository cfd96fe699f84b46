package otlp

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/push"
)

// Options are the options of [[outputs.otlp]].
type Options struct {
	// URL for metrics, with its path: the Collector's is "http://HOST:4318/v1/metrics". If
	// empty: no metrics are sent.
	MetricsURL string `toml:"metrics_url"`
	// URL for events as log records, with its path: the Collector's is
	// "http://HOST:4318/v1/logs". If empty: no events are sent.
	LogsURL string `toml:"logs_url"`
	// Resource attribute service.name. Prometheus turns it into the label job.
	ServiceName string `toml:"service_name"`
	// Resource attribute service.instance.id. Prometheus turns it into the label instance.
	// If empty: the host's name.
	ServiceInstanceID string `toml:"service_instance_id"`
	// Additional resource attributes, such as "deployment.environment.name" = "production".
	ResourceAttributes map[string]string `toml:"resource_attributes"`
	push.Options
	// Compression of request bodies: "gzip", "zstd" or "identity" (none).
	ContentEncoding string `toml:"content_encoding"`
	// Maximum size of one request before compression, unless a single point is larger.
	MaxBody plugin.Size `toml:"max_body"`
}

// Defaults returns the options of an instance that sets none.
func Defaults() Options {
	return Options{ServiceName: "sockwatch", ContentEncoding: "gzip", MaxBody: 4 << 20}
}

// Example returns options for the example file.
func Example() Options {
	o := Defaults()
	o.MetricsURL = "https://otel.example.org:4318/v1/metrics"
	o.LogsURL = "https://otel.example.org:4318/v1/logs"
	o.ServiceInstanceID = "web1.example.org"
	o.ResourceAttributes = map[string]string{"deployment.environment.name": "production"}
	o.TokenFile = "/etc/sockwatch/otlp.token"
	o.Headers = map[string]string{"X-Scope-OrgID": "example"}
	return o
}

// Validate returns every error of the options, joined. They contain no secrets.
func (o *Options) Validate() error {
	var errs []error
	if o.MetricsURL == "" && o.LogsURL == "" {
		errs = append(errs, plugin.Invalid("metrics_url", "is required, or logs_url, or both"))
	}
	errs = append(errs,
		validateURL("metrics_url", o.MetricsURL, "/v1/metrics"),
		validateURL("logs_url", o.LogsURL, "/v1/logs"),
	)
	if o.ServiceName == "" {
		errs = append(errs, plugin.Invalid("service_name", "must not be empty"))
	}
	for _, key := range slices.Sorted(maps.Keys(o.ResourceAttributes)) {
		switch {
		case key == "":
			errs = append(errs, plugin.Invalid("resource_attributes", "has an attribute without a name"))
		case o.ResourceAttributes[key] == "":
			errs = append(errs, plugin.Invalid("resource_attributes", "%q is empty", key))
		case key == "service.name":
			errs = append(errs, plugin.Invalid("resource_attributes", "set service_name instead of %q", key))
		case key == "service.instance.id":
			errs = append(errs, plugin.Invalid("resource_attributes", "set service_instance_id instead of %q", key))
		case key == "host.name":
			errs = append(errs, plugin.Invalid("resource_attributes", "set hostname in [agent] instead of %q", key))
		}
	}
	return errors.Join(append(errs,
		o.Options.Validate("Content-Type"),
		push.ValidateEncoding(o.ContentEncoding, "gzip", "zstd", "identity"),
		push.ValidateMaxBody(o.MaxBody),
	)...)
}

// Warn returns a warning for each URL with the port of OTLP over gRPC, or with the path of the
// other kind. It implements plugin.Warner.
func (o *Options) Warn() error {
	var errs []error
	for _, option := range []struct{ name, value, otherPath, other string }{
		{"metrics_url", o.MetricsURL, "/v1/logs", "logs_url"}, {"logs_url", o.LogsURL, "/v1/metrics", "metrics_url"},
	} {
		u, err := url.Parse(option.value)
		switch {
		case err != nil:
		case u.Port() == "4317":
			errs = append(errs, plugin.Invalid(option.name, "4317 is usually the port of OTLP over gRPC: that of OTLP over HTTP is 4318"))
		case strings.HasSuffix(u.Path, option.otherPath):
			errs = append(errs, plugin.Invalid(option.name, "%q is the path for %s: a receiver rejects everything else there", option.otherPath, option.other))
		}
	}
	return errors.Join(errs...)
}

// validateURL returns the error of a URL, or nil if it is valid or empty. Every receiver has a
// path.
func validateURL(option, value, path string) error {
	if value == "" {
		return nil
	}
	if err := push.ValidateURL(option, value, true); err != nil {
		return err
	}
	if u, err := url.Parse(value); err == nil && strings.Trim(u.Path, "/") == "" {
		return plugin.Invalid(option, "has no path: most receivers have %q", path)
	}
	return nil
}
