package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/soak"
)

// A seriesStore is a database of time series, as far as their life is concerned. It ignores
// a sample or an end that is not later than the last one of its series.
type seriesStore struct {
	t      *testing.T
	mu     sync.Mutex
	rng    *rand.Rand
	down   bool
	exact  bool            // every record arrives: a series that ends was known before
	seen   map[string]bool // records, since delivery is at least once
	series map[string]*storedSeries
	ends   int
}

// A storedSeries is one field of a point.
type storedSeries struct {
	last   time.Time // of a sample or an end
	sample time.Time
	ended  bool
}

// A seriesPusher sends records "sample MILLISECONDS SERIES FIELD..." and "end ..." to a
// store.
type seriesPusher struct{ store *seriesStore }

func (s seriesPusher) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	if v, _ := p.Field("v"); v.AsInt() == 13 {
		return dst, errors.New("unlucky")
	}
	return s.append(dst, "sample", p, p.Time), nil
}

func (s seriesPusher) EncodeEnded(dst []byte, p *metric.Point, t time.Time) ([]byte, error) {
	return s.append(dst, "end", p, t), nil
}

func (s seriesPusher) append(dst []byte, kind string, p *metric.Point, t time.Time) []byte {
	dst = fmt.Appendf(dst, "%s %d %s", kind, t.UnixMilli(), p.Series())
	for _, f := range p.Fields {
		dst = fmt.Appendf(dst, " %s", f.Key)
	}
	return dst
}

func (s seriesPusher) Restamp(dst, record []byte, t time.Time) ([]byte, error) {
	parts := strings.SplitN(string(record), " ", 3)
	return fmt.Appendf(dst, "sample %d %s", t.UnixMilli(), parts[2]), nil
}

func (s seriesPusher) Push(_ context.Context, records [][]byte) error {
	d := s.store
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down || d.rng.IntN(5) == 0 {
		return errors.New("down")
	}
	for _, record := range records {
		d.lockedApply(string(record))
	}
	if d.rng.IntN(10) == 0 {
		return errors.New("the answer is lost")
	}
	return nil
}

func (d *seriesStore) lockedApply(record string) {
	if d.seen[record] {
		return
	}
	d.seen[record] = true
	parts := strings.Fields(record)
	var ms int64
	fmt.Sscan(parts[1], &ms)
	at, end := time.UnixMilli(ms), parts[0] == "end"
	for _, field := range parts[3:] {
		name := parts[2] + " " + field
		s := d.series[name]
		if s == nil {
			if end && d.exact {
				d.t.Errorf("%s: %s is not known", record, field)
			}
			s = &storedSeries{ended: true}
			d.series[name] = s
		}
		if !at.After(s.last) {
			twice := !end && !s.ended && at.Equal(s.last) // by two gathers at the same fake time
			if !twice && !strings.Contains(parts[2], "shared.") {
				d.t.Errorf("%s: %s already has something at %d", record, field, s.last.UnixMilli())
			}
			continue
		}
		s.last, s.ended = at, end
		if end {
			d.ends++
		} else {
			s.sample = at
		}
	}
}

