// Command sockwatch finds every listening TCP socket of a host and its owner, and sends
// the result to the configured outputs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"sockwatch"
	"sockwatch/agent"
	"sockwatch/agent/config"
	"sockwatch/agent/listen"
	"sockwatch/agent/plugin"
)

func main() {
	if err := raise(); err != nil {
		fmt.Fprintf(os.Stderr, "sockwatch: capabilities not raised: %v\n", err)
	}
	os.Exit(run(os.Args[1:], os.LookupEnv, standardOutput(), os.Stderr))
}

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// run executes a command line and returns the exit code. stdout is for the data of
// commands; an output of the plugin stdout writes to the process's descriptor 1.
func run(args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) int {
	data := &dataWriter{Writer: stdout}
	command, err := parse(args, data, stderr)
	if err != nil && data.err == nil { // else help could not be written
		fmt.Fprintf(stderr, "sockwatch: %v\nTry \"sockwatch %s\".\n", err, helpFor(err))
		return exitUsage
	}
	p := &program{
		plugins: plugins(), getenv: getenv, stdin: os.Stdin, stdout: data, stderr: stderr,
		sockets: &listen.Sockets{}, log: newLogSwitch(stderr),
	}
	return p.execute(func() error {
		if command == nil { // help was printed
			return nil
		}
		return command.Run(p)
	})
}

// execute runs a command, prints its error, and returns the exit code.
func (p *program) execute(command func() error) int {
	err := command()
	if p.stdout.err != nil {
		err = p.stdout.err
	}
	if logged := p.log.flush(logTimeout); err != nil && logged && !errors.Is(err, errNotInOrder) { // else nobody reads stderr
		printError(p.stderr, err)
	}
	if err != nil {
		return exitFailed
	}
	return exitDone
}

// logTimeout is how long the program waits for the reader of the log before it exits.
const logTimeout = time.Second

// parse parses a command line. If that asks for help, parse prints it to stdout and
// returns nil.
func parse(args []string, stdout, stderr io.Writer) (*kong.Context, error) {
	helped := false
	parser := newParser(kong.Writers(stdout, stderr), kong.Exit(func(int) { helped = true }))
	command, err := parser.Parse(args)
	switch {
	case helped:
		return nil, nil
	case err != nil:
		return nil, &usageError{explain(parser.Model, args, err), commandOf(args, err)}
	}
	return command, nil
}

