package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A fakeInput gathers by calling itself.
type fakeInput func(ctx context.Context) (metric.Batch, error)

func (f fakeInput) Gather(ctx context.Context) (metric.Batch, error) { return f(ctx) }

// counting returns an input whose batches hold one point with the number of the
// gather.
func counting() fakeInput {
	n := int64(0)
	return func(context.Context) (metric.Batch, error) {
		n++
		return batchOf(pointOf("count", n)), nil
	}
}

func batchOf(points ...metric.Point) metric.Batch {
	return metric.Batch{Time: time.Now(), Points: points}
}

func pointOf(name string, value int64, tags ...string) metric.Point {
	return metric.Point{Name: name, Tags: metric.NewTags(tags...), Fields: []metric.Field{{Key: "value", Value: metric.Int(value)}}}
}

// A fakePusher keeps the records that push accepts. Its records are
// "NAME VALUE" of points.
type fakePusher struct {
	push func(ctx context.Context, records []string) error // nil: all are stored

	mu     sync.Mutex
	stored []string

	pushes atomic.Int64
}

func (f *fakePusher) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	v, _ := p.Field("value")
	if v.AsInt() < 0 {
		return nil, errors.New("negative")
	}
	return fmt.Appendf(dst, "%s %v", p.Name, v), nil
}

func (f *fakePusher) Push(ctx context.Context, records [][]byte) error {
	var texts []string
	for _, r := range records {
		texts = append(texts, string(r))
	}
	f.pushes.Add(1)
	if f.push != nil {
		if err := f.push(ctx, texts); err != nil {
			return err
		}
	}
	f.store(texts)
	return nil
}

func (f *fakePusher) store(records []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stored = append(f.stored, records...)
}

// got returns the stored points with that name.
func (f *fakePusher) got(name string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var got []string
	for _, s := range f.stored {
		if strings.HasPrefix(s, name+" ") {
			got = append(got, s)
		}
	}
	return got
}

// A switchedPusher is a destination that is down until it is switched on.
type switchedPusher struct {
	fakePusher
	mu  sync.Mutex
	err error // of Push
}

func newSwitchedPusher(err error) *switchedPusher {
	p := &switchedPusher{err: err}
	p.push = func(context.Context, []string) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.err
	}
	return p
}

func (p *switchedPusher) set(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// A fakeEndpoint gives tests access to its board.
type fakeEndpoint struct {
	listen func() error
	board  chan plugin.Board
}

func newFakeEndpoint() *fakeEndpoint { return &fakeEndpoint{board: make(chan plugin.Board, 1)} }

func (f *fakeEndpoint) Listen(context.Context) error {
	if f.listen != nil {
		return f.listen()
	}
	return nil
}

func (f *fakeEndpoint) Serve(ctx context.Context, board plugin.Board) error {
	f.board <- board
	<-ctx.Done()
	return nil
}

// fakeSettings are options that may be equal for two instances.
type fakeSettings struct{ Version int }

func (*fakeSettings) Validate() error { return nil }

// A logBuffer is a log that tests can search.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// notes are what plugins have noted, in order.
type notes struct {
	mu   sync.Mutex
	list []string
}

func (n *notes) add(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, s)
}

func (n *notes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.list)
}

// A rig is an agent under test, in a synctest bubble.
type rig struct {
	t      *testing.T
	log    *logBuffer
	agent  *Agent
	reload chan struct{}
	mu     sync.Mutex
	next   *Agent
	err    error // of next
	stop   context.CancelFunc
	ended  chan error
	ready  atomic.Bool
}

func newRig(t *testing.T) *rig {
	log := &logBuffer{}
	o := DefaultOptions()
	return &rig{t: t, log: log, reload: make(chan struct{}), ended: make(chan error, 1), agent: &Agent{
		Options: o, Version: "test",
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}}
}

func (a *Agent) input(name string, in plugin.Input) *Input {
	i := &Input{Name: name, Input: in, RoundInterval: true, Settings: &fakeSettings{}, Options: InputOptions{
		Interval: a.Options.Interval, Timeout: a.Options.Interval,
	}}
	a.Inputs = append(a.Inputs, i)
	return i
}

func (a *Agent) push(name string, p plugin.Pusher) *Push {
	push := &Push{Name: name, Pusher: p, Settings: &fakeSettings{}, Plugin: plugin.Plugin{Name: name, MemoryOnly: true}}
	push.Options = DefaultPushOptions(push.Plugin)
	a.Push = append(a.Push, push)
	return push
}

func (a *Agent) pull(name string, e plugin.Endpoint) *Pull {
	pull := &Pull{Name: name, Endpoint: e, Settings: &fakeSettings{}}
	a.Pull = append(a.Pull, pull)
	return pull
}

// start runs the agent; the end of the test waits for it.
func (r *rig) start() {
	ctx, cancel := context.WithCancel(r.t.Context())
	r.stop = cancel
	load := func() (*Agent, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.next, r.err
	}
	go func() { r.ended <- r.agent.Run(ctx, r.reload, load, func() { r.ready.Store(true) }) }()
	synctest.Wait()
}

// end stops the agent and returns what Run returned.
func (r *rig) end() error {
	r.stop()
	return <-r.ended
}

// reloadTo makes the agent adopt next, or fail with err.
func (r *rig) reloadTo(next *Agent, err error) {
	r.mu.Lock()
	r.next, r.err = next, err
	r.mu.Unlock()
	r.reload <- struct{}{}
	synctest.Wait()
}

// after advances the fake time and waits until everything that is due has happened.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// value returns a field of the one point on a board with these tags (key, value, ...).
func value(t *testing.T, b plugin.Board, name, field string, tags ...string) metric.Value {
	t.Helper()
	want := metric.NewTags(tags...)
	for _, batch := range b.Latest() {
		for _, p := range batch.Points {
			if p.Name == name && slices.Equal(p.Tags, want) {
				if v, ok := p.Field(field); ok {
					return v
				}
			}
		}
	}
	t.Fatalf("no %s %v with field %s on the board", name, tags, field)
	return metric.Value{}
}

// names returns the names of the points on a board.
func names(b plugin.Board) []string {
	var all []string
	for _, batch := range b.Latest() {
		for _, p := range batch.Points {
			all = append(all, p.Name)
		}
	}
	return all
}
