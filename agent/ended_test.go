package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/buffer"
	"sockwatch/agent/encode"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// An endingPusher writes points as "SERIES FIELDS@SECONDS", and ended series as "end SERIES
// KEYS@SECONDS".
type endingPusher struct{ fakePusher }

func (e *endingPusher) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	return fmt.Appendf(dst, "%s %v@%d", p.Series(), p.Fields, p.Time.Unix()), nil
}

func (e *endingPusher) EncodeEnded(dst []byte, p *metric.Point, t time.Time) ([]byte, error) {
	var keys []string
	for _, f := range p.Fields {
		keys = append(keys, f.Key)
	}
	return fmt.Appendf(dst, "end %s %v@%s", p.Series(), keys, seconds(t)), nil
}

// seconds returns a time as "10" or "10.001".
func seconds(t time.Time) string {
	return strings.TrimSuffix(fmt.Sprintf("%d.%03d", t.Unix(), t.UnixMilli()%1000), ".000")
}

func wantRecords(t *testing.T, when string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
		t.Errorf("%s: records (-want +got):\n%s", when, diff)
	}
}

// A settableInput returns the points that a test has set, or fails.
type settableInput struct {
	mu     sync.Mutex
	points []metric.Point
	err    error
	hang   time.Duration // before it returns, whatever its context says
}

func (s *settableInput) Gather(context.Context) (metric.Batch, error) {
	s.mu.Lock()
	b, err, hang := metric.Batch{Time: time.Now(), Points: s.points}, s.err, s.hang
	s.mu.Unlock()
	time.Sleep(hang)
	return b, err
}

func (s *settableInput) set(err error, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.points = err, nil
	for _, name := range names {
		s.points = append(s.points, pointOf(name, 1))
	}
}

// taken returns the records that were stored since the last call, without times and values.
func (e *endingPusher) taken() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	got := []string{}
	for _, record := range e.stored {
		record, _, _ = strings.Cut(record, "@")
		record = strings.TrimSuffix(record, " [value]")
		got = append(got, strings.TrimSuffix(record, " [{value 1}]"))
	}
	e.stored = nil
	return got
}

// series returns the records of the series with that prefix.
func seriesWith(prefix string, records []string) []string {
	return slices.DeleteFunc(records, func(r string) bool { return !strings.Contains(r, prefix) })
}

// withPush adds an output without the agent's own points.
func (a *Agent) withPush(p plugin.Pusher) *Push {
	push := a.push("out", p)
	push.Plugin.MemoryOnly = false
	push.Options.NameDrop = []string{"sockwatch_*"}
	return push
}

func TestRestartShowsWhatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.Options.StateDirectory = t.TempDir()
		in, removed, p := &settableInput{}, &settableInput{}, &endingPusher{}
		in.set(nil, "a", "b", "c")
		removed.set(nil, "d")
		first := r.agent
		first.input("in", in)
		first.input("removed", removed)
		first.withPush(p)
		r.start()
		after(25 * time.Second)
		p.taken()
		in.set(nil, "a", "b")
		after(10 * time.Second)
		wantRecords(t, "before the stop", slices.Sorted(slices.Values(p.taken())), "a{}", "b{}", "d{}", "end c{}")
		r.end()
		after(4 * time.Minute)
		wantRecords(t, "a clean stop", p.taken())

		in.set(nil, "a")
		r.agent = r.sibling()
		r.agent.input("in", in)
		r.agent.withPush(p)
		r.start()
		after(time.Second)
		wantRecords(t, "the first batch", p.taken(), "end b{}", "end d{}", "a{}")
		r.end()
		after(6 * time.Minute)

		in.set(nil, "e")
		r.agent = r.sibling()
		r.agent.input("in", in)
		r.agent.withPush(p)
		r.start()
		after(time.Second)
		wantRecords(t, "after a long stop", p.taken(), "e{}")
		r.end()
	})
}

