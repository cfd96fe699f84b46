package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/metric"
)

// GatherOnce gathers every input once and returns the batches as they would be
// published, ordered by source, with the joined errors of the inputs that failed.
func (a *Agent) GatherOnce(ctx context.Context) ([]*metric.Batch, error) {
	h := newHealth(a.Version)
	r := &run{health: h}
	var mu sync.Mutex
	var batches []*metric.Batch
	var errs []error
	var wg sync.WaitGroup
	for _, in := range a.Inputs {
		l, err := r.newInput(a, in)
		if err != nil {
			return nil, err
		}
		wg.Go(func() {
			b, err := l.gatherOnce(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("inputs.%s: %w", in.Name, err))
				return
			}
			batches = append(batches, b)
		})
	}
	wg.Wait()
	slices.SortFunc(batches, func(a, b *metric.Batch) int { return strings.Compare(a.Source, b.Source) })
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return batches, errors.Join(errs...)
}

func (in *liveInput) gatherOnce(ctx context.Context) (*metric.Batch, error) {
	defer closeIf(in.Input.Input, in.log)
	timeout := time.Duration(in.Options.Timeout)
	gctx, cancel := context.WithTimeout(ctx, timeout-timeout/10)
	defer cancel()
	type result struct {
		batch metric.Batch
		err   error
	}
	gathered := make(chan result, 1)
	go func() {
		b, err := in.callGather(gctx)
		gathered <- result{b, err}
	}()
	select {
	case g := <-gathered:
		if g.err != nil {
			return nil, g.err
		}
		return in.dress.batch(g.batch)
	case <-time.After(timeout):
		return nil, fmt.Errorf("not done after %v", timeout)
	}
}

// Once gathers every input once and delivers the batches to every push output
// through queues in memory. Its error joins whatever failed.
func (a *Agent) Once(ctx context.Context) error {
	if len(a.Push) > 0 { // which may have rejected points to keep
		if err := makeStateDirectory(ctx, a.Options.StateDirectory); err != nil {
			return err
		}
	}
	batches, err := a.GatherOnce(ctx)
	errs := []error{err}
	for _, b := range batches {
		if b.Partial != "" {
			a.Log.Warn("the scan is not whole", "plugin", "inputs."+b.Source, "missing", b.Partial)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, push := range a.Push {
		p, err := newPush(a, push, &outputHealth{})
		if err != nil {
			return err
		}
		wg.Go(func() {
			if err := p.deliverOnce(ctx, batches); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("outputs.%s: %w", push.Name, err))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// deliverOnce delivers batches and gives up at the first attempt that fails.
func (p *livePush) deliverOnce(ctx context.Context, batches []*metric.Batch) error {
	p.queue = buffer.NewMemory(int64(p.Options.BufferLimit))
	p.persistent = true // nothing is gained by trying until the end
	p.inbox = make(chan *metric.Batch, len(batches))
	for _, b := range batches {
		p.inbox <- b
	}
	close(p.inbox)
	p.push()
	p.deliver(ctx)
	switch left := p.queue.Stats().Records; {
	case left > 0 && p.downWith != nil:
		return fmt.Errorf("%d points not delivered: %w", left, p.downWith)
	case left > 0:
		return fmt.Errorf("%d points not delivered: %w", left, ctx.Err())
	case p.health.rejected.Load() > 0:
		return fmt.Errorf("%d points rejected", p.health.rejected.Load())
	case p.health.dropped.Load() > 0:
		return fmt.Errorf("%d points dropped: buffer_limit is %v", p.health.dropped.Load(), p.Options.BufferLimit)
	}
	return nil
}
