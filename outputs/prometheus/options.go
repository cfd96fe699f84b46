package prometheus

import (
	"errors"
	"path"
	"strings"
	"time"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/livepage"
)

// Options are the options of [[outputs.prometheus]].
type Options struct {
	// Addresses to listen on, one or a list: "HOST:PORT" (no host: every address),
	// "unix:PATH", or "systemd" or "systemd:NAME" for sockets that systemd passes.
	Listen plugin.Strings `toml:"listen"`
	// Path of the metrics. "/", "/-/healthy", "/-/ready", "/sd/listeners" and the paths of
	// the live page are taken by the program's own pages.
	Path string `toml:"path"`
	// Web configuration file of Prometheus' exporter-toolkit: TLS, client certificates,
	// basic auth. If empty: plain HTTP without authentication.
	WebConfigFile string `toml:"web_config_file"`
	// Also gather at each scrape, in addition to the interval of the inputs.
	GatherOnScrape bool `toml:"gather_on_scrape"`
	// With gather_on_scrape: a scrape shows the last gather if that is no older than this.
	MinAge plugin.Duration `toml:"min_age"`
	// Maximum number of series on the page. If there are more, the last points of the
	// largest batch are dropped and counted.
	MaxSeries int `toml:"max_series"`
	// Serve the live page and its API at "/", "/listener/", "/events",
	// "/health", "/stream", "/assets/" and "/api/". If false, "/" is a plain page of links.
	Page bool `toml:"page"`
	// Further names of this host under which the page may be opened, one or a list of
	// globs such as "*.corp.example". IP addresses, localhost, the host's name and the
	// names in listen are always accepted.
	PageHosts plugin.Strings `toml:"page_hosts"`
}

// Defaults returns the options of an instance that sets none.
func Defaults() Options {
	return Options{
		Listen:    plugin.Strings{":8088"},
		Path:      "/metrics",
		MinAge:    plugin.Duration(time.Second),
		MaxSeries: 50000,
		Page:      true,
	}
}

// Example returns options in which every option has a value that is worth showing.
func Example() Options {
	o := Defaults()
	o.WebConfigFile = "/etc/sockwatch/web.yml"
	o.PageHosts = plugin.Strings{"web-1.example.org"}
	return o
}

// Paths of the pages other than the metrics.
const (
	landingPath = "/"
	healthyPath = "/-/healthy"
	readyPath   = "/-/ready"
	sdPath      = "/sd/listeners"
)

// Validate returns every error of the options, joined.
func (o *Options) Validate() error {
	errs := []error{o.validatePath()}
	if len(o.Listen) == 0 {
		errs = append(errs, plugin.Invalid("listen", `no address: write one such as ":8088"`))
	}
	seen := map[string]bool{}
	for _, s := range o.Listen {
		a, err := parseAddress(s)
		if err != nil {
			errs = append(errs, plugin.Invalid("listen", "%w", err))
			continue
		}
		id := a.identity()
		if seen[id] && id != "" {
			errs = append(errs, plugin.Invalid("listen", "%q is listed twice", id))
		}
		seen[id] = true
	}
	if o.MaxSeries <= 0 {
		errs = append(errs, plugin.Invalid("max_series", "must be more than 0"))
	}
	for _, pattern := range o.PageHosts {
		if strings.ContainsAny(pattern, ":/") {
			errs = append(errs, plugin.Invalid("page_hosts", "%q is not a host name: leave out the scheme, the port and the path", pattern))
		} else if _, err := plugin.CompileGlobs([]string{pattern}); err != nil {
			errs = append(errs, plugin.Invalid("page_hosts", "%w", err))
		}
	}
	return errors.Join(errs...)
}

func (o *Options) validatePath() error {
	switch {
	case !strings.HasPrefix(o.Path, "/"):
		return plugin.Invalid("path", `%q does not begin with "/"`, o.Path)
	case strings.ContainsFunc(o.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`?#%"<>\`, r) }):
		return plugin.Invalid("path", "%q contains a character that is not allowed in the path of a scrape configuration", o.Path)
	case o.Path == landingPath || o.Path == healthyPath || o.Path == readyPath || o.Path == sdPath:
		return plugin.Invalid("path", "%q is one of the program's own pages", o.Path)
	case o.Page && livepage.Serves(o.Path):
		return plugin.Invalid("path", "%q is part of the live page: choose another path, or set page = false", o.Path)
	case path.Clean(o.Path) != o.Path:
		return plugin.Invalid("path", "%q is not in its shortest form, %q", o.Path, path.Clean(o.Path))
	default:
		return nil
	}
}

// Exclusive names the addresses, because no other output can listen on them.
func (o *Options) Exclusive() []string {
	var names []string
	for _, s := range o.Listen {
		if a, err := parseAddress(s); err == nil && a.identity() != "" {
			names = append(names, `listen "`+a.identity()+`"`)
		}
	}
	return names
}