// An input that fails from the start on ends what the last run left. A damaged file ends
// nothing.
func TestSeriesOfTheLastRun(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(in *settableInput, file string) error
		want    []string
		log     string
	}{
		{name: "the input fails", want: []string{"end a{}"},
			prepare: func(in *settableInput, _ string) error { in.set(errors.New("no")); return nil }},
		{name: "the file is damaged", want: []string{"b{}"},
			prepare: func(in *settableInput, file string) error {
				return errors.Join(os.WriteFile(file, []byte("x"), 0o600), os.Chtimes(file, time.Now(), time.Now()))
			},
			log: "cannot read which series were live, those that have ended since keep their last value for about five minutes"},
		{name: "the file is a directory", want: []string{"b{}"},
			prepare: func(in *settableInput, file string) error {
				return errors.Join(os.Remove(file), os.MkdirAll(filepath.Join(file, "x"), 0o700))
			},
			log: "cannot save which series are live"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				in, p := &settableInput{}, &endingPusher{}
				in.set(nil, "a")
				r.agent.input("in", in)
				r.agent.withPush(p)
				r.start()
				after(time.Second)
				r.end()
				p.taken()
				in.set(nil, "b")
				if err := tt.prepare(in, filepath.Join(r.agent.Options.StateDirectory, "out.series.json")); err != nil {
					t.Fatal(err)
				}
				r.start()
				after(time.Second)
				wantRecords(t, "the first batch", p.taken(), tt.want...)
				if log := r.log.String(); !strings.Contains(log, tt.log) {
					t.Errorf("the log, without %q:\n%s", tt.log, log)
				}
				r.end()
			})
		})
	}
}

func TestReloadEndsWhatItRemoves(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(next *Agent, p *endingPusher) // next has an input "in" with the series a and b, and an output
		want   []string
	}{
		{name: "nothing changes", change: func(*Agent, *endingPusher) {}, want: []string{}},
		{name: "the input is removed", want: []string{"end a{}", "end b{}", "other{}"},
			change: func(next *Agent, _ *endingPusher) {
				next.Inputs = nil
				next.input("other", fakeInput(func(context.Context) (metric.Batch, error) { return batchOf(pointOf("other", 1)), nil }))
			}},
		{name: "the input is renamed", want: []string{"a{}", "b{}"},
			change: func(next *Agent, _ *endingPusher) { next.Inputs[0].Name = "renamed" }},
		{name: "the input and the output are replaced, the input is removed", want: []string{"end a{}", "end b{}", "other{}"},
			change: func(next *Agent, _ *endingPusher) {
				next.Inputs = nil
				next.input("other", fakeInput(func(context.Context) (metric.Batch, error) { return batchOf(pointOf("other", 1)), nil }))
				next.Push[0].Settings = &fakeSettings{Version: 2}
			}},
		{name: "the input filters", want: []string{"end a{}", "b{}"},
			change: func(next *Agent, _ *endingPusher) { next.Inputs[0].Options.NameDrop = []string{"a"} }},
		{name: "the input adds a tag", want: []string{"end a{}", "end b{}", `a{t="v"}`, `b{t="v"}`},
			change: func(next *Agent, _ *endingPusher) { next.Inputs[0].Options.Tags = map[string]string{"t": "v"} }},
		{name: "the output filters", want: []string{"end a{}", "b{}"},
			change: func(next *Agent, _ *endingPusher) { next.Push[0].Options.NameDrop = []string{"sockwatch_*", "a"} }},
		{name: "the output is replaced", want: []string{"a{}", "b{}"},
			change: func(next *Agent, _ *endingPusher) { next.Push[0].Settings = &fakeSettings{Version: 2} }},
		{name: "the queue moves to memory", want: []string{"end a{}", "b{}"},
			change: func(next *Agent, _ *endingPusher) {
				next.Push[0].Options.Buffer = "memory"
				next.Push[0].Options.NameDrop = []string{"sockwatch_*", "a"}
			}},
		{name: "min_interval does not hold back what has changed", want: []string{"end a{}", "b{}"},
			change: func(next *Agent, _ *endingPusher) {
				next.Push[0].Options.MinInterval = plugin.Duration(time.Minute)
				next.Inputs[0].Options.NameDrop = []string{"a"}
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				in, p := &settableInput{}, &endingPusher{}
				in.set(nil, "a", "b")
				configure := func() *Agent {
					a := r.sibling()
					a.input("in", in)
					a.withPush(p)
					return a
				}
				r.agent = configure()
				r.start()
				after(15 * time.Second)
				p.taken()
				next := configure()
				tt.change(next, p)
				r.reloadTo(next, nil)
				after(10 * time.Second) // a new instance gathers at once
				got := p.taken()
				switch tt.name {
				case "nothing changes": // the unchanged input goes on
					got = seriesWith("end", got)
				case "the input is renamed": // its first batch may come before the old one is withdrawn
					got = slices.Compact(slices.Sorted(slices.Values(seriesWith("{}", got))))
					got = slices.DeleteFunc(got, func(r string) bool { return strings.HasPrefix(r, "end") })
				case "the input is removed", "the input and the output are replaced, the input is removed":
					got = got[:min(len(tt.want), len(got))]
					slices.Sort(got) // the first batch of the other input may come before
				case "the output is replaced":
					got = got[:min(2, len(got))]
				default:
					got = got[:min(len(tt.want), len(got))]
				}
				wantRecords(t, "after the reload", got, tt.want...)
				p.taken()
				after(10 * time.Second)
				for _, record := range p.taken() {
					if strings.HasPrefix(record, "end ") {
						t.Errorf("%s in the batch after", record)
					}
				}
				r.end()
			})
		})
	}
}

