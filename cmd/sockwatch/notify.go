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

// A notifier tells the service manager of states, sd_notify(3), without ever holding
// up the caller: its socket may be full for as long as the manager does not read.
type notifier struct {
	path string // $NOTIFY_SOCKET; "": nobody asks
	log  *slog.Logger
	sent sync.WaitGroup
}

// notifyTimeout is how long a full socket is normal.
const notifyTimeout = 5 * time.Second

// notify sends a state in the background: it tries until ctx is done.
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
				n.log.Warn("service manager not notified", "state", state, "socket", n.path, "error", err)
				warnedOnce = true
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
		}
	})
}

// keepalive returns what feeds the watchdog of the service manager, if there is one:
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
			n.log.Warn("watchdog of the service manager not fed", "socket", n.path, "error", err)
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

// wait waits for what is being sent; its ctx has ended.
func (n *notifier) wait() { n.sent.Wait() }
