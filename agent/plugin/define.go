package plugin

import (
	"context"
	"log/slog"
	"net"
	"time"

	"sockwatch/agent/metric"
)

// An Env is what the agent provides to a plugin instance. Constructors receive it and
// must not open anything: config.Load calls them, also for `sockwatch check`.
type Env struct {
	// Log is the instance's logger. The agent logs the errors that methods return. A
	// plugin logs only what it cannot return, and each event once.
	Log *slog.Logger
	// Hostname is the name of this host according to the configuration.
	Hostname string
	// StateDir is the directory for data that must survive a restart, or "". The names
	// of files in it begin with Name.
	StateDir string
	// Name is KIND or KIND-ALIAS. It is unique among inputs or among outputs.
	Name string
	// Listen binds a stream socket for an Endpoint. The network is "tcp" or "unix".
	// Listeners on the same address share one socket: at a reload the old and the new
	// instance both have one for a while. If the file of a unix socket was removed,
	// Listen creates it again, for all its listeners.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
}

// Options is implemented by a pointer to every plugin's options struct. The struct is
// plain data: exported fields with toml tags and doc comments. Their types are string,
// bool, int, float64, Duration, Size, Strings, []string, []int, map[string]string, types with
// UnmarshalTOML, and slices of structs of these. A field for a secret also has the tag
// `secret:""`. A field for an option that will be removed has the tag `deprecated:"HINT"`, where
// HINT says what to write instead: "write flush_interval". It still works, and each use is a
// warning.
type Options interface {
	// Validate returns all errors of the options, joined. Errors of one option are made
	// by Invalid, other errors with operands by Errorf. An option in a slice of structs is
	// named by its path: "expect[2].port". Validate depends on nothing but the options.
	Validate() error
}

// An Exclusive is an options struct that names resources of which only one instance in
// the program may have each. A resource is the option and a quoted value, such as
// `listen "127.0.0.1:8088"` or `path "/var/log/x.jsonl"`.
type Exclusive interface{ Exclusive() []string }

// A Warner is an options struct whose options can be valid and still not be what was meant.
type Warner interface {
	// Warn returns what looks wrong, in the form of the errors of Validate. It is called after
	// Validate has returned nil. The agent logs each as a warning.
	Warn() error
}

// An Includer is an options struct that can have some of its options in other files. They are
// read with the configuration, also by `check` and at a reload. Validate is called afterwards,
// and its errors have the file and line of the element that they name.
type Includer interface{ Includes() Include }

// An Include says which files an options struct includes, and what they hold.
type Include struct {
	// Option is the option with the files: absolute paths and globs. Its type is Strings.
	Option string
	// Tables are the options that the files add elements to. Each is a slice of structs.
	// The files hold nothing but these tables, at the top level: [[expect]].
	Tables []string
}

// A Defaulter is implemented by a pointer to the elements of an option that is a slice of
// structs, if the defaults of an element differ from the zero value. SetDefaults is
// called on each new element before it is decoded.
type Defaulter interface{ SetDefaults() }

// A Plugin is a kind of input or output: an element of the list in
// cmd/sockwatch/plugins.go. DefineInput, DefinePush and DefineEndpoint return one.
type Plugin struct {
	Name     string // as in [[inputs.NAME]] or [[outputs.NAME]]
	Descs    []metric.Desc
	Tags     []string       // see Definition
	Defaults func() Options // returns a pointer to a new options struct
	Example  func() Options // likewise, with a value in every option worth showing

	// Exactly one of these is set. The options are those that Defaults returned, after
	// decoding and validation.
	NewInput    func(Options, Env) (Input, error)
	NewPusher   func(Options, Env) (Pusher, error)
	NewEndpoint func(Options, Env) (Endpoint, error)

	FlushInterval time.Duration // see Definition
	MinInterval   time.Duration // see Definition
	MemoryOnly    bool          // see Definition

	Sample   Sample
	Telegraf Telegraf
}

// A Sample says how an instance appears in the example configuration.
type Sample struct {
	// Active instances run if there is no configuration. Others are commented out.
	Active bool
	// Options are the plugin's options that are set, to their values in Example.
	Options []string
	// NamePass or NameDrop is a recommended filter, and Why its reason. The filter is
	// set if the instance is active.
	NamePass, NameDrop []string
	Why                string
}

// Telegraf holds hints for people who migrate a Telegraf configuration.
type Telegraf struct {
	// Names are Telegraf's plugins for the same purpose, if they have other names.
	Names []string
	// Options maps Telegraf's options that this plugin does not have to what to do
	// instead: `write "path"`.
	Options map[string]string
}

// A Definition describes a plugin. O is its options struct, a pointer to which implements
// Options. P is Input, Pusher or Endpoint.
type Definition[O, P any] struct {
	Name     string // as in [[inputs.NAME]] or [[outputs.NAME]]
	Descs    []metric.Desc
	Defaults func() O // called for each instance: must return new slices and maps
	Example  func() O // for the example file: valid, with a value in every option worth showing
	New      func(O, Env) (P, error)

	// Tags are the keys of all tags that an Input's points can have. An input with the
	// tags address and port lists listeners: service discovery answers 503 while it
	// fails.
	Tags []string

	FlushInterval time.Duration // Pusher only: the default of flush_interval; 0: at once
	MinInterval   time.Duration // Pusher only: the default of min_interval; 0: every snapshot passes
	MemoryOnly    bool          // Pusher only: `buffer = "auto"` always means memory

	Sample   Sample
	Telegraf Telegraf
}

// DefineInput returns the Plugin of an input.
func DefineInput[O any, PO optionsOf[O]](d Definition[O, Input]) Plugin {
	p := define[O, PO](d)
	p.Tags = d.Tags
	p.NewInput = build[O, PO](d.New)
	return p
}

// DefinePush returns the Plugin of an output that pushes.
func DefinePush[O any, PO optionsOf[O]](d Definition[O, Pusher]) Plugin {
	p := define[O, PO](d)
	p.NewPusher = build[O, PO](d.New)
	p.FlushInterval, p.MinInterval, p.MemoryOnly = d.FlushInterval, d.MinInterval, d.MemoryOnly
	return p
}

// DefineEndpoint returns the Plugin of an output that serves requests.
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