// A gather that exceeds its timeout ends the series. Its late batch brings them back, with
// later times.
func TestLateBatchBringsItsSeriesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		in, p := &settableInput{}, &endingPusher{}
		in.set(nil, "a", "b")
		r.agent.input("in", in)
		r.agent.withPush(p).Options.MinInterval = plugin.Duration(time.Hour) // does not hold it back
		began := time.Now()
		r.start()
		after(time.Second)
		in.mu.Lock()
		in.hang = 15 * time.Second
		in.mu.Unlock()
		after(11 * time.Second) // the second gather, at 10 s, has 10 s
		p.mu.Lock()
		p.stored = nil
		p.mu.Unlock()
		in.mu.Lock()
		in.hang = 0
		in.mu.Unlock()
		after(15 * time.Second)
		p.mu.Lock()
		defer p.mu.Unlock()
		at := began.Truncate(10 * time.Second).Add(10 * time.Second)
		wantRecords(t, "late", p.stored[:min(4, len(p.stored))],
			"end a{} [value]@"+seconds(at), "end b{} [value]@"+seconds(at),
			fmt.Sprintf("a{} [{value 1}]@%d", at.Unix()), fmt.Sprintf("b{} [{value 1}]@%d", at.Unix()))
	})
}

// Once sends what it has gathered, and ends nothing: neither its own series nor those of a
// daemon that uses the same state directory.
func TestOnceEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.Options.StateDirectory = t.TempDir()
		in, p := &settableInput{}, &endingPusher{}
		in.set(nil, "a", "b")
		r.agent.input("in", in)
		r.agent.withPush(p)
		r.start()
		after(time.Second)
		r.end()
		p.taken()
		file := filepath.Join(r.agent.Options.StateDirectory, "out.series.json")
		before, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		in.set(nil, "b", "c")
		once := r.sibling()
		once.input("in", in)
		once.withPush(p).Options.MinInterval = plugin.Duration(time.Minute)
		if err := once.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantRecords(t, "once", p.taken(), "b{}", "c{}")
		if now, err := os.ReadFile(file); err != nil || !slices.Equal(now, before) {
			t.Errorf("once has changed %s: %v", file, err)
		}
	})
}

