package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/soak"
)

// A moodyPusher shares its store with others, and does everything that a destination may
// do.
type moodyPusher struct {
	common *moodyStore
}

type moodyStore struct {
	mu       sync.Mutex
	rng      *rand.Rand
	healthy  bool
	stored   map[string]bool
	last     int
	disorder int
	again    int
}

func (m moodyPusher) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	return (&fakePusher{}).Encode(dst, p)
}

// bad reports whether the destination rejects a record for ever.
func bad(record string) bool { return strings.HasSuffix(record, "7") }

func (m moodyPusher) Push(ctx context.Context, records [][]byte) error {
	s := m.common
	s.mu.Lock()
	mood, pause := s.rng.IntN(12), time.Duration(s.rng.IntN(3000))*time.Millisecond
	if s.healthy {
		mood, pause = 11, 0
	}
	s.mu.Unlock()
	switch mood {
	case 0:
		return errors.New("down")
	case 1:
		return &plugin.RetryAfterError{Wait: pause, Err: errors.New("busy")}
	case 2:
		if len(records) > 1 {
			return plugin.ErrTooLarge
		}
	case 3: // ignores ctx, and stores nothing
		time.Sleep(4 * pause)
		return errors.New("late")
	case 4: // ignores ctx, and stores all the same
		time.Sleep(4 * pause)
	case 5: // stored, though the answer is lost
		m.store(records)
		return errors.New("reset")
	case 6:
		<-ctx.Done()
		return ctx.Err()
	case 7:
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	case 8:
		panic("a fault of the plugin")
	}
	return m.store(records)
}

func (m moodyPusher) store(records [][]byte) error {
	s := m.common
	s.mu.Lock()
	defer s.mu.Unlock()
	rejected := 0
	for _, r := range records {
		if bad(string(r)) {
			rejected++
		}
	}
	if rejected > 0 && s.rng.IntN(2) == 0 {
		return plugin.ErrRejected // and nothing is stored
	}
	for _, r := range records {
		var n int
		if _, err := fmt.Sscanf(string(r), "count %d", &n); err != nil {
			panic(err)
		}
		switch {
		case bad(string(r)):
		case s.stored[string(r)]:
			s.again++
		default:
			if n < s.last {
				s.disorder++
			}
			s.stored[string(r)], s.last = true, n
		}
	}
	if rejected > 0 {
		return &plugin.RejectedError{OthersStored: true}
	}
	return nil
}

// Reloads, stops and starts at random, while the destination does whatever one may
// do: points queued on disk are delivered, or saved as dead-letter entries if rejected,
// in order.
func TestRandomReloadsAndStopsLoseNothing(t *testing.T) {
	for seed := range uint64(soak.Times(2)) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 5))
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				store := &moodyStore{rng: rand.New(rand.NewPCG(seed, 6)), stored: map[string]bool{}}
				var mu sync.Mutex
				n, gathered := int64(0), map[int64][]string{} // by the batch's time, in ms as the log has it
				in := fakeInput(func(context.Context) (metric.Batch, error) {
					mu.Lock()
					defer mu.Unlock()
					b := batchOf()
					at := b.Time.UnixMilli()
					for range 5 {
						n++
						b.Points = append(b.Points, pointOf("count", n, "n", fmt.Sprint(n)))
						gathered[at] = append(gathered[at], fmt.Sprint("count ", n))
					}
					return b, nil
				})
				configure := func() *Agent {
					a := r.sibling()
					a.input("a", in).Options.Interval = plugin.Duration(time.Second)
					if rng.IntN(5) > 0 {
						push := onDisk(a.push("out", moodyPusher{store}))
						push.Settings = &fakeSettings{Version: rng.IntN(3)}
						push.Options.FlushInterval = plugin.Duration(rng.IntN(3)) * plugin.Duration(time.Second)
						push.Options.Timeout = plugin.Duration(2 * time.Second)
					}
					return a
				}
				r.agent = configure()
				r.start()
				for range 60 {
					after(time.Duration(rng.IntN(5000)) * time.Millisecond)
					if rng.IntN(6) > 0 {
						r.reloadTo(configure(), nil)
						continue
					}
					if err := r.end(); err != nil {
						if _, deaf := errors.AsType[*HungError](err); !deaf {
							t.Fatal(err)
						}
					}
					after(20 * time.Second) // a Push of an ended process that ignored ctx has no effect any more
					r.agent = configure()
					r.start()
				}
				store.mu.Lock()
				store.healthy = true
				store.mu.Unlock()
				last := r.sibling()
				last.input("a", in).Options.Interval = plugin.Duration(time.Second)
				onDisk(last.push("out", moodyPusher{store})).Settings = &fakeSettings{Version: 9}
				r.reloadTo(last, nil)
				after(10 * time.Minute)
				r.end()

				dead := map[string]bool{}
				for _, l := range readDeadLetters(t, filepath.Join(r.agent.Options.StateDirectory, "out.rejected.jsonl")) {
					dead[l.Record] = true
				}
				queued, missing := 0, 0
				for line := range strings.Lines(r.log.String()) {
					_, line, ok := strings.Cut(line, `msg=queued plugin=outputs.out points=5 input=a batch_time=`)
					if !ok {
						continue
					}
					at, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(line))
					if err != nil {
						t.Fatal(err)
					}
					for _, record := range gathered[at.UnixMilli()] {
						if queued++; bad(record) && !dead[record] || !bad(record) && !store.stored[record] {
							missing++
							t.Logf("missing: %s", record)
						}
					}
				}
				t.Logf("%d points gathered, %d queued, %d missing, %d sent again, %d out of order", n, queued, missing, store.again, store.disorder)
				if queued == 0 || missing > 0 || store.disorder > 0 {
					t.Errorf("the log:\n%s", r.log)
				}
			})
		})
	}
}

