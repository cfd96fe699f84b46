package remotewrite

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/push"
)

// Options are the options of [[outputs.remote_write]].
type Options struct {
	// URLs of the servers, complete with the path of remote write. Each request goes to the
	// server that worked last, or to the next one if that fails.
	URLs []string `toml:"urls"`
	// Version of the protocol: "1.0", "2.0", or "auto": 2.0, but 1.0 with a server that
	// does not understand 2.0, which is tried again after an hour.
	ProtocolVersion string `toml:"protocol_version"`
	// Reject points that are older than this instead of sending them. "0s": send all. It
	// saves requests after an outage if the server refuses old samples anyway.
	SampleAgeLimit plugin.Duration `toml:"sample_age_limit"`
	// Send the numeric fields of events, too, as one sample each.
	Events bool `toml:"events"`
	// Maximum size of the queued records in one request. The request itself is larger
	// before compression, and smaller afterwards.
	MaxBody plugin.Size `toml:"max_body"`
	push.Options
}

// Defaults returns the options of an instance that sets none.
func Defaults() Options {
	return Options{
		URLs:            []string{"http://127.0.0.1:9090/api/v1/write"},
		ProtocolVersion: auto,
		MaxBody:         512 << 10,
	}
}

// Example returns options for the example file.
func Example() Options {
	o := Defaults()
	o.URLs = []string{"https://mimir.example.org/api/v1/push"}
	o.SampleAgeLimit = plugin.Duration(time.Hour)
	o.Username = "example"
	o.PasswordFile = "/etc/sockwatch/mimir.password" //nolint:gosec // a path
	o.Headers = map[string]string{"X-Scope-OrgID": "example"}
	return o
}

// The values of protocol_version.
const (
	auto     = "auto"
	version1 = "1.0"
	version2 = "2.0"
)

// Warn returns a warning for each URL without a path: no known server takes remote write
// there. It implements plugin.Warner.
func (o *Options) Warn() error {
	var errs []error
	for _, s := range o.URLs {
		if u, err := url.Parse(s); err == nil && strings.Trim(u.Path, "/") == "" {
			errs = append(errs, plugin.Invalid("urls", `%q has no path: Prometheus has "/api/v1/write", Mimir "/api/v1/push", Thanos "/api/v1/receive"`, u.Scheme+"://"+u.Host))
		}
	}
	return errors.Join(errs...)
}

// Validate returns every error of the options, joined. They contain no secrets.
func (o *Options) Validate() error {
	errs := []error{push.ValidateURLs("urls", o.URLs, true)}
	if !slices.Contains([]string{auto, version1, version2}, o.ProtocolVersion) {
		errs = append(errs, plugin.Invalid("protocol_version", "unknown value %q (known: auto, 1.0, 2.0)", o.ProtocolVersion))
	}
	return errors.Join(append(errs, push.ValidateMaxBody(o.MaxBody), o.Options.Validate("Content-Type", versionHeader))...)
}
