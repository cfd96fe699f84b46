package tcplisten

import (
	"errors"
	"path/filepath"
	"strings"
	"time"

	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/expect"
)

// Options are the options of [[inputs.tcp_listen]].
type Options struct {
	// Source of the listeners: "netlink" (sock_diag), "procfs" (/proc/net/tcp), or
	// "auto": netlink, and procfs if the kernel refuses netlink.
	Backend string `toml:"backend"`
	// Mount point of procfs. If empty: $HOST_PROC, or "/proc" if that is not set.
	Proc string `toml:"proc"`
	// Also report the listeners of the host's other network namespaces.
	Namespaces bool `toml:"namespaces"`
	// Count the established connections of every listener.
	Established bool `toml:"established"`
	// Add the owner's arguments as the field cmdline, at most 256 bytes. Arguments may
	// contain secrets.
	Cmdline bool `toml:"cmdline"`
	// Maximum number of points per gather. If there are more, the users with the most
	// listeners lose points first; tcp_listen_overflow counts them.
	MaxListeners int `toml:"max_listeners"`
	// Where to search for the owners of listeners: "bpf" (the kernel lists all of them in one
	// pass; needs CAP_BPF and CAP_PERFMON), "procfs" (the open files of every process), or
	// "auto": bpf, and procfs if the kernel refuses bpf.
	OwnerSource string `toml:"owner_source"`
	// How often to rescan all processes for additional owners of known listeners.
	OwnerRefresh plugin.Duration `toml:"owner_refresh"`
	// Period within which every known owner is verified once.
	OwnerVerify plugin.Duration `toml:"owner_verify"`
	// Also add the series custom_port_exporter{app,host,pid,port,state}, one for each
	// owner of each listener. They count towards max_listeners.
	CustomPortExporter bool `toml:"custom_port_exporter"`
	// Show host names, from reverse DNS lookups, instead of addresses in the tag port of
	// custom_port_exporter, as in "localhost:2379".
	ResolveAddresses bool `toml:"resolve_addresses"`

	// How long a listener must be gone before it is reported as closed. A listener that
	// is back sooner was restarted.
	Settle plugin.Duration `toml:"settle"`
	// The same after a boot, while services are still starting.
	SettleBoot plugin.Duration `toml:"settle_boot"`
	// Maximum time that an event waits for the search for its owner.
	OwnerWait plugin.Duration `toml:"owner_wait"`
	// How long a closed listener is remembered: if it opens again, it has returned.
	Remember plugin.Duration `toml:"remember"`
	// How often to list the sockets between gathers, to report listeners that live for
	// less than an interval. "1s" is cheap; "0s": never.
	ScanInterval plugin.Duration `toml:"scan_interval"`
	// Report each listener as soon as it opens or closes, with the exact time and the process
	// that called listen: "auto" (if the kernel allows it: needs CAP_BPF and CAP_PERFMON) or
	// "off".
	ListenEvents string `toml:"listen_events"`
	// Add the field exe_sha256 to events: the SHA-256 sum of the owner's program, unless
	// it is larger than 100 MiB.
	ExeSHA256 bool `toml:"exe_sha256"`

	expect.Options
}

// Defaults returns the options of an empty table.
func Defaults() Options {
	return Options{
		Backend:      backendAuto,
		MaxListeners: 5000,
		OwnerSource:  ownerSourceAuto,
		ListenEvents: listenEventsAuto,
		OwnerRefresh: plugin.Duration(5 * time.Minute),
		OwnerVerify:  plugin.Duration(time.Minute),
		Settle:       plugin.Duration(time.Minute),
		SettleBoot:   plugin.Duration(5 * time.Minute),
		OwnerWait:    plugin.Duration(30 * time.Second),
		Remember:     plugin.Duration(720 * time.Hour),
		Options:      expect.Defaults(),
	}
}

// Example returns options in which every option has a value that is worth showing.
func Example() Options {
	o := Defaults()
	o.Proc = "/proc"
	o.CustomPortExporter = true
	o.ResolveAddresses = true
	o.ScanInterval = plugin.Duration(time.Second)
	o.Options = expect.Example()
	return o
}

const (
	backendAuto    = "auto"
	backendNetlink = "netlink"
	backendProcfs  = "procfs"
)

const (
	ownerSourceAuto   = "auto"
	ownerSourceProcfs = "procfs"
	ownerSourceBPF    = "bpf"

	listenEventsAuto = "auto"
	listenEventsOff  = "off"
)

// minScan is the shortest interval of scans, as of everything that is periodic.
const minScan = plugin.Duration(100 * time.Millisecond)

// Validate returns every error of the options, joined.
func (o *Options) Validate() error {
	var errs []error
	switch o.Backend {
	case backendAuto, backendNetlink, backendProcfs:
	default:
		errs = append(errs, plugin.Invalid("backend", "unknown value %q (known: auto, netlink, procfs)", o.Backend))
	}
	if o.Proc != "" && !strings.HasPrefix(o.Proc, "/") {
		errs = append(errs, plugin.Invalid("proc", "%q is not an absolute path", o.Proc))
	}
	switch o.OwnerSource {
	case ownerSourceAuto, ownerSourceProcfs, ownerSourceBPF:
	default:
		errs = append(errs, plugin.Invalid("owner_source", "unknown value %q (known: auto, procfs, bpf)", o.OwnerSource))
	}
	switch o.ListenEvents {
	case listenEventsAuto, listenEventsOff:
	default:
		errs = append(errs, plugin.Invalid("listen_events", "unknown value %q (known: auto, off)", o.ListenEvents))
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
	if o.ScanInterval > 0 && o.ScanInterval < minScan {
		errs = append(errs, plugin.Invalid("scan_interval", `must be at least %v, or "0s"`, minScan))
	}
	if o.Remember < o.Settle {
		errs = append(errs, plugin.Invalid("remember", "%v is shorter than settle, %v", o.Remember, o.Settle))
	}
	errs = append(errs, o.ValidateRules(tags()))
	return errors.Join(errs...)
}

// procPath returns the mount point of procfs.
func (o *Options) procPath(env func(string) string) string {
	for _, p := range []string{o.Proc, env("HOST_PROC")} {
		if p != "" {
			return filepath.Clean(p)
		}
	}
	return "/proc"
}

// cmdlineBytes returns how many bytes of a process's arguments to read.
func (o *Options) cmdlineBytes() int {
	if o.Cmdline {
		return 256
	}
	return 0
}