// While a disk hangs, the removal of an input is not lost: it waits behind the batches. A
// failure is offered again by the next gather that fails.
func TestRemovalWaitsForAQueueThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		q := &hangingQueue{Queue: buffer.NewMemory(1 << 20), appending: true, release: make(chan struct{})}
		p := &endingPusher{}
		o := newFilledOutput(t, r, q, p)
		in := &encode.Source{Name: "in", Round: true}
		for range inboxBatches + 10 {
			b := batchOf(pointOf("a", 1))
			b.Source = "in"
			o.offer(in, &b, nil)
			synctest.Wait()
			time.Sleep(10 * time.Second)
		}
		o.offerWithdrawal(in, time.Now(), false)
		if got := len(o.inbox); got != inboxBatches {
			t.Errorf("%d entries wait after a failure, want %d", got, inboxBatches)
		}
		o.offerWithdrawal(in, time.Now(), true)
		close(q.release)
		go o.leave(t.Context(), false)
		after(time.Minute)
		got := p.taken()
		if len(got) != inboxBatches+2 || got[len(got)-1] != "end a{}" {
			t.Errorf("%d records, the last are %q", len(got), got[max(0, len(got)-2):])
		}
	})
}

// A disk that is full for a while costs a batch, but not the end of what was missing from it.
func TestEndedSeriesWaitForADiskThatIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		q := &flakyQueue{Queue: buffer.NewMemory(1 << 20)}
		p := &endingPusher{}
		o := newFilledOutput(t, r, q, p)
		gathered := func(names ...string) {
			b := batchOf()
			b.Source = "in"
			for _, name := range names {
				b.Points = append(b.Points, pointOf(name, 1))
			}
			o.offer(&encode.Source{Name: "in", Round: true}, &b, nil)
			after(10 * time.Second)
		}
		gathered("a", "b")
		q.set(syscall.ENOSPC)
		gathered("a", "c")
		q.set(nil)
		gathered("a")
		go o.leave(t.Context(), false)
		after(time.Minute)
		wantRecords(t, "delivered", p.taken(), "a{}", "b{}", "end b{}", "a{}")
	})
}

// A batch of an input that a reload has replaced meanwhile ends no series: its successor has them.
func TestBatchOfAReplacedInputEndsNothing(t *testing.T) {
	for _, test := range []struct {
		name string
		hang time.Duration
	}{
		{name: "before the first batch of its successor", hang: 5 * time.Second},
		{name: "after it", hang: 25 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				old, in, p := &settableInput{}, &settableInput{}, &endingPusher{}
				old.set(nil, "a")
				in.set(nil, "a")
				r.agent.input("in", old).Options.Timeout = plugin.Duration(time.Minute)
				r.agent.withPush(p)
				r.start()
				after(time.Second)
				old.mu.Lock()
				old.hang = test.hang
				old.mu.Unlock()
				after(10 * time.Second)
				next := r.sibling()
				next.input("in", in).Options.Timeout = plugin.Duration(2 * time.Minute)
				next.withPush(p)
				r.reloadTo(next, nil)
				after(40 * time.Second)
				got := p.taken()
				wantRecords(t, "all", slices.Compact(got), "a{}")
				if len(got) < 4 {
					t.Errorf("%d samples", len(got))
				}
				r.end()
			})
		})
	}
}

// An input that a reload removes during a gather does not come back with its batch.
func TestBatchOfARemovedInputIsNotDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		in, p := &settableInput{}, &endingPusher{}
		in.set(nil, "a")
		r.agent.input("in", in)
		r.agent.withPush(p)
		r.start()
		after(time.Second)
		in.mu.Lock()
		in.hang = 5 * time.Second
		in.mu.Unlock()
		after(10 * time.Second)
		next := r.sibling()
		next.input("other", counting())
		next.withPush(p).Options.NameDrop = []string{"sockwatch_*", "count"}
		p.taken()
		r.reloadTo(next, nil)
		after(30 * time.Second)
		wantRecords(t, "after the removal", p.taken(), "end a{}")
		r.end()
	})
}
