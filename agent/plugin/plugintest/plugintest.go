// Package plugintest holds the conformance tests for plugins. Each plugin has a test that
// calls Input, Pusher or Endpoint.
package plugintest

import (
	"context"
	"io"
	"log/slog"
	"math"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/schematest"
)

// callTimeout is how long a call may go on after its context is done. It is generous, so
// that a busy machine does not fail the test.
const callTimeout = 30 * time.Second

// Env returns the environment for a plugin under test, without a state directory or log.
func Env(p plugin.Plugin) plugin.Env {
	return plugin.Env{
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Hostname: "testhost", Name: p.Name,
		Listen: func(ctx context.Context, network, address string) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, network, address)
		},
	}
}

// Input tests an input. opts, a pointer to its options struct, must configure it so that
// it gathers at least one point on this machine.
func Input(t *testing.T, p plugin.Plugin, opts plugin.Options) {
	Options(t, p)
	Descs(t, p)
	t.Run("gather", func(t *testing.T) {
		in := open(t, p, p.NewInput, opts)
		first := gather(t, p, in)
		frozen := clone(first)
		gather(t, p, in)
		if diff := cmp.Diff(frozen, first, equalValues...); diff != "" {
			t.Errorf("the next gather changed a published batch (-before +after):\n%s", diff)
		}
	})
	t.Run("gather obeys its context", func(t *testing.T) {
		in := open(t, p, p.NewInput, opts)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		ends(t, "Gather", func() {
			b, err := in.Gather(ctx)
			if err == nil && b.Check() != nil {
				t.Errorf("Gather with a canceled context returned an invalid batch: %v", b.Check())
			}
		})
		gather(t, p, in) // it still works afterwards
	})
	if _, ok := open(t, p, p.NewInput, opts).(plugin.Watcher); ok {
		t.Run("watch", func(t *testing.T) {
			in := open(t, p, p.NewInput, opts)
			gather(t, p, in)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				in.(plugin.Watcher).Watch(ctx, func() {})
			}()
			gather(t, p, in) // concurrently
			cancel()
			ends(t, "Watch", func() { <-ended })
			gather(t, p, in)
		})
	}
	if _, ok := open(t, p, p.NewInput, opts).(plugin.Detailer); ok {
		t.Run("details", func(t *testing.T) { details(t, p, opts) })
	}
	if _, ok := open(t, p, p.NewInput, opts).(plugin.LimitReporter); ok {
		t.Run("limits", func(t *testing.T) { limits(t, p, opts) })
	}
	if _, ok := open(t, p, p.NewInput, opts).(plugin.EventRecaller); ok {
		t.Run("recall", func(t *testing.T) { recall(t, p, opts) })
	}
	if _, ok := open(t, p, p.NewInput, opts).(plugin.Inheritor); ok {
		t.Run("inherits", func(t *testing.T) {
			gathered := open(t, p, p.NewInput, opts)
			gather(t, p, gathered)
			for _, predecessor := range []plugin.Input{gathered, open(t, p, p.NewInput, opts), stranger{}} {
				if c, ok := predecessor.(io.Closer); ok {
					if err := c.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				}
				in := open(t, p, p.NewInput, opts)
				in.(plugin.Inheritor).InheritFrom(predecessor)
				gather(t, p, in)
			}
		})
	}
}

