package plugin

import (
	"context"
	"log/slog"
	"net"
	"time"

	"sockwatch/agent/metric"
)

// An Env is what the agent gives to a plugin instance. The constructors get it
// and open nothing: config.Load calls them, also for `check`.
type Env struct {
	// Log is the instance's logger. An error that a method returns is logged by
	// the agent; a plugin logs only what it cannot return, and each thing once.
	Log *slog.Logger
	// Hostname is the name of this host as the configuration gives it.
	Hostname string
	// StateDir is the directory for what must survive a restart, or "". Files in
	// it begin with Name.
	StateDir string
	// Name is unique among the instances of its side: the kind, or KIND-ALIAS.
	Name string
	// Listen binds a stream socket for an Endpoint: network "tcp" or "unix". When the
	// agent reloads, a socket of an equal address is shared: the old and the new
	// instance may both hold it for a while. The file of a unix socket that was removed
	// is made again, for all who hold that socket.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
}

// Options is what every plugin's options struct can do. The struct is plain data:
// exported fields with toml tags and doc comments, of the types string, bool, int,
// float64, Duration, Size, Strings, []string, map[string]string, or slices of
// structs of those. One that holds a secret also has the tag `secret:""`.
type Options interface {
	// Validate returns every error of the options, joined, each made by Invalid
	// if it concerns one option, and its operands by Errorf. It touches nothing outside
	// of the options.
	Validate() error
}

// An Exclusive options struct names the resources that only one instance of the
// program may have, each as its option and a quoted value: `listen "127.0.0.1:8088"`
// or `path "/var/log/x.jsonl"`.
type Exclusive interface{ Exclusive() []string }

// An Include says where a part of an Includer's options comes from.
type Include struct {
	// Option names the option, of type Strings, with absolute paths or globs of files.
	Option string
	// Tables names the options, slices of structs, to which what the files hold is
	// appended: their top-level [[tables]] have these names, and they hold nothing else.
	Tables []string
}

// An Includer is an options struct of which a part may be in files of its own. The files
// are read with the configuration, before Validate is called: it sees what they hold.
type Includer interface{ Includes() Include }

// A Defaulter is an element of an option that is a slice of structs, and whose zero
// value is not what an empty table means. SetDefaults is called before it is decoded.
type Defaulter interface{ SetDefaults() }

// A Plugin is a kind of input or output: an element of the list in
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

	Sample   Sample
	Telegraf Telegraf
}

// A Sample is how an instance appears in the example configuration.
type Sample struct {
	// Active instances run if there is no configuration; others are commented out.
	Active bool
	// Options are those of the plugin that are set, as in Example.
	Options []string
	// NamePass or NameDrop is the filter that comes first, and why: what the output is
	// better without. It is set if the instance is active.
	NamePass, NameDrop []string
	Why                string
}

// Telegraf helps people who come with a Telegraf configuration.
type Telegraf struct {
	// Names are other names of Telegraf's plugins for the same job.
	Names []string
	// Options are Telegraf's options that this plugin does not have, with what to do
	// instead: `write "path"`.
	Options map[string]string
}

// A Definition describes a plugin. O is its options struct, whose
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

	Sample   Sample
	Telegraf Telegraf
}

// DefineInput makes the Plugin of an input.
func DefineInput[O any, PO optionsOf[O]](d Definition[O, Input]) Plugin {
	p := define[O, PO](d)
	p.Tags = d.Tags
	p.NewInput = build[O, PO](d.New)
	return p
}

// DefinePush makes the Plugin of an output that pushes.
func DefinePush[O any, PO optionsOf[O]](d Definition[O, Pusher]) Plugin {
	p := define[O, PO](d)
	p.NewPusher = build[O, PO](d.New)
	p.FlushInterval, p.MemoryOnly = d.FlushInterval, d.MemoryOnly
	return p
}

// DefineEndpoint makes the Plugin of an output that serves requests.
func DefineEndpoint[O any, PO optionsOf[O]](d Definition[O, Endpoint]) Plugin {
	p := define[O, PO](d)
	p.NewEndpoint = build[O, PO](d.New)
	return p
}

type optionsOf[O any] interface {
	*O
	Options
}

func define[O any, PO optionsOf[O], P any](d Definition[O, P]) Plugin {
	fresh := func(f func() O) func() Options {
		return func() Options {
			o := f()
			return PO(&o)
		}
	}
	if d.Example == nil {
		d.Example = d.Defaults
	}
	return Plugin{
		Name: d.Name, Descs: d.Descs, Defaults: fresh(d.Defaults), Example: fresh(d.Example),
		Sample: d.Sample, Telegraf: d.Telegraf,
	}
}

func build[O any, PO optionsOf[O], P any](open func(O, Env) (P, error)) func(Options, Env) (P, error) {
	return func(opts Options, env Env) (P, error) {
		return open(*opts.(PO), env)
	}
}
