package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

func TestOutageIsRiddenOutInOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("plays six hours of an outage")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		out, page := newSwitchedPusher(errors.New("connection refused")), newFakeEndpoint()
		r.agent.input("a", counting())
		r.agent.push("out", out).Options.NamePass = []string{"count"}
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		after(6 * time.Hour)
		if value(t, board, "sockwatch_output", "up", "output", "out").AsBool() {
			t.Error("up while every attempt fails")
		}
		if got, _ := value(t, board, "sockwatch_output", "oldest_queued_seconds", "output", "out").Number(); got < 21500 {
			t.Errorf("oldest_queued_seconds = %v after six hours", got)
		}
		// One attempt each 30 s on average in the long run: full jitter of up to twice that.
		if out.pushes.Load() < 250 || out.pushes.Load() > 1500 {
			t.Errorf("%d attempts in six hours", out.pushes.Load())
		}
		out.set(nil)
		after(2 * time.Minute)
		got := out.got("count")
		if len(got) < 2160 {
			t.Fatalf("%d points delivered, want all of the six hours", len(got))
		}
		for i, s := range got {
			if s != fmt.Sprint("count ", i+1) {
				t.Fatalf("point %d is %q", i+1, s)
			}
		}
		if n := strings.Count(r.log.String(), "connection refused"); n != 1 {
			t.Errorf("the outage was logged %d times", n)
		}
		r.end()
	})
}

// A black hole for a day: points queued on disk take no memory, and arrive
// afterwards in order, many blocks in one Push.
func TestBlackHoleForADayInFlatMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("plays a day")
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.Options.StateDirectory = t.TempDir()
		const points = 200
		var n atomic.Int64
		r.agent.input("a", fakeInput(func(context.Context) (metric.Batch, error) {
			b := batchOf()
			for range points {
				i := n.Add(1)
				b.Points = append(b.Points, pointOf("count", i, "n", fmt.Sprint(i)))
			}
			return b, nil
		})).Options.Interval = plugin.Duration(time.Minute)
		var last, disorder int64
		pushes := 0
		var up atomic.Bool
		out := pushFunc(func(ctx context.Context, records [][]byte) error {
			if !up.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			pushes++
			for _, r := range records {
				var id int64
				if _, err := fmt.Sscanf(string(r), "count %d", &id); err != nil || id != last+1 {
					disorder++
				}
				last = id
			}
			return nil
		})
		onDisk(r.agent.push("out", out)).Options.Timeout = plugin.Duration(10 * time.Minute)
		r.start()
		after(time.Hour)
		begin := heap()
		after(23 * time.Hour)
		end := heap()
		t.Logf("%d points queued; %d KiB of heap after an hour, %d KiB after a day", n.Load(), begin>>10, end>>10)
		if end > begin+512<<10 {
			t.Errorf("the heap grew from %d to %d bytes", begin, end)
		}
		up.Store(true)
		after(15 * time.Minute)
		r.end()
		if last != n.Load() || disorder > 0 {
			t.Errorf("%d points gathered, the last delivered is %d, %d out of order", n.Load(), last, disorder)
		}
		if pushes > 100 {
			t.Errorf("%d pushes for some thousand blocks", pushes)
		}
	})
}

// A pushFunc is a Pusher without state. Its records are as long as lines
// of line protocol are.
type pushFunc func(ctx context.Context, records [][]byte) error

func (f pushFunc) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	v, _ := p.Field("value")
	return fmt.Appendf(dst, "%s %-250v", p.Name, v), nil
}

func (f pushFunc) Push(ctx context.Context, records [][]byte) error { return f(ctx, records) }

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestRetryAfterIsHonouredUpToTenMinutes(t *testing.T) {
	for _, tt := range []struct{ asked, atLeast, atMost time.Duration }{
		{90 * time.Second, 90 * time.Second, 90 * time.Second},
		{24 * time.Hour, 10 * time.Minute, 10 * time.Minute},
		{0, 1, 2 * time.Second}, // no time: the agent's own backoff, with full jitter
		{-time.Second, 1, 2 * time.Second},
	} {
		t.Run(tt.asked.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				began := time.Now()
				var second time.Duration
				out := &fakePusher{}
				n := 0
				out.push = func(context.Context, []string) error {
					switch n++; n {
					case 1:
						return &plugin.RetryAfterError{Wait: tt.asked, Err: errors.New("busy")}
					case 2:
						second = time.Since(began)
					}
					return nil
				}
				r.agent.input("a", counting())
				r.agent.push("out", out)
				r.start()
				after(25 * time.Minute)
				r.end()
				if second < tt.atLeast || second > tt.atMost {
					t.Errorf("tried again after %v, want %v to %v", second, tt.atLeast, tt.atMost)
				}
			})
		})
	}
}

// While one of two destinations is down for an hour, the other one gets every record at once.
func TestADestinationThatFailsDoesNotDelayTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var seen atomic.Int64
		out := &fakePusher{push: func(_ context.Context, records []string) error {
			seen.Store(int64(len(records)))
			return &plugin.ProgressError{Err: errors.New("connection refused")}
		}}
		r.agent.input("a", counting())
		p := r.agent.push("out", out)
		p.Options.FlushInterval, p.Options.NamePass = plugin.Duration(10*time.Second), []string{"count"}
		r.start()
		after(time.Hour)
		if n := seen.Load(); n < 350 {
			t.Errorf("the last of an hour's requests has %d of 360 records", n)
		}
		r.stop()
		r.end()
	})
}

// A stop, or the removal of the output, does not wait for a slow backlog: all of it is sent
// within the grace period.
func TestStopSendsTheWholeBacklog(t *testing.T) {
	t.Parallel()
	for _, disk := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.agent.Options.StateDirectory = t.TempDir()
			out := newSwitchedPusher(errors.New("connection refused"))
			r.agent.input("a", counting())
			p := r.agent.push("out", out)
			p.Options.FlushInterval = plugin.Duration(10 * time.Second)
			if disk {
				onDisk(p)
			}
			r.start()
			after(time.Hour)
			out.set(nil)
			after(2 * time.Minute)
			if n := len(out.got("count")); n == 0 || n > 150 {
				t.Errorf("%d points of an hour are delivered two minutes after the outage", n)
			}
			began := time.Now()
			if err := r.end(); err != nil {
				t.Error(err)
			}
			if n := len(out.got("count")); n < 372 {
				t.Errorf("%d points are delivered, want all of 62 minutes", n)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("the stop took %v", took)
			}
		})
	}
}