// details tests a Detailer: it answers for every point, concurrently with gathers, and not for
// points that do not exist.
func details(t *testing.T, p plugin.Plugin, opts plugin.Options) {
	in := open(t, p, p.NewInput, opts)
	d := in.(plugin.Detailer)
	before := metric.Point{Name: "not_gathered_yet"}
	if sections, err := d.Details(t.Context(), &before); sections != nil || err != nil {
		t.Errorf("before the first gather: %v, %v", sections, err)
	}
	b := gather(t, p, in)
	frozen := clone(b)
	asked := make(chan int)
	go func() {
		known := 0
		defer func() { asked <- known }()
		for i := range b.Points {
			sections, err := d.Details(t.Context(), &b.Points[i])
			if err != nil {
				t.Errorf("Details of %s: %v", b.Points[i].Series(), err)
			}
			if sections != nil {
				known++
			}
			for _, s := range sections {
				checkSection(t, &b.Points[i], s)
			}
		}
	}()
	gather(t, p, in) // concurrently
	var known int
	ends(t, "Details", func() { known = <-asked })
	if known == 0 {
		t.Error("Details knows nothing about any point")
	}
	if diff := cmp.Diff(frozen, b, equalValues...); diff != "" {
		t.Errorf("Details changed a published batch (-before +after):\n%s", diff)
	}
	for _, absent := range Points() {
		if sections, err := d.Details(t.Context(), &absent); sections != nil || err != nil {
			t.Errorf("Details of %s, which does not exist: %v, %v", absent.Series(), sections, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ends(t, "Details", func() { _, _ = d.Details(ctx, &b.Points[0]) })
	gather(t, p, in) // it still works afterwards
}

func checkSection(t *testing.T, p *metric.Point, s plugin.DetailSection) {
	if s.Title == "" || len(s.Details) == 0 {
		t.Errorf("Details of %s: section %q has %d details", p.Series(), s.Title, len(s.Details))
	}
	for _, d := range s.Details {
		if d.Name == "" || d.Value == "" || !utf8.ValidString(s.Title+d.Name+d.Value) {
			t.Errorf("Details of %s: %q: %q = %q", p.Series(), s.Title, d.Name, d.Value)
		}
	}
}

// recall tests an EventRecaller that remembers no events, because it has no state directory.
func recall(t *testing.T, p plugin.Plugin, opts plugin.Options) {
	in := open(t, p, p.NewInput, opts)
	gather(t, p, in)
	if events := in.(plugin.EventRecaller).RecallEvents(); len(events) > 0 {
		t.Errorf("%d events from before the start, without a state directory", len(events))
	}
}

// limits tests a LimitReporter.
func limits(t *testing.T, p plugin.Plugin, opts plugin.Options) {
	in := open(t, p, p.NewInput, opts)
	r := in.(plugin.LimitReporter)
	if got := r.Limits(); len(got) > 0 {
		t.Errorf("limits before the first gather: %q", got)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				r.Limits()
				time.Sleep(time.Millisecond)
			}
		}
	}()
	gather(t, p, in)
	gather(t, p, in)
	close(stop)
	ends(t, "Limits", func() { <-ended })
	for _, sentence := range r.Limits() {
		if sentence == "" || strings.Contains(sentence, "\n") || strings.HasSuffix(sentence, ".") {
			t.Errorf("limit %q: want one sentence without a final period", sentence)
		}
	}
}

// A stranger is an input of another kind.
type stranger struct{}

func (stranger) Gather(context.Context) (metric.Batch, error) { return metric.Batch{}, nil }

func gather(t *testing.T, p plugin.Plugin, in plugin.Input) metric.Batch {
	t.Helper()
	before := time.Now()
	b, err := in.Gather(t.Context())
	if err != nil {
		t.Fatalf("Gather: %v", err)
	}
	if err := b.Check(); err != nil {
		t.Errorf("Gather returned an invalid batch: %v", err)
	}
	if len(b.Points) == 0 {
		t.Error("Gather returned no points")
	}
	if b.Time.Before(before.Add(-time.Second)) || b.Time.After(time.Now()) {
		t.Errorf("the time of the batch is %v, but it was gathered after %v", b.Time, before)
	}
	schematest.Batch(t, &b)
	counterStarts(t, p, &b)
	tags := p.Tags
	if l, ok := in.(plugin.TagLister); ok {
		tags = slices.Concat(tags, l.ExtraTags())
	}
	for _, point := range append(append([]metric.Point{}, b.Points...), b.Events...) {
		for _, f := range point.Fields {
			if !documented(p, point.Name, f.Key) {
				t.Errorf("%s.%s has no Desc", point.Name, f.Key)
			}
		}
		for _, tag := range point.Tags {
			if p.Tags != nil && !slices.Contains(tags, tag.Key) {
				t.Errorf("%s has the tag %s, which neither Definition.Tags nor ExtraTags has", point.Name, tag.Key)
			}
		}
	}
	return b
}

func documented(p plugin.Plugin, name, field string) bool {
	for _, d := range p.Descs {
		if d.Name == name && d.Field == field {
			return true
		}
	}
	return false
}

// Pusher tests an output that pushes. opts must configure it for a destination of the
// test that accepts everything.
func Pusher(t *testing.T, p plugin.Plugin, opts plugin.Options) {
	Options(t, p)
	t.Run("encode", func(t *testing.T) { encode(t, open(t, p, p.NewPusher, opts).Encode) })
	if _, ok := open(t, p, p.NewPusher, opts).(plugin.EventEncoder); ok {
		t.Run("encode events", func(t *testing.T) { encode(t, open(t, p, p.NewPusher, opts).(plugin.EventEncoder).EncodeEvent) })
	}
	t.Run("push", func(t *testing.T) {
		out := open(t, p, p.NewPusher, opts)
		var records [][]byte
		for _, point := range Points() {
			if r, err := out.Encode(nil, &point); err == nil && len(r) > 0 {
				records = append(records, r)
			}
			if e, ok := out.(plugin.EventEncoder); ok {
				if r, err := e.EncodeEvent(nil, &point); err == nil && len(r) > 0 {
					records = append(records, r)
				}
			}
		}
		if len(records) == 0 {
			t.Fatal("Encode rejects every point")
		}
		for range 2 { // delivery is at least once, so perhaps twice
			if err := out.Push(t.Context(), records); err != nil {
				t.Errorf("Push: %v", err)
			}
		}
	})
	t.Run("push obeys its context", func(t *testing.T) {
		out := open(t, p, p.NewPusher, opts)
		good := Points()[0]
		record, err := out.Encode(nil, &good)
		if err != nil {
			t.Fatalf("Encode of a plain point: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		ends(t, "Push", func() { _ = out.Push(ctx, [][]byte{record}) })
	})
	if _, ok := open(t, p, p.NewPusher, opts).(plugin.Bounded); ok {
		t.Run("bound", func(t *testing.T) {
			if n := open(t, p, p.NewPusher, opts).(plugin.Bounded).MaxBytes(); n <= 0 {
				t.Errorf("MaxBytes() = %d", n)
			}
		})
	}
	if _, ok := open(t, p, p.NewPusher, opts).(plugin.Restamper); ok {
		t.Run("restamp", func(t *testing.T) { restamp(t, open(t, p, p.NewPusher, opts)) })
	}
	if _, ok := open(t, p, p.NewPusher, opts).(plugin.DescUser); ok {
		t.Run("descriptions", func(t *testing.T) { useDescs(t, open(t, p, p.NewPusher, opts)) })
	}
	if _, ok := open(t, p, p.NewPusher, opts).(plugin.EndedEncoder); ok {
		t.Run("ended series", func(t *testing.T) { endSeries(t, open(t, p, p.NewPusher, opts)) })
	}
	if _, ok := open(t, p, p.NewPusher, opts).(plugin.PushInheritor); ok {
		t.Run("inherits", func(t *testing.T) { pushInherit(t, p, opts) })
	}
}

// encode tests Encode or EncodeEvent.
func encode(t *testing.T, f func(dst []byte, p *metric.Point) ([]byte, error)) {
	for _, point := range Points() {
		before := clone(metric.Batch{Points: []metric.Point{point}})
		once, err := f([]byte("prefix"), &point)
		if err != nil {
			continue // it may refuse points that its format cannot represent
		}
		record, ok := strings.CutPrefix(string(once), "prefix")
		if !ok {
			t.Errorf("encoding %s does not append: %q", point.Series(), once)
		}
		if record == "" {
			continue // it may leave out points that its destination has no use for
		}
		schematest.Lines(t, strings.TrimSuffix(record, "\n")+"\n")
		again, err := f([]byte("prefix"), &point)
		if err != nil || string(again) != string(once) {
			t.Errorf("encoding %s gives %q, then %q, %v", point.Series(), once, again, err)
		}
		if diff := cmp.Diff(before, metric.Batch{Points: []metric.Point{point}}, equalValues...); diff != "" {
			t.Errorf("encoding changed its point:\n%s", diff)
		}
	}
}

// restamp compares a record with another time to what Encode makes of the point at that
// time.
func restamp(t *testing.T, out plugin.Pusher) {
	restamper := out.(plugin.Restamper)
	restamped := 0
	for _, point := range Points() {
		record, err := out.Encode(nil, &point)
		if err != nil || len(record) == 0 {
			continue
		}
		for _, at := range []time.Time{point.Time.Add(time.Minute), time.Unix(1795341600, 0), time.Unix(7, 1), time.Unix(-1, 0)} {
			before := slices.Clone(record)
			got, err := restamper.Restamp([]byte("prefix"), record, at)
			if !slices.Equal(before, record) {
				t.Fatalf("Restamp of %s changed its record", point.Series())
			}
			if err != nil {
				continue // then the agent encodes
			}
			restamped++
			later := point
			later.Time = at
			want, err := out.Encode([]byte("prefix"), &later)
			if err != nil {
				t.Errorf("Restamp of %s gives %q, but Encode refuses it: %v", point.Series(), got, err)
			} else if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("Restamp of %s at %v (-Encode +Restamp):\n%s", point.Series(), at, diff)
			}
		}
	}
	if restamped == 0 {
		t.Error("Restamp refuses every record")
	}
}

// pushInherit lets an instance take over from others: one that has pushed, one that has
// not, and one of another kind. The old ones are closed afterwards, as at a reload.
func pushInherit(t *testing.T, p plugin.Plugin, opts plugin.Options) {
	good := Points()[0]
	push := func(out plugin.Pusher) {
		t.Helper()
		record, err := out.Encode(nil, &good)
		if err != nil {
			t.Fatalf("Encode of a plain point: %v", err)
		}
		if err := out.Push(t.Context(), [][]byte{record}); err != nil {
			t.Errorf("Push: %v", err)
		}
	}
	pushed := build(t, p, p.NewPusher, opts)
	push(pushed)
	for _, predecessor := range []plugin.Pusher{pushed, build(t, p, p.NewPusher, opts), otherPusher{}} {
		out := open(t, p, p.NewPusher, opts)
		out.(plugin.PushInheritor).InheritFrom(predecessor)
		if c, ok := predecessor.(io.Closer); ok {
			if err := c.Close(); err != nil {
				t.Errorf("Close of the predecessor: %v", err)
			}
		}
		push(out)
		push(out)
	}
}

// An otherPusher is a pusher of another kind.
type otherPusher struct{}

func (otherPusher) Encode(dst []byte, _ *metric.Point) ([]byte, error) { return dst, nil }
func (otherPusher) Push(context.Context, [][]byte) error               { return nil }

// Endpoint tests an output that serves. opts must configure it to listen on free loopback
// addresses.
func Endpoint(t *testing.T, p plugin.Plugin, opts plugin.Options) {
	Options(t, p)
	t.Run("serve until done", func(t *testing.T) {
		for range 2 { // the second Listen needs the addresses to be free again
			e := open(t, p, p.NewEndpoint, opts)
			if err := e.Listen(t.Context()); err != nil {
				t.Fatalf("Listen: %v", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			ends(t, "Serve", func() {
				if err := e.Serve(ctx, emptyBoard{}); err != nil {
					t.Errorf("Serve: %v", err)
				}
			})
			cancel()
		}
	})
}

type emptyBoard struct{}

func (emptyBoard) Latest() []*metric.Batch                            { return nil }
func (emptyBoard) Refresh(ctx context.Context, _ time.Duration) error { return ctx.Err() }
func (emptyBoard) Sources() []plugin.SourceState                      { return nil }
func (emptyBoard) Events() []metric.Point                             { return nil }
func (emptyBoard) Health() plugin.Health                              { return plugin.Health{} }
func (emptyBoard) Changed() <-chan struct{}                           { return nil }

func (emptyBoard) Details(context.Context, string, *metric.Point) ([]plugin.DetailSection, error) {
	return nil, nil
}

var snakeCase = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// Options tests a plugin's options struct: plain tagged data, with new defaults each time
// and a valid example.
func Options(t *testing.T, p plugin.Plugin) {
	t.Run("options", func(t *testing.T) {
		if !snakeCase.MatchString(p.Name) {
			t.Errorf("plugin name %q is not in snake case", p.Name)
		}
		v := reflect.ValueOf(p.Defaults())
		if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
			t.Fatalf("Defaults() returns a %v, want a pointer to a struct", v.Type())
		}
		for _, f := range reflect.VisibleFields(v.Elem().Type()) {
			if f.Anonymous {
				continue // its fields are options
			}
			if tag := f.Tag.Get("toml"); f.IsExported() && !snakeCase.MatchString(tag) {
				t.Errorf("option %s has the toml tag %q", f.Name, tag)
			}
		}
		if a, b := p.Defaults(), p.Defaults(); a == b || !reflect.DeepEqual(a, b) {
			t.Error("Defaults() does not return new and equal options each time")
		}
		if err := p.Example().Validate(); err != nil {
			t.Errorf("the example is not valid: %v", err)
		}
	})
}

// Descs tests the documentation of a plugin's fields.
func Descs(t *testing.T, p plugin.Plugin) {
	t.Run("descs", func(t *testing.T) {
		seen := map[string]bool{}
		for _, d := range p.Descs {
			id := d.Name + "." + d.Field
			if seen[id] {
				t.Errorf("%s is documented twice", id)
			}
			seen[id] = true
			if d.Help == "" || strings.HasSuffix(d.Help, ".") {
				t.Errorf("%s has the help %q: want one sentence without a final period", id, d.Help)
			}
			if d.Type == metric.Counter && !strings.HasSuffix(d.Name+"_"+d.Field, "_total") {
				t.Errorf("%s is a counter: its name must end in _total", id)
			}
		}
	})
}

// Points returns points that inputs may publish: plain ones first, then hostile ones.
func Points() []metric.Point {
	now := time.Unix(1795341600, 123456789)
	one := []metric.Field{{Key: "value", Value: metric.Int(1)}}
	points := []metric.Point{
		{Name: "plain", Tags: metric.NewTags("a", "1"), Fields: one, Time: now},
		{Name: "kinds", Time: now, Fields: []metric.Field{
			{Key: "f", Value: metric.Float(1.5)}, {Key: "i", Value: metric.Int(math.MinInt64)},
			{Key: "u", Value: metric.Uint(math.MaxUint64)}, {Key: "b", Value: metric.Bool(true)},
			{Key: "s", Value: metric.String("text")},
		}},
		{Name: "no_numbers", Time: now, Fields: []metric.Field{{Key: "nan", Value: metric.Float(math.NaN())}, {Key: "inf", Value: metric.Float(math.Inf(1))}, {Key: "i", Value: metric.Int(1)}}},
		{Name: "counter", Fields: []metric.Field{{Key: "events_total", Value: metric.Uint(7)}}, Time: now, Start: now.Add(-time.Hour)},
		{Name: "only_nan", Time: now, Fields: []metric.Field{{Key: "nan", Value: metric.Float(math.NaN())}}},
		{Name: "before_1970", Fields: one, Time: time.Unix(-1, 0)},
		{Name: "far_future", Fields: one, Time: time.Unix(1<<40, 0)},
	}
	for _, hostile := range []string{
		"a\nb c=1 2", `ends in \`, `"quoted"`, "a,b=c d", "{}", "tab\there", "\x00", "\x1b[31m", "é世界\U0001f600", "=", ",", " ", "#", "\u2028", "</script>", strings.Repeat("x", 70000),
	} {
		points = append(points,
			metric.Point{Name: "hostile", Tags: metric.NewTags("t", hostile), Fields: one, Time: now},
			metric.Point{Name: "hostile", Fields: []metric.Field{{Key: "s", Value: metric.String(hostile)}}, Time: now},
			metric.Point{Name: hostile, Fields: one, Time: now},
			metric.Point{Name: "hostile", Tags: metric.NewTags(hostile, "v"), Fields: one, Time: now},
			metric.Point{Name: "hostile", Fields: []metric.Field{{Key: hostile, Value: metric.Int(1)}}, Time: now},
		)
	}
	return points
}

// build builds an instance.
func build[T any](t *testing.T, p plugin.Plugin, construct func(plugin.Options, plugin.Env) (T, error), opts plugin.Options) T {
	t.Helper()
	if err := opts.Validate(); err != nil {
		t.Fatalf("the test's options are not valid: %v", err)
	}
	v, err := construct(opts, Env(p))
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return v
}

// open builds an instance that is closed at the end of the test.
func open[T any](t *testing.T, p plugin.Plugin, construct func(plugin.Options, plugin.Env) (T, error), opts plugin.Options) T {
	t.Helper()
	v := build(t, p, construct, opts)
	if c, ok := any(v).(io.Closer); ok {
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	return v
}

// ends calls f, and fails the test if f does not return within callTimeout.
func ends(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(callTimeout):
		t.Fatalf("%s has not returned %v after its context was done", what, callTimeout)
	}
}

// clone returns a deep copy of a batch.
func clone(b metric.Batch) metric.Batch {
	for _, points := range []*[]metric.Point{&b.Points, &b.Events} {
		*points = append([]metric.Point(nil), *points...)
		for i := range *points {
			p := &(*points)[i]
			p.Tags = append([]metric.Tag(nil), p.Tags...)
			p.Fields = append([]metric.Field(nil), p.Fields...)
		}
	}
	return b
}

// equalValues compares values bit by bit, and treats empty and nil slices as equal.
var equalValues = []cmp.Option{
	cmp.Comparer(func(a, b metric.Value) bool { return a == b }),
	cmpopts.EquateEmpty(),
	cmpopts.IgnoreFields(metric.Batch{}, "EventsStored"),
}
