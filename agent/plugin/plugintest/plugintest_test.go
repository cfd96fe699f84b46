package plugintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

type options struct {
	Address string `toml:"address"`
}

func (*options) Validate() error { return nil }

func defaults() options { return options{Address: "127.0.0.1:0"} }

type clock struct{}

func (clock) Gather(ctx context.Context) (metric.Batch, error) {
	now := time.Now()
	return metric.Batch{Time: now, Points: []metric.Point{{
		Name: "clock", Fields: []metric.Field{{Key: "unix_seconds", Value: metric.Int(now.Unix())}},
	}}}, ctx.Err()
}

func (clock) Watch(ctx context.Context, changed func()) {
	changed()
	<-ctx.Done()
}

func TestInput(t *testing.T) {
	p := plugin.DefineInput(plugin.Definition[options, plugin.Input]{
		Name: "clock", Defaults: defaults,
		Descs: []metric.Desc{{Name: "clock", Field: "unix_seconds", Type: metric.Gauge, Unit: "seconds", Help: "The time"}},
		New:   func(options, plugin.Env) (plugin.Input, error) { return clock{}, nil },
	})
	Input(t, p, p.Defaults())
}

// An openClock also knows more than it publishes, and what it cannot see.
type openClock struct {
	clock
	gathered *atomic.Bool
}

func (c openClock) Gather(ctx context.Context) (metric.Batch, error) {
	c.gathered.Store(true)
	return c.clock.Gather(ctx)
}

func (c openClock) Details(_ context.Context, p *metric.Point) ([]plugin.DetailSection, error) {
	if p.Name != "clock" || !c.gathered.Load() {
		return nil, nil
	}
	return []plugin.DetailSection{{Title: "Clock", Details: []plugin.Detail{{Name: "zone", Value: "UTC"}}}}, nil
}

func (c openClock) Limits() []string {
	if !c.gathered.Load() {
		return nil
	}
	return []string{"the clock is not synchronized: install chrony"}
}

func (openClock) RecallEvents() []metric.Point { return nil }

func TestInputWithAllAbilities(t *testing.T) {
	p := plugin.DefineInput(plugin.Definition[options, plugin.Input]{
		Name: "clock", Defaults: defaults,
		Descs: []metric.Desc{{Name: "clock", Field: "unix_seconds", Type: metric.Gauge, Unit: "seconds", Help: "The time"}},
		New:   func(options, plugin.Env) (plugin.Input, error) { return openClock{gathered: new(atomic.Bool)}, nil },
	})
	Input(t, p, p.Defaults())
}

type null struct{}

func (null) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	return append(dst, p.Series()...), nil
}
func (null) Push(ctx context.Context, _ [][]byte) error { return ctx.Err() }

// A full pusher implements all optional interfaces of a Pusher.
type full struct {
	closed bool
	descs  []metric.Desc
}

func (f *full) UseDescs(descs []metric.Desc) { f.descs = descs }

func (f *full) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	dst = fmt.Appendf(dst, "%d %s", p.Time.UnixNano(), p.Series())
	for _, d := range f.descs {
		if _, ok := p.Field(d.Field); ok && d.Name == p.Name {
			dst = fmt.Appendf(dst, " %v", d.Type)
		}
	}
	return dst, nil
}

func (f *full) EncodeEnded(dst []byte, series *metric.Point, t time.Time) ([]byte, error) {
	return fmt.Appendf(dst, "%d end %s", t.UnixNano(), series.Series()), nil
}

func (f *full) Push(ctx context.Context, _ [][]byte) error {
	if f.closed {
		return errors.New("closed")
	}
	return ctx.Err()
}

func (f *full) Restamp(dst, record []byte, t time.Time) ([]byte, error) {
	_, series, _ := bytes.Cut(record, []byte(" "))
	return append(fmt.Appendf(dst, "%d ", t.UnixNano()), series...), nil
}

func (f *full) MaxBytes() int                         { return 1 << 20 }
func (f *full) InheritFrom(predecessor plugin.Pusher) {}
func (f *full) Close() error                          { f.closed = true; return nil }

func TestPusher(t *testing.T) {
	p := plugin.DefinePush(plugin.Definition[options, plugin.Pusher]{
		Name: "null", Defaults: defaults,
		New: func(options, plugin.Env) (plugin.Pusher, error) { return null{}, nil },
	})
	Pusher(t, p, p.Defaults())
}

func TestPusherWithAllAbilities(t *testing.T) {
	p := plugin.DefinePush(plugin.Definition[options, plugin.Pusher]{
		Name: "full", Defaults: defaults,
		New: func(options, plugin.Env) (plugin.Pusher, error) { return &full{}, nil },
	})
	Pusher(t, p, p.Defaults())
}

type page struct {
	env  plugin.Env
	opts options
	srv  *http.Server
	err  chan error
}

func (p *page) Listen(ctx context.Context) error {
	l, err := p.env.Listen(ctx, "tcp", p.opts.Address)
	if err != nil {
		return err
	}
	p.srv = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })}
	p.err = make(chan error, 1)
	go func() { p.err <- p.srv.Serve(l) }()
	return nil
}

func (p *page) Serve(ctx context.Context, _ plugin.Board) error {
	<-ctx.Done()
	p.srv.Close()
	<-p.err
	return nil
}

func TestEndpoint(t *testing.T) {
	p := plugin.DefineEndpoint(plugin.Definition[options, plugin.Endpoint]{
		Name: "page", Defaults: defaults,
		New: func(o options, env plugin.Env) (plugin.Endpoint, error) { return &page{env: env, opts: o}, nil },
	})
	Endpoint(t, p, p.Defaults())
}