// newParser returns a parser of the command line.
func newParser(options ...kong.Option) *kong.Kong {
	return kong.Must(&commandLine{}, append(options,
		kong.Name("sockwatch"),
		kong.Description("Finds every listening TCP socket of this host and its owner, shows them on a live page,\n"+
			"and sends them to Prometheus, OTLP, InfluxDB, webhooks or files, as configured in TOML.\n"+
			"The default command is run: \"sockwatch run --help\" shows its flags."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)...)
}

// printError prints an error, with the program's name before each line. Errors of a
// configuration begin with file and line instead, so that editors recognize them.
func printError(stderr io.Writer, err error) {
	prefix := "sockwatch: "
	if errors.As(err, &config.Errors{}) {
		prefix = ""
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(stderr, "%s%s\n", prefix, line)
	}
}

// A commandLine defines the commands. Its tags are the help.
type commandLine struct {
	Run        runCommand        `cmd:"" default:"withargs" help:"Gather and deliver until SIGTERM or SIGINT; SIGHUP reloads the configuration. This is the default."`
	Once       onceCommand       `cmd:"" help:"Gather once and deliver to every output that pushes."`
	Test       testCommand       `cmd:"" help:"Gather once and print line protocol, without using any output."`
	List       listCommand       `cmd:"" help:"Show the listeners and their owners as a table."`
	Watch      watchCommand      `cmd:"" help:"Print what opens, closes and changes, as it happens."`
	Expect     expectCommand     `cmd:"" help:"Print rules that expect what listens now: the draft of a baseline."`
	Check      checkCommand      `cmd:"" help:"Validate the configuration and print all errors. With --live, compare what listens with its rules."`
	Config     configCommand     `cmd:"" help:"Print an example configuration with all options."`
	Execd      execdCommand      `cmd:"" help:"Run inside Telegraf: gather at each line on standard input, and print line protocol."`
	Completion completionCommand `cmd:"" help:"Print a script that completes commands and flags in a shell."`
	Version    versionCommand    `cmd:"" help:"Print the version."`
}

// configFlags select the configuration.
type configFlags struct {
	Config          []configPath `placeholder:"FILE" sep:"none" help:"Read this TOML file; may be repeated. Default: $$SOCKWATCH_CONFIG, else /etc/sockwatch/sockwatch.toml and /etc/sockwatch/sockwatch.d/*.toml, else the output of \"sockwatch config\"."`
	ConfigDirectory []configPath `placeholder:"DIR" sep:"none" help:"Also read every *.toml in this directory; may be repeated."`
}

// A configPath is the value of a flag that names a file or directory.
type configPath string

// UnmarshalText rejects an empty path, which a shell makes of a variable that is not set.
func (p *configPath) UnmarshalText(text []byte) error {
	if *p = configPath(text); len(text) == 0 {
		return errors.New("the path is empty")
	}
	return nil
}

// A program holds what the commands share.
type program struct {
	plugins []plugin.Plugin
	getenv  func(string) (string, bool)
	stdin   io.Reader
	stdout  *dataWriter
	stderr  io.Writer
	sockets *listen.Sockets
	log     *logSwitch

	inputsOnly bool // set by commands that use no output, and must not touch the state directory
}

// load reads and builds the configuration, and applies its log options.
func (p *program) load(ctx context.Context, r *sourceReader) (*agent.Agent, []config.File, error) {
	a, files, err := p.reload(ctx, r)
	if err == nil {
		a.InForce()
		a.InForce = nil
	}
	return a, files, err
}

// reload reads and builds the configuration again. Its log options apply when the agent
// calls InForce.
func (p *program) reload(ctx context.Context, r *sourceReader) (*agent.Agent, []config.File, error) {
	files, err := r.read(ctx)
	if err != nil {
		return nil, nil, err
	}
	a, err := p.buildFrom(ctx, files, slog.New(p.log), r.includer)
	if err != nil {
		return nil, files, err
	}
	a.InForce = func() {
		p.log.set(a.Options.LogLevel, a.Options.LogFormat)
		r.source.adopted(files)
	}
	return a, files, nil
}

// reader returns the reader of the configuration that the flags select.
func (p *program) reader(f configFlags) *sourceReader {
	return newSourceReader(newSource(f, p.getenv), readTimeout)
}

func (p *program) build(files []config.File) (*agent.Agent, error) {
	return p.buildLogging(files, slog.New(p.log))
}

func (p *program) buildLogging(files []config.File, log *slog.Logger) (*agent.Agent, error) {
	return p.buildFrom(context.Background(), files, log, newIncluder(readTimeout))
}

// buildFrom builds a configuration from its files and the files that they include.
func (p *program) buildFrom(ctx context.Context, files []config.File, log *slog.Logger, included *includer) (*agent.Agent, error) {
	ctx, cancel := context.WithTimeout(ctx, included.timeout)
	defer cancel()
	host := p.host(log)
	included.lend(ctx, &host)
	return config.Load(files, p.plugins, host)
}

// host returns the host of a configuration of this program.
func (p *program) host(log *slog.Logger) config.Host {
	return config.Host{Getenv: p.getenv, Hostname: os.Hostname, Log: log, Listen: p.sockets.Listen, Version: version(), InputsOnly: p.inputsOnly}
}

type onceCommand struct{ configFlags }

func (c *onceCommand) Run(p *program) error {
	p.log.buffer()
	ctx, stop := untilSignal()
	defer stop()
	a, _, err := p.load(ctx, p.reader(c.configFlags))
	if err != nil {
		return err
	}
	if len(a.Push) == 0 {
		return errors.New("the configuration has no output that pushes: once needs one")
	}
	signal.Ignore(syscall.SIGPIPE) // the stdout output reports a reader that is gone
	return a.Once(ctx)
}

type testCommand struct{ configFlags }

func (c *testCommand) Run(p *program) error {
	p.inputsOnly = true
	ctx, stop := untilSignal()
	defer stop()
	a, _, err := p.load(ctx, p.reader(c.configFlags))
	if err != nil {
		return err
	}
	batches, failed := a.GatherOnce(ctx)
	p.warnOfPartial(batches)
	for _, b := range batches {
		if err := p.printPoints("influx", b.Time, slices.Concat(b.Points, b.Events)); err != nil {
			return err
		}
	}
	return failed
}

type checkCommand struct {
	configFlags
	Live bool `help:"Also scan this host, and print the listeners that are missing, forbidden, unexpected or undecided by the rules of inputs.tcp_listen. The exit code is 1 if there are any."`
	JSON bool `name:"json" help:"With --live, print the whole result as one JSON object per input that has rules: every rule, and every listener with its verdict."`
}

// Validate checks the flags. Kong calls it.
func (c *checkCommand) Validate() error {
	if c.JSON && !c.Live {
		return errors.New("--json needs --live")
	}
	return nil
}

func (c *checkCommand) Run(p *program) error {
	if c.Live {
		return c.live(p)
	}
	a, files, err := p.load(context.Background(), p.reader(c.configFlags))
	if err != nil {
		return err
	}
	var names, instances []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	for _, in := range a.Inputs {
		instances = append(instances, "inputs."+in.Name)
	}
	for _, out := range a.Push {
		instances = append(instances, "outputs."+out.Name)
	}
	for _, out := range a.Pull {
		instances = append(instances, "outputs."+out.Name)
	}
	_, err = fmt.Fprintf(p.stdout, "%s: ok: %s\n", strings.Join(names, ", "), strings.Join(instances, ", "))
	return err
}

type configCommand struct{}

func (configCommand) Run(p *program) error {
	_, err := io.WriteString(p.stdout, sockwatch.ExampleConfig)
	return err
}

type versionCommand struct{}

func (versionCommand) Run(p *program) error {
	_, err := fmt.Fprintf(p.stdout, "sockwatch %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// repeatedSignal is how soon after a signal another one is taken for the same: timeout(1) sends
// it twice, to the program and to its process group.
const repeatedSignal = 20 * time.Millisecond

// untilSignal returns a context that ends at SIGTERM or SIGINT, and a function that ends
// it. A second signal ends the program at once, unless it comes within repeatedSignal.
func untilSignal() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-signals:
			time.Sleep(repeatedSignal)
		case <-ctx.Done():
		}
		signal.Stop(signals) // before cancel, so that a second signal is not lost
		cancel()
	}()
	return ctx, func() {
		cancel()
		<-done
	}
}
