package agent

import (
	"context"
	"sync"

	"sockwatch/agent/plugin"
)

// A watch runs the Watch method of an input, if it has one.
type watch struct {
	changed chan struct{} // holds a token if Watch asks for a gather
	once    sync.Once
	running sync.WaitGroup
}

// start starts Watch. Only the first call, after the first gather, has an effect. ctx is the
// context of the input.
func (w *watch) start(ctx context.Context, in *runningInput) {
	watcher, ok := in.Input.Input.(plugin.Watcher)
	if !ok || ctx.Err() != nil {
		return
	}
	w.once.Do(func() {
		w.running.Go(func() {
			defer in.calls.Begin(in.title() + ": Watch")()
			var err error // logged by Recover
			defer in.health.Panics.Recover(&err, in.log)
			watcher.Watch(ctx, func() {
				select {
				case w.changed <- struct{}{}:
				default: // it is requested already
				}
			})
		})
	})
}
