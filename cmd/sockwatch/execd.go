package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"sockwatch/agent"
)

type execdCommand struct{ configFlags }

// execdConfig is the configuration of execd if there is no other. Telegraf adds the
// tag host itself.
const execdConfig = `
[agent]
  omit_hostname = true
[[inputs.tcp_listen]]
`

// Run speaks the protocol of Telegraf's inputs.execd with signal = "STDIN". Each newline
// on stdin asks every input for a gather; newlines that come during a gather count as one
// request. At the end of stdin, requested gathers still finish. Telegraf
// sends SIGTERM at the same time, and SIGKILL five seconds later: a gather in flight
// has until execdGrace.
func (c *execdCommand) Run(p *program) error {
	p.stderr = errorLines{p.stderr}
	p.log.format = telegrafFormat
	p.log.buffer()
	signal.Ignore(syscall.SIGPIPE) // a reader that is gone is an error of stdout
	ctx, stop := untilSignal()
	defer stop()
	haltCtx, halt := haltAfter(ctx, execdGrace)
	defer halt()

	inputs, err := c.openInputs(ctx, p)
	if err != nil {
		return notInterrupted(ctx, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for _, in := range inputs {
			wg.Go(func() { in.serve(ctx, haltCtx) })
		}
		wg.Wait()
	}()
	go requestEach(p.stdin, inputs) // ends with the program: a read of stdin cannot be canceled
	select {
	case <-done:
		return nil
	case <-haltCtx.Done():
	}
	select {
	case <-done:
		return nil
	case <-time.After(time.Second):
		return errors.New("stopped while standard output accepts no more points")
	}
}

// execdGrace is how long a gather in flight may last after SIGTERM.
const execdGrace = 3 * time.Second

// haltAfter returns a context that ends grace after ctx, or when its function is called.
func haltAfter(ctx context.Context, grace time.Duration) (context.Context, func()) {
	halted, halt := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, halt) })
	return halted, func() {
		stop()
		halt()
	}
}

// openInputs reads the configuration and returns its inputs.
func (c *execdCommand) openInputs(ctx context.Context, p *program) ([]*execdInput, error) {
	source := newSource(c.configFlags, p.getenv)
	if source.builtIn != "" {
		source.builtIn = execdConfig
	}
	files, err := newSourceReader(source, readTimeout).read(ctx)
	if err != nil {
		return nil, err
	}
	log := slog.New(p.log)
	p.inputsOnly = true
	a, err := p.buildFrom(ctx, files, log, newIncluder(readTimeout))
	if err != nil {
		return nil, err
	}
	p.log.set(a.Options.LogLevel, "")
	if err := protect(); err != nil {
		log.Warn("cannot protect the process, other processes of this user may trace it", "error", err)
	}
	gatherers, err := a.Gatherers()
	if err != nil {
		return nil, err
	}
	printer, err := p.newPointPrinter("influx")
	if err != nil {
		return nil, err
	}
	var inputs []*execdInput
	var names, read []string
	for _, f := range files {
		read = append(read, f.Name)
	}
	out := &sync.Mutex{}
	for _, g := range gatherers {
		names = append(names, "inputs."+g.Name())
		inputs = append(inputs, &execdInput{
			Gatherer: g, printer: printer, out: out, log: log, requests: make(chan struct{}, 1),
		})
	}
	if n := len(a.Push) + len(a.Pull); n > 0 {
		log.Info("ignoring the outputs of the configuration, points go to Telegraf", "outputs", n)
	}
	log.Info("gathering at each newline on standard input", "inputs", strings.Join(names, ","), "config", strings.Join(read, ","))
	return inputs, nil
}

// An execdInput is one input that gathers for Telegraf.
type execdInput struct {
	*agent.Gatherer
	printer  *pointPrinter
	out      *sync.Mutex // held while printer is used
	log      *slog.Logger
	requests chan struct{} // holds a token if a gather was requested; closed at the end of stdin
	partial  string        // what the last batch was missing
}

// serve gathers once for each request until the requests end, ctx is done or stdout
// fails. A gather in flight has until haltCtx ends.
func (in *execdInput) serve(ctx, haltCtx context.Context) {
	defer in.Close()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case _, open := <-in.requests:
			if !open {
				return
			}
		}
		if !in.gather(haltCtx) {
			return
		}
	}
}

// gather gathers once, and reports whether stdout still accepts points. A failed gather
// is logged each time, as Telegraf does with its own inputs.
func (in *execdInput) gather(ctx context.Context) bool {
	b, err := in.Gather(ctx)
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		in.log.Error("gather failed", "error", err)
		return true
	}
	if b.Partial != "" && b.Partial != in.partial {
		in.log.Warn("partial batch", "plugin", "inputs."+b.Source, "missing", b.Partial)
	}
	in.partial = b.Partial
	in.out.Lock()
	defer in.out.Unlock()
	err = in.printer.print(b.Time, slices.Concat(b.Points, b.Events))
	if in.printer.out.err != nil { // this error ends the program
		return false
	}
	if err != nil {
		in.log.Error("points dropped", "error", err)
	}
	return true
}

// requestEach requests a gather of each input at every newline, until the end of stdin.
// The rest of each line is ignored.
func requestEach(stdin io.Reader, inputs []*execdInput) {
	buffer := make([]byte, 4096)
	for {
		n, err := stdin.Read(buffer)
		if bytes.IndexByte(buffer[:n], '\n') >= 0 {
			for _, in := range inputs {
				select {
				case in.requests <- struct{}{}:
				default: // requested already
				}
			}
		}
		if err != nil {
			break
		}
	}
	for _, in := range inputs {
		close(in.requests)
	}
}
