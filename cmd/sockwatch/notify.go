package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
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
