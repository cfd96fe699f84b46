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
	// Where listeners come from: "netlink" (sock_diag), "procfs" (/proc/net/tcp),
	// or "auto": netlink, and procfs where the kernel refuses that.
	Backend string `toml:"backend"`
	// Where procfs is mounted; empty: $HOST_PROC, and without that "/proc".
	Proc string `toml:"proc"`
	// Show the listeners of the host's other network namespaces too.
	Namespaces bool `toml:"namespaces"`
	// Count the established connections of every listener.
	Established bool `toml:"established"`
	// Add the field cmdline, 256 bytes at most. Arguments may hold secrets.
	Cmdline bool `toml:"cmdline"`
	// How many points one gather may have; beyond it the listeners of the user with
	// the most are counted in one point tcp_listen_overflow.
	MaxListeners int `toml:"max_listeners"`
	// How often further owners of known listeners are searched, through all
	// processes.
	OwnerRefresh plugin.Duration `toml:"owner_refresh"`
	// Every known owner is looked at again within this time.
	OwnerVerify plugin.Duration `toml:"owner_verify"`
	// Add the series custom_port_exporter{app,host,pid,port,state} too, one for each
	// owner of each listener.
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
		errs = append(errs, plugin.Invalid("proc", "%q is no absolute path", o.Proc))
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
