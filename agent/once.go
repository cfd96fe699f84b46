package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"sockwatch/agent/calls"
	"sockwatch/agent/delivery"
	"sockwatch/agent/encode"
	"sockwatch/agent/health"
	"sockwatch/agent/metric"
)

// GatherOnce gathers every input once. It returns the batches as they would be
// published, ordered by source, and the joined errors of the inputs that failed.
func (a *Agent) GatherOnce(ctx context.Context) ([]*metric.Batch, error) {
	var mu sync.Mutex
	var batches []*metric.Batch
	var errs []error
	var wg sync.WaitGroup
	gatherers, err := a.Gatherers()
	if err != nil {
		return nil, err
	}
	for _, g := range gatherers {
		wg.Go(func() {
			defer g.Close()
			b, err := g.Gather(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
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

// Once gathers every input once and delivers the batches to every output that pushes,
// through queues in memory. It returns all errors, joined, in the order of the configuration.
func (a *Agent) Once(ctx context.Context) error {
	if len(a.Push) > 0 { // rejected points are saved there
		if err := makeStateDirectory(ctx, &calls.Pending{Log: a.Log}, a.Options.StateDirectory); err != nil {
			return err
		}
	}
	batches, err := a.GatherOnce(ctx)
	errs := []error{err}
	for _, b := range batches {
		if b.Partial != "" {
			a.Log.Warn("partial batch", "plugin", "inputs."+b.Source, "missing", b.Partial)
		}
	}
	receipts := make([]*delivery.Receipt, len(batches))
	for i, b := range batches {
		receipts[i] = delivery.NewReceipt(b.EventsStored)
	}
	results := make([]error, len(a.Push))
	var wg sync.WaitGroup
	for i, push := range a.Push {
		wg.Go(func() {
			if err := a.deliverOnce(ctx, push, batches, receipts); err != nil {
				results[i] = fmt.Errorf("outputs.%s: %w", push.Name, err)
			}
		})
	}
	wg.Wait()
	for _, r := range receipts {
		r.Release()
	}
	return errors.Join(append(errs, results...)...)
}

// deliverOnce delivers batches to an output and gives up at the first attempt that fails.
func (a *Agent) deliverOnce(ctx context.Context, push *Push, batches []*metric.Batch, receipts []*delivery.Receipt) error {
	o, err := newOutput(a, push, health.NewOutput(nil), &calls.Pending{Log: a.Log}, nil)
	if err != nil {
		return err
	}
	o.queue.OpenMemory()
	o.inbox = make(chan offered, len(batches))
	for i, b := range batches {
		o.inbox <- offered{encode.Entry{Batch: b}, o.offerEvents(b, receipts[i])}
	}
	close(o.inbox)
	o.fill()
	o.delivery.RunOnce(ctx)
	state := o.health.State(o.Name)
	switch left := o.queue.Stats().Records; {
	case left > 0 && state.Err != nil:
		return fmt.Errorf("%s not delivered: %w", points(left), state.Err)
	case left > 0:
		return fmt.Errorf("%s not delivered: %w", points(left), ctx.Err())
	case state.RejectedPoints > 0:
		return fmt.Errorf("%s rejected", points(state.RejectedPoints))
	case state.DroppedPoints > 0:
		return fmt.Errorf("%s dropped: buffer_limit is %v", points(state.DroppedPoints), o.Options.BufferLimit)
	}
	return nil
}

// points returns "1 point", or "2 points".
func points[N int | int64](n N) string {
	if n == 1 {
		return "1 point"
	}
	return fmt.Sprintf("%d points", n)
}