// Reloads and stops at random, with a queue in memory or on disk, while the destination
// does whatever one may do: a confirmed event is stored or a dead-letter entry, and in the
// in the end every event of the last run is confirmed.
func TestRandomReloadsAndStopsConfirmWhatIsStored(t *testing.T) {
	for seed := range uint64(soak.Times(3)) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				rng, gathers := rand.New(rand.NewPCG(seed, 7)), rand.New(rand.NewPCG(seed, 9))
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				store := &moodyStore{rng: rand.New(rand.NewPCG(seed, 8)), stored: map[string]bool{}}
				var mu sync.Mutex
				n, runs := 0, 0
				confirmed := map[string]bool{}
				var last []string // events of the last run
				in := fakeInput(func(context.Context) (metric.Batch, error) {
					mu.Lock()
					defer mu.Unlock()
					b := batchOf(pointOf("other", 1))
					run, records := runs, []string(nil)
					for range gathers.IntN(4) {
						n++
						event := pointOf("count", int64(n), "n", fmt.Sprint(n))
						event.Time = b.Time
						b.Events = append(b.Events, event)
						records = append(records, fmt.Sprint("count ", n))
					}
					last = append(last, records...)
					b.EventsStored = func() {
						mu.Lock()
						defer mu.Unlock()
						for _, record := range records {
							if confirmed[record] {
								t.Errorf("%s is confirmed twice", record)
							}
							confirmed[record] = true
						}
						if run != runs {
							t.Errorf("%v are confirmed in run %d, gathered in run %d", records, runs, run)
						}
					}
					return b, nil
				})
				configure := func() *Agent {
					a := r.sibling()
					a.input("a", in).Options.Interval = plugin.Duration(time.Second)
					push := onDisk(a.push("out", moodyPusher{store}))
					if rng.IntN(3) > 0 {
						push.Options.Buffer = "memory"
					}
					push.Settings = &fakeSettings{Version: rng.IntN(3)}
					push.Options.FlushInterval = plugin.Duration(rng.IntN(3)) * plugin.Duration(time.Second)
					push.Options.Timeout = plugin.Duration(2 * time.Second)
					return a
				}
				r.agent = configure()
				r.start()
				for range 40 {
					after(time.Duration(rng.IntN(5000)) * time.Millisecond)
					if rng.IntN(6) > 0 {
						r.reloadTo(configure(), nil)
						continue
					}
					err := r.end()
					if _, deaf := errors.AsType[*HungError](err); err != nil && !deaf {
						t.Fatal(err)
					}
					after(20 * time.Second)
					mu.Lock()
					runs, last = runs+1, nil
					mu.Unlock()
					r.agent = configure()
					r.start()
				}
				store.mu.Lock()
				store.healthy = true
				store.mu.Unlock()
				after(time.Minute)
				end := r.sibling()
				end.input("a", in).Options.Interval = plugin.Duration(time.Hour)
				onDisk(end.push("out", moodyPusher{store})).Settings = &fakeSettings{Version: 9}
				r.reloadTo(end, nil)
				after(10 * time.Minute)

				dead := map[string]bool{}
				for _, l := range readDeadLetters(t, filepath.Join(r.agent.Options.StateDirectory, "out.rejected.jsonl")) {
					dead[l.Record] = true
				}
				mu.Lock()
				defer mu.Unlock()
				for record := range confirmed {
					if !dead[record] && !store.stored[record] {
						t.Errorf("%s is confirmed, and neither stored nor a dead letter", record)
					}
				}
				for _, record := range last {
					if !confirmed[record] {
						t.Errorf("%s of the last run is not confirmed", record)
					}
				}
				t.Logf("%d events, %d confirmed, %d runs", n, len(confirmed), runs+1)
				if len(confirmed) == 0 || t.Failed() {
					t.Logf("the log:\n%s", r.log)
				}
				mu.Unlock()
				r.end()
				mu.Lock()
			})
		})
	}
}
