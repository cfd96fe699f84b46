package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"sockwatch/agent"
)

// A notifier sends states to the service manager (sd_notify(3)). It never blocks the
// caller, although the socket is full while the manager does not read.
type notifier struct {
	path string // $NOTIFY_SOCKET; "": no service manager
	log  *slog.Logger
	sent sync.WaitGroup
}

// notifyTimeout is how long the socket may be full before a warning.
const notifyTimeout = 5 * time.Second

// notify sends a state in the background. It retries until ctx is done.
func (n *notifier) notify(ctx context.Context, state string) {
	if n.path == "" {
		return
	}
	n.sent.Go(func() {
		warnedOnce := false
		for ctx.Err() == nil {
			err := n.send(ctx, state)
			if err == nil || ctx.Err() != nil {
				return
			}
			if !warnedOnce {
				n.log.Warn("cannot notify the service manager", "state", state, "socket", n.path, "error", err)
				warnedOnce = true
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
		}
	})
}

// keepalive returns the function that feeds the service manager's watchdog, if it has one:
// sd_watchdog_enabled(3).
func (n *notifier) keepalive(getenv func(string) (string, bool)) agent.Keepalive {
	text, _ := getenv("WATCHDOG_USEC")
	limit, err := strconv.ParseInt(text, 10, 64)
	pid, forOne := getenv("WATCHDOG_PID")
	if n.path == "" || err != nil || limit <= 0 || forOne && pid != strconv.Itoa(os.Getpid()) {
		return agent.Keepalive{}
	}
	warnedOnce := false
	return agent.Keepalive{Interval: time.Duration(limit) * time.Microsecond / 3, Report: func(ctx context.Context) {
		if err := n.send(ctx, "WATCHDOG=1"); err != nil && ctx.Err() == nil && !warnedOnce {
			n.log.Warn("cannot feed the watchdog of the service manager", "socket", n.path, "error", err)
			warnedOnce = true
		}
	}}
}

// send writes the state within notifyTimeout.
func (n *notifier) send(ctx context.Context, state string) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(notifyTimeout))
	stop := context.AfterFunc(ctx, func() { conn.SetWriteDeadline(time.Now()) })
	defer stop()
	_, err = conn.Write([]byte(state))
	return err
}

// wait waits for states being sent. Their ctx must be done.
func (n *notifier) wait() { n.sent.Wait() }
