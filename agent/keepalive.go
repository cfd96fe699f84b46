package agent

import (
	"context"
	"time"
)

// A Keepalive tells the service manager that the program is working.
type Keepalive struct {
	// Interval is the time between reports. 0 disables them.
	Interval time.Duration
	// Report is called once per interval, unless a gather is overdue. It must return soon
	// after its ctx ends, because Run waits for it.
	Report func(ctx context.Context)
}

// keepAlive reports until the returned function is called. It does not report while a gather
// is overdue by more than its timeout, because such a gather may hang forever, and only a
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

// overdue reports whether an in-flight gather is overdue by more than its timeout.
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
