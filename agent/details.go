package agent

import (
	"context"
	"errors"
	"slices"
	"sync"

	"sockwatch/agent/calls"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// Details asks the input of a source about one of its points, as this endpoint sees it: without
// the details whose names are those of tags and fields that its filter removes.
func (v *view) Details(ctx context.Context, source string, p *metric.Point) ([]plugin.DetailSection, error) {
	in, published := v.supervisor.published(source)
	if in == nil {
		return nil, nil
	}
	before := original(published, p, func(p metric.Point) (metric.Point, bool) {
		if !v.filter.Select(p.Name, p.Tags) {
			return p, false
		}
		return v.filter.Modify(p)
	})
	if before == nil {
		return nil, nil
	}
	sections, err := in.askDetails(ctx, before)
	if !v.filter.Modifies() {
		return sections, err
	}
	kept := make([]plugin.DetailSection, 0, len(sections)) // the input may keep its own
	for _, s := range sections {
		s.Details = slices.DeleteFunc(slices.Clone(s.Details), func(d plugin.Detail) bool { return v.filter.Hides(d.Name, before) })
		kept = append(kept, s)
	}
	return kept, err
}

// published returns the running input of a source and the points that it published last. The
// input is nil if there is none, or if it is not a Detailer.
func (s *supervisor) published(source string) (*runningInput, []metric.Point) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	in := s.running.inputs[source]
	if in == nil {
		return nil, nil
	}
	if _, ok := in.Input.Input.(plugin.Detailer); !ok {
		return nil, nil
	}
	for _, b := range s.board.all() {
		if b.Source == source {
			return in, b.Points
		}
	}
	return nil, nil
}

// original returns the point that change turns into p, or nil if there is none. If options
// exclude the tags that distinguish several points, it is the one that also has the fields of
// p, or else the first.
func original(points []metric.Point, p *metric.Point, change func(metric.Point) (metric.Point, bool)) (found *metric.Point) {
	for i := range points {
		changed, ok := change(points[i])
		if !ok || changed.Name != p.Name || !slices.Equal(changed.Tags, p.Tags) {
			continue
		}
		if slices.Equal(changed.Fields, p.Fields) {
			return &points[i]
		}
		if found == nil {
			found = &points[i]
		}
	}
	return found
}

// original returns the point of the input that the transform turns into p, or nil.
func (t *transform) original(p *metric.Point) *metric.Point {
	t.mu.Lock()
	raw := t.raw // immutable
	t.mu.Unlock()
	return original(raw, p, func(p metric.Point) (metric.Point, bool) {
		if changed := t.points([]metric.Point{p}); len(changed) == 1 {
			return changed[0], true
		}
		return p, false
	})
}

// askDetails asks the input about a point that it has published. It waits until ctx is done or
// the input stops, even if the plugin hangs.
func (in *runningInput) askDetails(ctx context.Context, p *metric.Point) ([]plugin.DetailSection, error) {
	raw := in.transform.original(p)
	if raw == nil {
		return nil, nil
	}
	ctx, end, err := in.requests.begin(ctx)
	if err != nil {
		return nil, err
	}
	type answer struct {
		sections []plugin.DetailSection
		err      error
	}
	answers := make(chan answer, 1)
	go func() {
		defer end()
		sections, err := in.callDetails(ctx, raw)
		answers <- answer{sections, err}
	}()
	select {
	case a := <-answers:
		return a.sections, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// callDetails calls Details.
func (in *runningInput) callDetails(ctx context.Context, p *metric.Point) (sections []plugin.DetailSection, err error) {
	defer in.calls.Begin(in.title() + ": Details")()
	defer in.health.Panics.Recover(&err, in.log)
	return in.Input.Input.(plugin.Detailer).Details(ctx, p)
}

// requests are calls into an input that do not come from its own goroutine. An input is closed
// after the last of them has returned.
type requests struct {
	mu      sync.Mutex
	stopped chan struct{} // closed when the input stops
	running sync.WaitGroup
}

var errInputStops = errors.New("the input is stopping")

// begin returns a context that ends when ctx does or the input stops. It returns an error if the
// input has stopped already. Otherwise the caller must call end.
func (r *requests) begin(ctx context.Context) (during context.Context, end func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if calls.IsClosed(r.stopped) {
		return nil, nil, errInputStops
	}
	during, cancel := context.WithCancelCause(ctx)
	r.running.Add(1)
	go func() {
		select {
		case <-r.stopped:
			cancel(errInputStops)
		case <-during.Done():
		}
	}()
	return during, func() {
		cancel(nil)
		r.running.Done()
	}, nil
}

// stop ends all requests and waits for them.
func (r *requests) stop() {
	r.mu.Lock()
	close(r.stopped)
	r.mu.Unlock()
	r.running.Wait()
}
