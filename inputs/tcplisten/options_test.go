package tcplisten

import (
	"testing"
	"time"

	"sockwatch/agent/plugin"
)

func TestOptionErrors(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"backend":  {func(o *Options) { o.Backend = "ebpf" }, `backend: unknown value "ebpf" (known: auto, netlink, procfs)`},
		"proc":     {func(o *Options) { o.Proc = "proc" }, `proc: "proc" is not an absolute path`},
		"scan":     {func(o *Options) { o.ScanInterval = plugin.Duration(time.Millisecond) }, `scan_interval: must be at least 100ms, or "0s"`},
		"remember": {func(o *Options) { o.Remember = plugin.Duration(time.Second) }, "remember: 1s is shorter than settle, 1m"},
		"all at once": {
			func(o *Options) { o.Backend, o.MaxListeners = "", 0 },
			"backend: unknown value \"\" (known: auto, netlink, procfs)\nmax_listeners: must be more than 0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := Defaults()
			test.change(&o)
			if err := o.Validate(); err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestProcPath(t *testing.T) {
	env := func(string) string { return "/host/proc" }
	none := func(string) string { return "" }
	if got := (&Options{Proc: "/other"}).procPath(env); got != "/other" {
		t.Errorf("the option does not come first: %s", got)
	}
	if got := (&Options{}).procPath(env); got != "/host/proc" {
		t.Errorf("HOST_PROC is not honored: %s", got)
	}
	if got := (&Options{}).procPath(none); got != "/proc" {
		t.Errorf("the default is %s", got)
	}
}