// living returns the series that the store shows: not ended, and with a sample since a time.
func (d *seriesStore) living(since time.Time) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for name, s := range d.series {
		if !s.ended && s.sample.After(since) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// A changingHost has some inputs whose points change at random.
type changingHost struct {
	mu     sync.Mutex
	rng    *rand.Rand
	inputs []*changingInput
}

type changingInput struct {
	host    *changingHost
	index   int
	renamed int // changes its name in the configuration
	removed bool
	prefix  string // of the points' names
	dropped string // by the filter of the input
	points  []metric.Point
	failing bool
	hanging time.Duration
}

func (in *changingInput) name() string { return fmt.Sprintf("in%d_%d", in.index, in.renamed) }

func (in *changingInput) Gather(context.Context) (metric.Batch, error) {
	h := in.host
	h.mu.Lock()
	b := metric.Batch{Time: time.Now(), Points: in.points}
	failing, hanging := in.failing, in.hanging
	h.mu.Unlock()
	time.Sleep(hanging)
	if failing {
		return metric.Batch{}, errors.New("failing")
	}
	return b, nil
}

// change changes the points of an input: some of them appear, disappear, move, or have other
// fields and values.
func (in *changingInput) change(rng *rand.Rand) {
	points := slices.Clone(in.points)
	for range 1 + rng.IntN(6) {
		name := fmt.Sprintf("%d.%d", in.index, rng.IntN(20))
		if rng.IntN(6) == 0 {
			name = fmt.Sprintf("shared.%d", rng.IntN(4))
		}
		at := slices.IndexFunc(points, func(p metric.Point) bool { return p.Name == name })
		if at >= 0 {
			points = slices.Delete(points, at, at+1)
		}
		if at >= 0 && rng.IntN(2) == 0 {
			continue
		}
		p := metric.Point{Name: name}
		for _, key := range []string{"v", "w", "x"} {
			if key == "v" || rng.IntN(2) == 0 {
				p.Fields = append(p.Fields, metric.Field{Key: key, Value: metric.Int(rng.Int64N(40))})
			}
		}
		points = slices.Insert(points, rng.IntN(len(points)+1), p)
	}
	if rng.IntN(8) == 0 {
		points = nil
	}
	in.points = points
}

// living returns the series that an output with a filter should have.
func (h *changingHost) living(dropped string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[string]bool{}
	for _, in := range h.inputs {
		if in.removed || in.failing {
			continue
		}
		for _, p := range in.points {
			v, _ := p.Field("v")
			if p.Name == in.dropped || v.AsInt() == 13 {
				continue
			}
			p.Name = in.prefix + p.Name
			if p.Name == dropped {
				continue
			}
			for _, f := range p.Fields {
				all[p.Series()+" "+f.Key] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Histories of batches, failures, late batches, reloads, stops, crashes and outages: what a
// database shows at the end is what the inputs have. Only what a crash, a long stop or an
// outage has lost may be shown for longer, until nobody looks back at it any more.
func TestRandomHistoriesEndWhatHasEnded(t *testing.T) {
	for seed := range uint64(soak.Times(2)) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { randomHistory(t, seed) })
		})
	}
}

func randomHistory(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	r := newRig(t)
	r.agent.Options.StateDirectory = t.TempDir()
	crashes := seed%2 == 1
	store := &seriesStore{
		t: t, rng: rand.New(rand.NewPCG(seed, 2)), exact: !crashes, seen: map[string]bool{}, series: map[string]*storedSeries{},
	}
	host := &changingHost{rng: rng}
	for i := range 3 {
		in := &changingInput{host: host, index: i}
		in.change(rng)
		host.inputs = append(host.inputs, in)
	}
	dropped, version, memory := "", 0, crashes && seed%4 == 1
	page := newFakeEndpoint()
	var board plugin.Board
	configure := func() *Agent {
		a := &Agent{Options: r.agent.Options, Log: r.agent.Log, Version: "test"}
		for _, in := range host.inputs {
			if in.removed {
				continue
			}
			o := &a.input(in.name(), in).Options
			o.NamePrefix = in.prefix
			if in.dropped != "" {
				o.NameDrop = []string{in.dropped}
			}
		}
		a.pull("page", page)
		push := a.withPush(seriesPusher{store})
		push.Settings = &fakeSettings{Version: version}
		push.Options.MinInterval = plugin.Duration(version%2) * plugin.Duration(20*time.Second)
		push.Options.BufferLimit = 256 << 10
		if memory {
			push.Options.Buffer = "memory"
		}
		if dropped != "" {
			push.Options.NameDrop = append(push.Options.NameDrop, dropped)
		}
		return a
	}
	locked := func(do func(in *changingInput)) {
		host.mu.Lock()
		defer host.mu.Unlock()
		do(host.inputs[rng.IntN(len(host.inputs))])
	}
	var lost time.Time // until then something may have been lost
	start := func() {
		r.agent = configure()
		r.start()
		board = <-page.board
	}
	start()
	checks := 0
	for step := range 120 {
		var what string
		switch rng.IntN(16) {
		default:
			what = "points change"
			locked(func(in *changingInput) { in.change(rng) })
		case 0:
			what = "an input fails or recovers"
			locked(func(in *changingInput) { in.failing = !in.failing })
		case 1:
			what = "a gather is late"
			locked(func(in *changingInput) { in.hanging = time.Duration(rng.IntN(20)) * time.Second })
			after(15 * time.Second)
			locked(func(in *changingInput) {
				for _, in := range host.inputs {
					in.hanging = 0
				}
			})
		case 2, 3:
			what = "reload"
			locked(func(in *changingInput) {
				switch rng.IntN(7) {
				case 0:
					in.removed = !in.removed
				case 1:
					in.renamed++
				case 2:
					in.prefix = []string{"", "a.", "b."}[rng.IntN(3)]
				case 3:
					in.dropped = fmt.Sprintf("%d.%d", in.index, rng.IntN(20))
				case 4:
					version++
				case 5:
					dropped = fmt.Sprintf("%d.%d", in.index, rng.IntN(20))
				case 6:
					memory = false // the records move to the disk
				}
			})
			next := configure()
			r.reloadTo(next, nil)
		case 4:
			what = "stop and start"
			if memory { // what is not delivered is lost
				lost = time.Now()
			}
			if err := r.end(); err != nil {
				t.Fatal(err)
			}
			after(time.Duration(rng.IntN(200)) * time.Second)
			if memory {
				lost = time.Now()
			}
			start()
		case 5:
			if !crashes {
				continue
			}
			what = "crash"
			store.mu.Lock()
			store.down = true
			store.mu.Unlock()
			crashed := t.TempDir()
			if err := os.CopyFS(crashed, os.DirFS(r.agent.Options.StateDirectory)); err != nil {
				t.Fatal(err)
			}
			copyTimes(t, r.agent.Options.StateDirectory, crashed)
			r.end()
			r.agent.Options.StateDirectory = crashed
			after(time.Duration(rng.IntN(400)) * time.Second)
			store.mu.Lock()
			store.down = false
			store.mu.Unlock()
			lost = time.Now()
			start()
		case 6:
			what = "outage"
			store.mu.Lock()
			store.down = true
			store.mu.Unlock()
			after(time.Duration(rng.IntN(60)) * time.Second)
			if crashes && rng.IntN(3) == 0 {
				after(time.Hour) // the queue overflows
				lost = time.Now()
			}
			store.mu.Lock()
			store.down = false
			store.mu.Unlock()
		}
		if t.Failed() {
			t.Errorf("step %d: %s", step, what)
			break
		}
		after(time.Duration(rng.IntN(25)) * time.Second)
		if rng.IntN(4) > 0 {
			continue
		}
		after(4 * time.Minute) // nothing changes
		queued := func() int64 { return value(t, board, "sockwatch_output", "queue_points", "output", "out").AsInt() }
		for end := time.Now().Add(6 * time.Hour); queued() > 0; after(time.Second) { // a backlog takes up to maxCatchUp, and each failure delays it
			if time.Now().After(end) {
				t.Fatalf("step %d: %s: %d points are still queued\nlog:\n%s", step, what, queued(), r.log)
			}
		}
		checks++
		got, want := store.living(time.Now().Add(-5*time.Minute)), host.living(dropped)
		missing := slices.DeleteFunc(slices.Clone(want), func(s string) bool { return slices.Contains(got, s) })
		more := slices.DeleteFunc(got, func(s string) bool {
			return slices.Contains(want, s) || !store.series[s].sample.After(lost)
		})
		if len(missing) > 0 || len(more) > 0 {
			t.Errorf("step %d: %s: missing %q, not ended %q\nlog:\n%s", step, what, missing, more, r.log)
			break
		}
	}
	if !t.Failed() && (checks < 5 || store.ends < 5) {
		t.Errorf("%d checks, %d ended series", checks, store.ends)
	}
	r.end()
}

// copyTimes gives the copies of files the times of the originals.
func copyTimes(t *testing.T, from, to string) {
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil {
			err = os.Chtimes(filepath.Join(to, e.Name()), info.ModTime(), info.ModTime())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
