package tcplisten

import (
	"errors"
	"path/filepath"
	"strings"
	"time"

	"sockwatch/agent/plugin"
)

// Options are the options of [[inputs.tcp_listen]].
type Options struct {
	// Source of the listeners: "netlink" (sock_diag), "procfs" (/proc/net/tcp), or
	// "auto": netlink, and procfs if the kernel refuses netlink.
	Backend string `toml:"backend"`
	// Mount point of procfs; empty: $HOST_PROC, or "/proc" if that is not set.
	Proc string `toml:"proc"`
	// Show the listeners of the host's other network namespaces too.
	Namespaces bool `toml:"namespaces"`
	// Count the established connections of every listener.
	Established bool `toml:"established"`
	// Add the field cmdline, 256 bytes at most. Arguments may hold secrets.
	Cmdline bool `toml:"cmdline"`
	// Maximum number of points of one gather. Beyond it, whoever has the most
	// listeners loses points first; tcp_listen_overflow counts them.
	MaxListeners int `toml:"max_listeners"`
	// How often to rescan all processes for additional owners of known listeners.
	OwnerRefresh plugin.Duration `toml:"owner_refresh"`
	// Time within which every known owner is verified.
	OwnerVerify plugin.Duration `toml:"owner_verify"`
	// Add the series custom_port_exporter{app,host,pid,port,state} too, one for each
	// owner of each listener. They count towards max_listeners.
	CustomPortExporter bool `toml:"custom_port_exporter"`
	// Show names instead of addresses in the tag port of custom_port_exporter:
	// "localhost:2379".
	ResolveAddresses bool `toml:"resolve_addresses"`
}

// Defaults returns the options of an empty table.
func Defaults() Options {
	return Options{
		Backend:      backendAuto,
		MaxListeners: 5000,
		OwnerRefresh: plugin.Duration(5 * time.Minute),
		OwnerVerify:  plugin.Duration(time.Minute),
	}
}

// Example returns options with a value in each that is worth showing.
func Example() Options {
	o := Defaults()
	o.Proc = "/proc"
	o.CustomPortExporter = true
	o.ResolveAddresses = true
	return o
}

const (
	backendAuto    = "auto"
	backendNetlink = "netlink"
	backendProcfs  = "procfs"
)

// Validate returns every error of the options, joined.
func (o *Options) Validate() error {
	var errs []error
	switch o.Backend {
	case backendAuto, backendNetlink, backendProcfs:
	default:
		errs = append(errs, plugin.Invalid("backend", `unknown backend %q: "auto", "netlink" or "procfs"`, o.Backend))
	}
	if o.Proc != "" && !strings.HasPrefix(o.Proc, "/") {
		errs = append(errs, plugin.Invalid("proc", "%q is not an absolute path", o.Proc))
	}
	if o.MaxListeners <= 0 {
		errs = append(errs, plugin.Invalid("max_listeners", "must be more than 0"))
	}
	if o.OwnerRefresh <= 0 {
		errs = append(errs, plugin.Invalid("owner_refresh", "must be longer than 0s"))
	}
	if o.OwnerVerify <= 0 {
		errs = append(errs, plugin.Invalid("owner_verify", "must be longer than 0s"))
	}
	return errors.Join(errs...)
}

// procPath returns where procfs is mounted.
func (o *Options) procPath(env func(string) string) string {
	for _, p := range []string{o.Proc, env("HOST_PROC")} {
		if p != "" {
			return filepath.Clean(p)
		}
	}
	return "/proc"
}

// cmdlineBytes returns how much of a process's arguments is read.
func (o *Options) cmdlineBytes() int {
	if o.Cmdline {
		return 256
	}
	return 0
}
