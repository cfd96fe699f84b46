package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/encode"
	"sockwatch/agent/health"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/soak"
)

var fleetHosts = flag.Int("fleet.hosts", 300, "number of hosts in TestFleetNeverDoublesItsLoad")

// Many hosts gather and flush every 10 s, the default. All of them start at the same second
// and push to one server. Whatever happens to the server, its load is always less than twice
// the usual one, and no record is lost. The load is counted by seconds, but with fewer than
// 10,000 hosts over up to 10 s, because chance matters more (with min_interval, six times as
// long).
func TestFleetNeverDoublesItsLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("plays minutes of a fleet")
	}
	refused := func() error { return errors.New("connection refused") }
	busy := func() error { return &plugin.RetryAfterError{Wait: 30 * time.Second, Err: errors.New("busy")} }
	for _, tt := range []struct {
		name        string
		minInterval time.Duration
		fault       func() error
		length      time.Duration
		after       time.Duration // until every host has caught up
		soak        bool          // other cases notice most of what it notices
	}{
		{name: "restart of five seconds", fault: refused, length: 5 * time.Second, after: 3 * time.Minute},
		{name: "outage of ten minutes", fault: refused, length: 10 * time.Minute, after: 24 * time.Minute},
		{name: "outage of ten minutes with min_interval", minInterval: time.Minute, fault: refused, length: 10 * time.Minute, after: 28 * time.Minute, soak: true},
		{name: "Retry-After 30 s for ten minutes", fault: busy, length: 10 * time.Minute, after: 24 * time.Minute, soak: true},
		{name: "Retry-After with one date for all hosts", fault: untilDate(3 * time.Minute), length: 3 * time.Minute, after: 8 * time.Minute, soak: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.soak {
				soak.Only(t, "plays half an hour of a fleet")
			}
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := startFleet(t, *fleetHosts, tt.minInterval)
				defer f.stop()
				f.run(10*time.Second + 2*tt.minInterval)
				f.server.reset(nil)
				f.run(2*time.Minute + 2*tt.minInterval)
				usual := f.server.mean()
				if peak := f.server.peak(); !peak.below(1.5, usual) {
					t.Errorf("while all is well the load is %v at most, %v on average", peak, usual)
				}
				f.server.reset(tt.fault)
				f.run(tt.length)
				during := f.server.peak()
				f.server.reset(nil)
				f.run(tt.after)
				after := f.server.peak()
				t.Logf("usual load: %v; at most %v during the fault, %v after it", usual, during, after)
				if !during.below(2, usual) || !after.below(2, usual) {
					t.Error("the load has doubled")
				}
				if lag := f.lag(); lag > 2*f.period {
					t.Errorf("the records of a host are %v late in the end", lag)
				}
				f.run(10 * time.Second)
			})
		})
	}
}

// untilDate returns a fault that lasts for d and asks every host to come back at its end.
func untilDate(d time.Duration) func() error {
	var once sync.Once
	var end time.Time
	return func() error {
		once.Do(func() { end = time.Now().Add(d) })
		return &plugin.RetryAfterError{Wait: time.Until(end), Err: errors.New("maintenance")}
	}
}

// A load is what a server gets in a bin of time.
type load struct{ requests, records float64 }

func (l load) String() string {
	return fmt.Sprintf("%.1f requests and %.1f records", l.requests, l.records)
}

func (l load) below(factor float64, usual load) bool {
	return l.requests < factor*usual.requests && l.records < factor*usual.records
}

// A fleetServer counts what it gets.
type fleetServer struct {
	bin     time.Duration
	encoded atomic.Int64

	mu     sync.Mutex
	fault  func() error // nil: all is well
	began  time.Time    // of the first bin
	bins   []load
	stored int64
}

// reset starts to count again, under a fault if it is not nil.
func (s *fleetServer) reset(fault func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.began, s.bins = fault, time.Now(), nil
}

func (s *fleetServer) push(records int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := int(time.Since(s.began) / s.bin); i >= len(s.bins); {
		s.bins = append(s.bins, load{})
	}
	last := &s.bins[len(s.bins)-1]
	last.requests++
	if s.fault != nil {
		return s.fault()
	}
	last.records += float64(records)
	s.stored += int64(records)
	return nil
}

