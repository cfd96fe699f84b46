package main

import (
	"errors"
	"log/slog"
	"net"
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
	signal.Ignore(syscall.SIGPIPE) // the stdout output answers for a reader that has gone
	ctx, stop := untilSignal()
	defer stop()

	a, files, err := p.load(c.configFlags)
	if err != nil {
		return err
	}
	slog.SetDefault(a.Log) // what the standard library logs is of the same form
	if err := protect(); err != nil {
		a.Log.Warn("other processes of this user may trace this one", "error", err)
	}
	for _, f := range files {
		a.Log.Info("configuration read", "file", f.Name)
	}
	load := func() (*agent.Agent, error) { return p.reload(c.configFlags) }
	ready := func() {
		if err := p.notify("READY=1"); err != nil {
			a.Log.Warn("systemd is not told that sockwatch is ready", "error", err)
		}
	}
	err = a.Run(ctx, reload, load, ready)
	if _, hung := errors.AsType[*agent.HungError](err); hung {
		time.AfterFunc(time.Second, func() { os.Exit(exitFailed) }) // stderr may be what hangs
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

// notify tells systemd of a state, sd_notify(3), where it asked to be told.
func (p *program) notify(state string) error {
	path, _ := p.getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
