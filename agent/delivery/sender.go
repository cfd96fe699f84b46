package delivery

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/health"
	"sockwatch/agent/plugin"
)

// A sender calls the Pusher of one output.
type sender struct {
	name    string // for the watchdog's message
	pusher  plugin.Pusher
	timeout time.Duration // of one Push
	overdue func()        // called when a Push has not returned pushGrace after its timeout
	health  *health.Output
	calls   *calls.Pending
	log     *slog.Logger
}

// pushGrace is how long after its timeout a Push may take to return.
const pushGrace = time.Second

// push sends records. If the destination names records that it rejects and stores none
// of the others, push sends the others again. It returns the reasons of the rejected
// records by index.
func (s *sender) push(ctx context.Context, records [][]byte) (rejected map[int]error, err error) {
	rejected = map[int]error{}
	rest, index := records, []int(nil) // records to send next, and their indexes; nil: all
	for {
		err := s.callPush(ctx, rest)
		named, ok := errors.AsType[*plugin.RejectedError](err)
		if !ok {
			return rejected, err
		}
		var others [][]byte
		var othersIndex []int
		for i, r := range rest {
			at := i
			if index != nil {
				at = index[i]
			}
			if reason := named.Records[i]; reason != nil {
				rejected[at] = reason
			} else {
				others, othersIndex = append(others, r), append(othersIndex, at)
			}
		}
		switch {
		case len(others) == len(rest): // none is named
			return rejected, err
		case len(others) == 0 || named.OthersStored:
			return rejected, nil
		}
		rest, index = others, othersIndex
	}
}

func (s *sender) callPush(ctx context.Context, records [][]byte) (err error) {
	defer s.calls.Begin(s.name + ": Push")()
	noted := make(chan struct{})
	overdue := time.AfterFunc(s.timeout+pushGrace, func() {
		defer close(noted)
		s.overdue()
	})
	defer func() {
		if !overdue.Stop() {
			<-noted
		}
	}()
	defer s.health.Panics.Recover(&err, s.log)
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.pusher.Push(ctx, records)
}

func (s *sender) close() {
	defer s.calls.Begin(s.name + ": Close")()
	calls.Close(s.pusher, s.log)
}
