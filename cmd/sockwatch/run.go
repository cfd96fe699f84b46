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

// Run is the daemon.
func (c *runCommand) Run(p *program) error {
	// Before anything takes time: a SIGHUP that comes early must not end the
	// program.
	reload, stopReload := onHangup()
	defer stopReload()
	ctx, stop := untilSignal()
	defer stop()
	signal.Ignore(syscall.SIGPIPE) // the stdout output answers for a reader that has gone
	p.log.buffer()

	reader := p.reader(c.configFlags)
	a, files, err := p.load(ctx, reader)
	if err != nil {
		return notInterrupted(ctx, err)
	}
	slog.SetDefault(a.Log) // what the standard library logs is of the same form
	if err := protect(); err != nil {
		a.Log.Warn("other processes of this user may trace this one", "error", err)
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
		time.AfterFunc(time.Second, func() { os.Exit(exitFailed) }) // stderr may be what hangs
	}
	return err
}

// notInterrupted returns nil in place of an error that comes of a signal to stop.
func notInterrupted(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// onHangup returns a channel that holds a token after a SIGHUP: a hundred of them
// in a row are one reload, or two.
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
