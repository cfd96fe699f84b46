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
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"sockwatch"
	"sockwatch/agent"
	"sockwatch/agent/config"
	"sockwatch/agent/listen"
	"sockwatch/agent/plugin"
)

func main() {
	os.Exit(run(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
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
		panic(err) // commandLine is no grammar
	}
	command, err := parser.Parse(args)
	if helped {
		return exitDone
	}
	if err != nil {
		fmt.Fprintf(stderr, "sockwatch: %v\nTry \"sockwatch --help\".\n", err)
		return exitUsage
	}
	p := &program{
		plugins: plugins(), getenv: getenv, stdout: stdout, stderr: stderr,
		sockets: &listen.Sockets{}, log: newLogSwitch(stderr),
	}
	if err := command.Run(p); err != nil {
		printError(stderr, err)
		return exitFailed
	}
	return exitDone
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

// A commandLine is what kong understands. Its tags are the help.
type commandLine struct {
	Run     runCommand     `cmd:"" default:"withargs" help:"Gather and deliver until SIGTERM or SIGINT; SIGHUP reloads the configuration. The default."`
	Once    onceCommand    `cmd:"" help:"Gather once and deliver to every output that pushes."`
	Test    testCommand    `cmd:"" help:"Gather once and print line protocol; no output is touched."`
	List    listCommand    `cmd:"" help:"Show who listens, as a table."`
	Check   checkCommand   `cmd:"" help:"Validate the configuration and print every error."`
	Config  configCommand  `cmd:"" help:"Print an example configuration with every option."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// configFlags choose the configuration.
type configFlags struct {
	Config          []string `placeholder:"FILE" sep:"none" help:"Read this TOML file; several add up. Without it: $$SOCKWATCH_CONFIG, then /etc/sockwatch/sockwatch.toml, then what \"sockwatch config\" prints."`
	ConfigDirectory []string `placeholder:"DIR" sep:"none" help:"Read every *.toml of this directory, too."`
}

// A program is what the commands work with.
type program struct {
	plugins        []plugin.Plugin
	getenv         func(string) (string, bool)
	stdout, stderr io.Writer
	sockets        *listen.Sockets
	log            *logSwitch
}

// load reads the configuration and builds it; the log is as it says from then on.
func (p *program) load(f configFlags) (*agent.Agent, []config.File, error) {
	files, err := p.files(f)
	if err != nil {
		return nil, nil, err
	}
	a, err := p.build(files)
	if err == nil {
		p.log.set(a.Options.LogLevel, a.Options.LogFormat)
	}
	return a, files, err
}

// reload reads and builds the configuration anew; the log is as it says when it
// is in force.
func (p *program) reload(f configFlags) (*agent.Agent, error) {
	files, err := p.files(f)
	if err != nil {
		return nil, err
	}
	a, err := p.build(files)
	if err != nil {
		return nil, err
	}
	a.InForce = func() { p.log.set(a.Options.LogLevel, a.Options.LogFormat) }
	return a, nil
}

func (p *program) build(files []config.File) (*agent.Agent, error) {
	return config.Load(files, p.plugins, config.Host{
		Getenv: p.getenv, Hostname: os.Hostname, Log: slog.New(p.log), Listen: p.sockets.Listen, Version: version(),
	})
}

type onceCommand struct{ configFlags }

func (c *onceCommand) Run(p *program) error {
	a, _, err := p.load(c.configFlags)
	if err != nil {
		return err
	}
	if len(a.Push) == 0 {
		return errors.New("once delivers to outputs that push, and the configuration has none")
	}
	signal.Ignore(syscall.SIGPIPE) // the stdout output answers for a reader that has gone
	ctx, stop := untilSignal()
	defer stop()
	return a.Once(ctx)
}

type testCommand struct{ configFlags }

func (c *testCommand) Run(p *program) error {
	a, _, err := p.load(c.configFlags)
	if err != nil {
		return err
	}
	ctx, stop := untilSignal()
	defer stop()
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
	a, files, err := p.load(c.configFlags)
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

// version returns the module's version, and the commit where it was built from one.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
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
		signal.Stop(signals) // before the program learns of the first, so that no second one is lost
		cancel()
	}()
	return ctx, func() {
		cancel()
		<-done
	}
}
