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

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/buffer"
	"sockwatch/agent/calls"
	"sockwatch/agent/health"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

func TestOutageIsRiddenOutInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var down atomic.Bool
		down.Store(true)
		out, page := &fakePusher{}, newFakeEndpoint()
		out.push = func(context.Context, []string) error {
			if down.Load() {
				return errors.New("connection refused")
			}
			return nil
		}
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
		down.Store(false)
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

// An outage in which every attempt has a different error is logged when it begins,
// once a minute, and when it ends; the next one at once.
func TestOutageOfManyErrorsIsLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		o, err := newOutput(r.agent, (&Agent{}).push("out", &fakePusher{}), health.NewOutput(nil), &calls.Pending{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		o.queue.Queue = buffer.NewMemory(1 << 20)
		p := &o.delivery.outage
		var want []string
		fail := func(n int, logged bool) {
			err := fmt.Errorf("reset by peer, from port %d", n)
			p.failed(err, 0)
			if logged {
				want = append(want, err.Error())
			}
		}
		for n := range 100 {
			fail(n, n%6 == 0)
			time.Sleep(10 * time.Second)
		}
		p.ended()
		fail(100, true)
		fail(101, false)
		p.ended()
		var got []string
		for line := range strings.Lines(r.log.String()) {
			if _, rest, ok := strings.Cut(line, `error="`); ok {
				got = append(got, rest[:strings.Index(rest, `"`)])
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("logged (-want +got):\n%s", diff)
		}
		if n := strings.Count(r.log.String(), "delivery resumed"); n != 2 {
			t.Errorf("%d recoveries are logged, want 2", n)
		}
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

// A server that asks every host of a fleet to come back at the same time gets them spread
// over two periods of their flushes.
func TestHostsComeBackAtRandomAfterRetryAfter(t *testing.T) {
	var bins [10]int // of two seconds
	for range 1000 {
		wait := newRetry(10 * time.Second).wait(&plugin.RetryAfterError{Wait: 30 * time.Second, Err: errors.New("busy")})
		if wait < 30*time.Second || wait >= 50*time.Second {
			t.Fatalf("a host comes back after %v", wait)
		}
		bins[(wait-30*time.Second)/(2*time.Second)]++
	}
	for i, n := range bins {
		if n < 40 || n > 160 { // on average 100, standard deviation 9.5
			t.Errorf("%d of 1000 hosts come back in bin %d", n, i)
		}
	}
}

// The first retry comes after a random time up to twice the period, later ones after up to
// a minute, or twice the period if that is longer.
func TestRetriesAreAtRandomUpToTwiceThePeriod(t *testing.T) {
	for _, tt := range []struct {
		period time.Duration
		limits []time.Duration
	}{
		{period: 0, limits: []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute}},
		{period: 10 * time.Second, limits: []time.Duration{20 * time.Second, 40 * time.Second, time.Minute, time.Minute}},
		{period: time.Minute, limits: []time.Duration{2 * time.Minute, 2 * time.Minute}},
	} {
		longest := make([]time.Duration, len(tt.limits))
		for range 1000 {
			r := newRetry(tt.period)
			for i := range longest {
				longest[i] = max(longest[i], r.wait(errors.New("connection refused")))
			}
		}
		for i, limit := range tt.limits {
			if longest[i] > limit+time.Nanosecond || longest[i] < limit*9/10 {
				t.Errorf("period %v: retry %d comes after at most %v, want %v", tt.period, i+1, longest[i], limit)
			}
		}
	}
}
