package plugin

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"sockwatch/agent/metric"
)

// An Env is what the agent lends to a plugin instance. The constructors get it
// and open nothing: Load calls them, and `check` is Load.
type Env struct {
	// Log is the instance's logger. An error that a method returns is logged by
	// the agent; a plugin logs only what it cannot return, and each thing once.
	Log *slog.Logger
	// Hostname is the name of this host as the configuration gives it.
	Hostname string
	// StateDir is the directory for what must survive a restart, or "". Files in
	// it begin with Name.
	StateDir string
	// Name tells the instance from others: its kind, or KIND-ALIAS.
	Name string
	// Listen binds a stream socket for an Endpoint: network "tcp" or "unix". The
	// agent hands a socket of an equal address over when it reloads, so that the
	// old and the new instance may both hold one for a while. It makes the file of a
	// unix socket again that was removed, for all who hold that socket.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
}

// Options is what every plugin's options struct can do. The struct is plain data:
// exported fields with toml tags and doc comments, of the types string, bool, int,
// float64, Duration, Size, Strings, []string, map[string]string, or slices of
// structs of those. One that holds a secret also has the tag `secret:""`.
type Options interface {
	// Validate returns every error of the options, joined, each made by Invalid
	// where it concerns one option. It touches nothing outside of them.
	Validate() error
}

// An Exclusive options struct names what only one instance of the program may
// have, such as `listen "127.0.0.1:8088"` or `file "/var/log/x.jsonl"`.
type Exclusive interface{ Exclusive() []string }

// A Plugin is a kind of input or output: a row of the list in
// cmd/sockwatch/plugins.go, made by DefineInput, DefinePush or DefineEndpoint.
type Plugin struct {
	Name     string // as in [[inputs.NAME]] or [[outputs.NAME]]
	Descs    []metric.Desc
	Tags     []string       // of Definition
	Defaults func() Options // a pointer to a fresh options struct
	Example  func() Options // the same, with a value in every option worth showing

	// Of these exactly one is set; each takes what Defaults returned, decoded
	// into and validated.
	NewInput    func(Options, Env) (Input, error)
	NewPusher   func(Options, Env) (Pusher, error)
	NewEndpoint func(Options, Env) (Endpoint, error)

	FlushInterval time.Duration // a Pusher's default; 0: every batch at once
	MemoryOnly    bool          // a Pusher whose `buffer = "auto"` is memory always
}

// A Definition is what a plugin says of itself. O is its options struct, whose
// pointer implements Options; P is Input, Pusher or Endpoint.
type Definition[O, P any] struct {
	Name     string // as in [[inputs.NAME]] or [[outputs.NAME]]
	Descs    []metric.Desc
	Defaults func() O // called for each instance: slices and maps must be fresh
	Example  func() O // for the example file: valid, a value in every option worth showing
	New      func(O, Env) (P, error)

	// Tags are the keys of the tags that an Input's points can have. An input with the
	// tags address and port is one of listeners: discovery answers 503 while it fails.
	Tags []string

	FlushInterval time.Duration // Pusher only: the default of flush_interval; 0: at once
	MemoryOnly    bool          // Pusher only: `buffer = "auto"` is memory always
}

// DefineInput makes the Plugin of an input.
func DefineInput[O any, PO optionsOf[O]](d Definition[O, Input]) Plugin {
	p := define[O, PO](d.Name, d.Descs, d.Defaults, d.Example)
	p.Tags = d.Tags
	p.NewInput = build[O, PO](d.New)
	return p
}

// DefinePush makes the Plugin of an output that pushes.
func DefinePush[O any, PO optionsOf[O]](d Definition[O, Pusher]) Plugin {
	p := define[O, PO](d.Name, d.Descs, d.Defaults, d.Example)
	p.NewPusher = build[O, PO](d.New)
	p.FlushInterval, p.MemoryOnly = d.FlushInterval, d.MemoryOnly
	return p
}

// DefineEndpoint makes the Plugin of an output that is asked.
func DefineEndpoint[O any, PO optionsOf[O]](d Definition[O, Endpoint]) Plugin {
	p := define[O, PO](d.Name, d.Descs, d.Defaults, d.Example)
	p.NewEndpoint = build[O, PO](d.New)
	return p
}

type optionsOf[O any] interface {
	*O
	Options
}

func define[O any, PO optionsOf[O]](name string, descs []metric.Desc, defaults, example func() O) Plugin {
	fresh := func(f func() O) func() Options {
		return func() Options {
			o := f()
			return PO(&o)
		}
	}
	if example == nil {
		example = defaults
	}
	return Plugin{Name: name, Descs: descs, Defaults: fresh(defaults), Example: fresh(example)}
}

func build[O any, PO optionsOf[O], P any](open func(O, Env) (P, error)) func(Options, Env) (P, error) {
	return func(opts Options, env Env) (P, error) {
		return open(*opts.(PO), env)
	}
}

// An OptionError is an error of one option.
type OptionError struct {
	Option string
	Err    error
}

// Error names the option and says what is wrong with it.
func (e *OptionError) Error() string { return e.Option + ": " + e.Err.Error() }

// Unwrap returns what is wrong with the option.
func (e *OptionError) Unwrap() error { return e.Err }

// Invalid returns the error of one option, for Validate.
func Invalid(option, format string, args ...any) error {
	return &OptionError{option, fmt.Errorf(format, args...)}
}
