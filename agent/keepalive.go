package agent

import (
	"context"
	"time"
)

// A Keepalive reports to the service manager that the program works.
type Keepalive struct {
	// Interval is the time between two reports; 0: none.
	Interval time.Duration
	// Report is called once in each interval in which every input gathers. It returns
	// soon after its ctx ends, which the end of Run waits for.
	Report func(ctx context.Context)
}

// keepAlive reports until the function that it returns is called. It does not report while
// a gather is overdue by more than its timeout: such a gather may hang for ever, and only a
// restart helps.
func (s *supervisor) keepAlive(k Keepalive) (end func()) {
	if k.Interval <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(k.Interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if !s.overdue() {
					k.Report(ctx)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// overdue reports whether a gather in flight is overdue by more than its timeout.
func (s *supervisor) overdue() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, in := range s.running.inputs {
		if g := in.current(); g != nil && time.Since(g.began) > 2*time.Duration(in.Options.Timeout) {
			return true
		}
	}
	return false
}
