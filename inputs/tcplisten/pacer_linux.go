package tcplisten

import (
	"sync"
	"time"
)

// A pacer asks for gathers: the first at once, the next ones no sooner than a pause later.
type pacer struct {
	changed func()
	pause   func() time.Duration

	mu      sync.Mutex
	last    time.Time
	waiting *time.Timer
}

func (p *pacer) ask() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting != nil {
		return
	}
	wait := p.pause() - time.Since(p.last)
	if wait <= 0 {
		p.last = time.Now()
		p.changed()
		return
	}
	p.waiting = time.AfterFunc(wait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.waiting, p.last = nil, time.Now()
		p.changed()
	})
}

// stop drops a gather that waits for its pause.
func (p *pacer) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting != nil {
		p.waiting.Stop()
	}
}
