package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sockwatch/agent"
)

type runCommand struct{ configFlags }

// Run runs the agent until a signal ends it.
func (c *runCommand) Run(p *program) error {
	// First of all: an early SIGHUP must not end the program.
	reload, stopReload := onHangup()
	defer stopReload()
	ctx, stop := untilSignal()
	defer stop()
	signal.Ignore(syscall.SIGPIPE) // the stdout output reports a reader that is gone
	p.log.buffer()

	reader := p.reader(c.configFlags)
	a, files, err := p.load(ctx, reader)
	if err != nil {
		return notInterrupted(ctx, err)
	}
	slog.SetDefault(a.Log) // for messages of the standard library
	if err := protect(); err != nil {
		a.Log.Warn("cannot protect the process, other processes of this user may trace it", "error", err)
	}
	for _, f := range files {
		a.Log.Info("configuration read", "file", f.Name)
	}
	load := func() (*agent.Agent, error) {
		next, _, err := p.reload(ctx, reader)
		return next, err
	}
	path, _ := p.getenv("NOTIFY_SOCKET")
	manager := &notifier{path: path, log: a.Log}
	defer manager.wait()
	defer stop()
	a.Keepalive = manager.keepalive(p.getenv)
	err = a.Run(ctx, reload, load, func() { manager.notify(ctx, "READY=1") })
	if _, hung := errors.AsType[*agent.HungError](err); hung {
		time.AfterFunc(time.Second, func() { os.Exit(exitFailed) }) // stderr may hang, too
	}
	return err
}

// notInterrupted returns nil instead of an error caused by a signal to stop.
func notInterrupted(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// onHangup returns a channel that holds a token after a SIGHUP. A hundred signals in a
// row cause one or two reloads.
func onHangup() (<-chan struct{}, func()) {
	signals := make(chan os.Signal, 1)
	reload := make(chan struct{}, 1)
	done := make(chan struct{})
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		defer close(done)
		for range signals {
			select {
			case reload <- struct{}{}:
			default:
			}
		}
	}()
	return reload, func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}