// peak returns the highest load of any bin, of requests and of records.
func (s *fleetServer) peak() (peak load) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.bins {
		peak = load{max(peak.requests, b.requests), max(peak.records, b.records)}
	}
	return peak
}

func (s *fleetServer) mean() (sum load) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.bins {
		sum = load{sum.requests + b.requests, sum.records + b.records}
	}
	n := float64(time.Since(s.began)) / float64(s.bin)
	return load{sum.requests / n, sum.records / n}
}

// A fleetPusher is the Pusher of one host.
type fleetPusher struct{ server *fleetServer }

func (p fleetPusher) Encode(dst []byte, _ *metric.Point) ([]byte, error) {
	p.server.encoded.Add(1)
	return append(dst, "record"...), nil
}

func (p fleetPusher) Push(_ context.Context, records [][]byte) error {
	return p.server.push(len(records))
}

// A fleet is the outputs of many hosts, with everything from the inbox to the Pusher.
type fleet struct {
	t       *testing.T
	server  *fleetServer
	period  time.Duration // of the requests of a host
	input   *encode.Source
	outputs []*runningOutput
	points  [][]metric.Point // of each host: 15 to 64
	tick    time.Time        // of the next gather
	cancel  context.CancelFunc
}

func startFleet(t *testing.T, hosts int, minInterval time.Duration) *fleet {
	f := &fleet{t: t, period: max(10*time.Second, minInterval), input: &encode.Source{Name: "in", Round: true}, tick: time.Now().Truncate(10 * time.Second)}
	f.input.Interval = 10 * time.Second
	f.server = &fleetServer{bin: min(f.period, max(f.period/10, 1000*f.period/time.Duration(hosts))), began: time.Now()}
	ctx, cancel := context.WithCancel(t.Context())
	f.cancel = cancel
	for i := range hosts {
		a := &Agent{Log: slog.New(slog.DiscardHandler), Options: DefaultOptions()}
		a.Options.Hostname = fmt.Sprintf("web-%05d.example.org", i)
		p := a.push("remote_write", fleetPusher{f.server})
		p.Options.FlushInterval, p.Options.MinInterval = plugin.Duration(10*time.Second), plugin.Duration(minInterval)
		o, err := newOutput(a, p, health.NewOutput(nil), &calls.Pending{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.openQueue(ctx, nil); err != nil {
			t.Fatal(err)
		}
		o.start(ctx, nil)
		f.outputs = append(f.outputs, o)
		f.points = append(f.points, make([]metric.Point, 15+i*7919%50))
	}
	return f
}

// run lets the hosts gather for d.
func (f *fleet) run(d time.Duration) {
	for end := time.Now().Add(d); ; f.tick = f.tick.Add(10 * time.Second) {
		if !f.tick.Before(end) {
			time.Sleep(time.Until(end))
			return
		}
		time.Sleep(time.Until(f.tick))
		for i, o := range f.outputs {
			o.offer(f.input, &metric.Batch{Source: f.input.Name, Time: time.Now(), Points: f.points[i]}, nil)
		}
	}
}

// lag returns how long the oldest record of any host has been queued.
func (f *fleet) lag() (lag time.Duration) {
	for _, o := range f.outputs {
		if s := o.queue.Stats(); s.Records > 0 {
			lag = max(lag, time.Since(s.Oldest))
		}
	}
	return lag
}

// stop stops the fleet, and checks that every record has arrived once.
func (f *fleet) stop() {
	for _, o := range f.outputs {
		o.leave(f.t.Context(), false)
	}
	f.cancel()
	if encoded := f.server.encoded.Load(); f.server.stored != encoded {
		f.t.Errorf("%d records encoded, %d stored", encoded, f.server.stored)
	}
}

// With min_interval the hosts of a fleet send different gathers of each minute.
func TestMinIntervalOfAFleetIsSpread(t *testing.T) {
	if testing.Short() {
		t.Skip("plays four minutes of 600 hosts")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := startFleet(t, 600, time.Minute)
		defer f.stop()
		f.server.bin = 10 * time.Second
		f.run(2 * time.Minute)
		f.server.reset(nil)
		f.run(2 * time.Minute)
		if peak, usual := f.server.peak(), f.server.mean(); !peak.below(1.3, usual) || usual.requests < 99 || usual.requests > 101 {
			t.Errorf("the load is %v at most, %v on average", peak, usual)
		}
	})
}
