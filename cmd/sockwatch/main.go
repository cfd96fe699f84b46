// Command sockwatch finds every listening TCP socket of a host and its owner, and
// hands what it finds to the outputs that its configuration names.
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
	os.Exit(run(os.Args[1:], os.LookupEnv, standardOutput(), os.Stderr))
}

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// run executes a command line and returns the exit code. A stdout output does not
// write to stdout but to the process's own descriptor.
func run(args []string, getenv func(string) (string, bool), stdout, stderr io.Writer) int {
	data := &dataWriter{Writer: stdout}
	command, err := parse(args, data, stderr)
	if err != nil && data.err == nil { // else it is help that could not be written
		fmt.Fprintf(stderr, "sockwatch: %v\nTry \"sockwatch --help\".\n", err)
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
	if logged := p.log.flush(logTimeout); err != nil && logged { // else nobody reads
		printError(p.stderr, err)
	}
	if err != nil {
		return exitFailed
	}
	return exitDone
}

// logTimeout is how long the end of the program waits for the reader of the log.
const logTimeout = time.Second

// parse parses a command line. It prints help to stdout, and then returns nil.
func parse(args []string, stdout, stderr io.Writer) (*kong.Context, error) {
	var line commandLine
	helped := false
	parser, err := kong.New(&line,
		kong.Name("sockwatch"),
		kong.Description("Finds every listening TCP socket of this host and its owner, and hands what it finds\n"+
			"to Prometheus, InfluxDB, a log or a file, as a TOML file says. Without a command\n"+
			"it runs: \"sockwatch run --help\" shows its flags."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		panic(err) // commandLine is not a grammar
	}
	command, err := parser.Parse(args)
	switch {
	case helped:
		return nil, nil
	case err != nil:
		return nil, forTelegrafUsers(parser.Model, args, err)
	}
	return command, nil
}

// printError prints an error, each line with the program's name; the errors of a
// configuration begin with file and line, as editors like them.
func printError(stderr io.Writer, err error) {
	prefix := "sockwatch: "
	if errors.As(err, &config.Errors{}) {
		prefix = ""
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(stderr, "%s%s\n", prefix, line)
	}
}

// A commandLine is the grammar of the command line. Its tags are the help.
type commandLine struct {
	Run     runCommand     `cmd:"" default:"withargs" help:"Gather and deliver until SIGTERM or SIGINT; SIGHUP reloads the configuration. The default."`
	Once    onceCommand    `cmd:"" help:"Gather once and deliver to every output that pushes."`
	Test    testCommand    `cmd:"" help:"Gather once and print line protocol; no output is touched."`
	List    listCommand    `cmd:"" help:"Show who listens, as a table."`
	Check   checkCommand   `cmd:"" help:"Validate the configuration and print every error."`
	Config  configCommand  `cmd:"" help:"Print an example configuration with every option."`
	Execd   execdCommand   `cmd:"" help:"Run inside Telegraf: gather at each line on standard input, and print line protocol."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// configFlags choose the configuration.
type configFlags struct {
	Config          []string `placeholder:"FILE" sep:"none" help:"Read this TOML file; several add up. Without it: $$SOCKWATCH_CONFIG, then /etc/sockwatch/sockwatch.toml and /etc/sockwatch/sockwatch.d/*.toml, then what \"sockwatch config\" prints."`
	ConfigDirectory []string `placeholder:"DIR" sep:"none" help:"Read every *.toml of this directory, too."`
}

// A program is what the commands work with.
type program struct {
	plugins []plugin.Plugin
	getenv  func(string) (string, bool)
	stdin   io.Reader
	stdout  *dataWriter
	stderr  io.Writer
	sockets *listen.Sockets
	log     *logSwitch
}

// load reads the configuration and builds it; from then on the log is as it says.
func (p *program) load(ctx context.Context, r *sourceReader) (*agent.Agent, []config.File, error) {
	a, files, err := p.reload(ctx, r)
	if err == nil {
		a.InForce()
		a.InForce = nil
	}
	return a, files, err
}

// reload reads and builds the configuration again; the log is as it says when it
// is in force.
func (p *program) reload(ctx context.Context, r *sourceReader) (*agent.Agent, []config.File, error) {
	files, err := r.read(ctx)
	if err != nil {
		return nil, nil, err
	}
	a, err := p.build(files)
	if err != nil {
		return nil, files, err
	}
	a.InForce = func() {
		p.log.set(a.Options.LogLevel, a.Options.LogFormat)
		r.source.adopted(files)
	}
	return a, files, nil
}

// reader returns what reads the configuration that the flags choose.
func (p *program) reader(f configFlags) *sourceReader {
	return newSourceReader(newSource(f, p.getenv), readTimeout)
}

func (p *program) build(files []config.File) (*agent.Agent, error) {
	return p.buildLogging(files, slog.New(p.log))
}

func (p *program) buildLogging(files []config.File, log *slog.Logger) (*agent.Agent, error) {
	return config.Load(files, p.plugins, p.host(log))
}

// host returns what configurations of this program ask of the system.
func (p *program) host(log *slog.Logger) config.Host {
	return config.Host{Getenv: p.getenv, Hostname: os.Hostname, Log: log, Listen: p.sockets.Listen, Version: version()}
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
		return errors.New("once delivers to outputs that push, and the configuration has none")
	}
	signal.Ignore(syscall.SIGPIPE) // the stdout output answers for a reader that has gone
	return a.Once(ctx)
}

type testCommand struct{ configFlags }

func (c *testCommand) Run(p *program) error {
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

type checkCommand struct{ configFlags }

func (c *checkCommand) Run(p *program) error {
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

// untilSignal returns a context that ends at SIGTERM or SIGINT; a second one ends
// the program at once. The function that it returns ends the context, too.
func untilSignal() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-signals:
		case <-ctx.Done():
		}
		signal.Stop(signals) // before the program acts on the first, so that a second one is not lost
		cancel()
	}()
	return ctx, func() {
		cancel()
		<-done
	}
}
