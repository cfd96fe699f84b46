package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/buffer"
	"sockwatch/agent/calls"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// onDisk makes an output queue on disk; it accepts only points "count N".
func onDisk(p *Push) *Push {
	p.Options.Buffer = "disk"
	p.Options.NamePass = []string{"count"}
	return p
}

func counts(from, to int) []string {
	var want []string
	for i := from; i <= to; i++ {
		want = append(want, fmt.Sprint("count ", i))
	}
	return want
}

// A Push that does not return, and ignores its context, loses the queue to the output that
// replaces it: its result no longer counts.
func TestPushThatDoesNotReturnLosesItsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.Options.StateDirectory = t.TempDir()
		release := make(chan struct{})
		deaf := &fakePusher{push: func(context.Context, []string) error { <-release; return nil }}
		in := counting()
		r.agent.input("a", in)
		onDisk(r.agent.push("out", deaf))
		r.start()
		after(5 * time.Second)

		successor := newSwitchedPusher(errDown)
		next := r.sibling()
		next.input("a", in)
		onDisk(next.push("out", successor)).Settings = &fakeSettings{Version: 2}
		r.reloadTo(next, nil)
		after(10 * time.Second)
		if want := "delivery abandoned, it has not ended"; !strings.Contains(r.log.String(), want) {
			t.Errorf("want %q in the log:\n%s", want, r.log)
		}
		close(release)
		after(10 * time.Second)
		successor.set(nil)
		after(time.Minute)
		if got := successor.got("count"); len(got) < 8 || cmp.Diff(counts(1, len(got)), got) != "" {
			t.Errorf("the successor delivered %v", got)
		}
		r.end()
	})
}

// A Push that was abandoned says nothing about the output that replaced its own.
func TestAbandonedPushIsNotThatOfItsSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		release := make(chan struct{})
		deaf := &fakePusher{push: func(context.Context, []string) error { <-release; return nil }}
		in, page := counting(), newFakeEndpoint()
		r.agent.input("a", in)
		r.agent.push("out", deaf).Options.Timeout = plugin.Duration(20 * time.Second)
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		after(5 * time.Second)
		next := r.sibling()
		next.input("a", in)
		next.push("out", &fakePusher{}).Settings = &fakeSettings{Version: 2}
		next.Push[0].Options.FlushInterval = plugin.Duration(time.Hour)
		next.Pull = r.agent.Pull
		r.reloadTo(next, nil)
		after(time.Minute)
		if o := board.Health().Outputs[0]; o.Name != "out" || o.Err != nil {
			t.Errorf("the state of %s is %v", o.Name, o.Err)
		}
		if log := r.log.String(); strings.Contains(log, "delivery failed") {
			t.Errorf("the log says that the delivery failed:\n%s", log)
		}
		close(release)
		r.end()
	})
}

// A reload lets the Push in flight finish: its records are not sent again.
func TestReloadWhileSendingLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.Options.StateDirectory = t.TempDir()
		slow := &fakePusher{push: func(ctx context.Context, _ []string) error {
			select {
			case <-time.After(900 * time.Millisecond):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		in := counting()
		r.agent.input("a", in).Options.Interval = plugin.Duration(200 * time.Millisecond)
		onDisk(r.agent.push("out", slow))
		r.start()
		after(time.Second)
		next, out := r.sibling(), &fakePusher{}
		next.input("a", in).Options.Interval = plugin.Duration(200 * time.Millisecond)
		onDisk(next.push("out", out)).Settings = &fakeSettings{Version: 2}
		r.reloadTo(next, nil)
		after(10 * time.Second)
		r.end()
		got := append(slow.got("count"), out.got("count")...)
		if diff := cmp.Diff(counts(1, len(got)), got); diff != "" || len(out.got("count")) == 0 {
			t.Errorf("delivered, then by the successor (-want +got):\n%s", diff)
		}
	})
}

// Queued records move to the queue that the configuration asks for, except
// from disk to memory.
func TestReloadMovesQueues(t *testing.T) {
	memory := func(p *Push) { p.Options.Buffer = "memory" }
	tests := []struct {
		name        string
		before      func(*Push)
		move        func(t *testing.T, next *Agent, p *Push)
		wantDropped bool // or stays behind
		wantLog     string
	}{
		{name: "from memory to disk", before: memory, move: func(*testing.T, *Agent, *Push) {}},
		{name: "from directory to directory", before: func(*Push) {}, move: func(t *testing.T, next *Agent, _ *Push) {
			next.Options.StateDirectory = t.TempDir()
		}},
		{name: "another limit", before: func(*Push) {}, move: func(_ *testing.T, _ *Agent, p *Push) { p.Options.BufferLimit = 1 << 20 }},
		{name: "from disk to memory", before: func(*Push) {}, move: func(_ *testing.T, _ *Agent, p *Push) { memory(p) },
			wantDropped: true, wantLog: `msg="undelivered points stay queued on disk" plugin=outputs.out points=3`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				down := &fakePusher{push: func(context.Context, []string) error { return errors.New("down") }}
				in := counting()
				r.agent.input("a", in)
				tt.before(onDisk(r.agent.push("out", down)))
				r.start()
				after(25 * time.Second)

				next := r.sibling()
				next.input("a", in)
				out := &fakePusher{}
				push := onDisk(next.push("out", out))
				tt.move(t, next, push)
				began := time.Now()
				r.reloadTo(next, nil)
				after(20 * time.Second)
				want := counts(1, len(out.got("count")))
				if tt.wantDropped {
					want = counts(4, 3+len(out.got("count")))
				}
				if diff := cmp.Diff(want, out.got("count")); diff != "" || len(want) < 2 {
					t.Errorf("delivered (-want +got):\n%s", diff)
				}
				if log := r.log.String(); !strings.Contains(log, tt.wantLog) || strings.Contains(log, "drop") {
					t.Errorf("%v later, want %q in the log:\n%s", time.Since(began), tt.wantLog, log)
				}
				if !tt.wantDropped {
					r.end()
					return
				}
				// On disk again: the records that stayed there come first.
				again, third := r.sibling(), &fakePusher{}
				again.input("a", in)
				onDisk(again.push("out", third))
				r.reloadTo(again, nil)
				after(time.Second)
				if got := third.got("count"); len(got) < 3 || cmp.Diff(counts(1, 3), got[:3]) != "" {
					t.Errorf("back on disk, delivered %v", got)
				}
				r.end()
			})
		})
	}
}

// An output that a reload removes leaves its queue on disk, which is
// reported; added again, it delivers it.
func TestQueueOnDiskWaitsForItsOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.Options.StateDirectory = t.TempDir()
		in := counting()
		r.agent.input("a", in)
		onDisk(r.agent.push("out", &fakePusher{push: func(context.Context, []string) error { return errors.New("down") }}))
		r.start()
		after(25 * time.Second)
		without := r.sibling()
		without.input("a", in)
		r.reloadTo(without, nil)
		after(20 * time.Second)
		for _, want := range []string{
			`msg="undelivered points stay queued on disk" plugin=outputs.out points=3`,
			`msg="queue without an output, its points wait for an output of that name" queue=` + r.agent.Options.StateDirectory + "/out points=3",
		} {
			if !strings.Contains(r.log.String(), want) {
				t.Errorf("want %q in the log:\n%s", want, r.log)
			}
		}
		with, out := r.sibling(), &fakePusher{}
		with.input("a", in)
		onDisk(with.push("out", out))
		r.reloadTo(with, nil)
		if diff := cmp.Diff(counts(1, 3), out.got("count")); diff != "" {
			t.Errorf("delivered at once (-want +got):\n%s", diff)
		}
		after(10 * time.Second)
		if got := out.got("count"); len(got) != 4 || got[3] != "count 6" {
			t.Errorf("delivered later: %v", got)
		}
		r.end()
	})
}

// Instances that a reload removes may take long to end; new and kept ones do not wait.
func TestReloadDoesNotWaitForWhatItRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.input("a", counting())
		r.agent.push("gone", &fakePusher{push: func(context.Context, []string) error { return errors.New("down") }})
		r.start()
		after(5 * time.Second)
		next, out := r.sibling(), &fakePusher{}
		next.input("a", counting()).Options.NamePrefix = "new_"
		next.push("new", out)
		r.reloadTo(next, nil)
		if got := out.got("new_count"); len(got) != 1 {
			t.Errorf("delivered at once: %v", got)
		}
		if !strings.Contains(r.log.String(), "msg=reloaded") {
			t.Errorf("not reloaded at once:\n%s", r.log)
		}
		began := time.Now()
		r.end()
		if took := time.Since(began); took > 11*time.Second {
			t.Errorf("the stop took %v", took)
		}
		if want := "undelivered points lost with the queue in memory"; !strings.Contains(r.log.String(), want) {
			t.Errorf("want %q in the log:\n%s", want, r.log)
		}
	})
}

// A reload between the start and the end of the first gathers does not show a
// board on which the new inputs are missing.
func TestReadyAfterAReloadBeforeTheFirstGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		slow := func(name string) fakeInput {
			return func(ctx context.Context) (metric.Batch, error) {
				select {
				case <-time.After(4 * time.Second):
					return batchOf(pointOf(name, 1)), nil
				case <-ctx.Done():
					return metric.Batch{}, ctx.Err()
				}
			}
		}
		page := newFakeEndpoint()
		r.agent.input("a", slow("old"))
		r.agent.pull("page", page)
		r.start()
		board := <-page.board
		after(time.Second)
		next := r.sibling()
		next.input("b", slow("new"))
		next.pull("page", newFakeEndpoint())
		r.reloadTo(next, nil)
		after(3 * time.Second)
		if r.ready.Load() || len(board.Latest()) > 0 {
			t.Errorf("ready %v with %v on the board before the first gather of the new input", r.ready.Load(), names(board))
		}
		after(2 * time.Second)
		if got := strings.Join(names(board), " "); !r.ready.Load() || !strings.Contains(got, "new") {
			t.Errorf("ready %v with %v on the board", r.ready.Load(), got)
		}
		r.end()
	})
}

// A long flush_jitter does not hold up the stop, and what waits for it is
// delivered.
func TestStopDuringFlushJitterDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		out := &fakePusher{}
		r.agent.input("a", counting())
		r.agent.push("out", out).Options.FlushJitter = plugin.Duration(1000 * time.Hour)
		r.start()
		after(time.Second)
		began := time.Now()
		r.end()
		if took := time.Since(began); took > 0 {
			t.Errorf("stopped after %v", took)
		}
		if len(out.got("count")) != 1 {
			t.Error("not delivered")
		}
	})
}

// A hangingQueue is on a disk on which some operations hang.
type hangingQueue struct {
	buffer.Queue
	release         chan struct{}
	appending       bool // that hangs
	peeking, acking bool
}

func (q *hangingQueue) hang(hangs bool) {
	if hangs {
		<-q.release
	}
}

func (q *hangingQueue) Append(block [][]byte) (int, error) {
	q.hang(q.appending)
	return q.Queue.Append(block)
}

func (q *hangingQueue) Peek(maxRecords, maxBytes int) ([][]byte, error) {
	q.hang(q.peeking)
	return q.Queue.Peek(maxRecords, maxBytes)
}

func (q *hangingQueue) Ack(n int) error {
	q.hang(q.acking)
	return q.Queue.Ack(n)
}

func (q *hangingQueue) Close() error {
	<-q.release
	return q.Queue.Close()
}

// A disk that hangs delays neither a stop, which leaves it to the watchdog, nor a reload.
// Batches offered meanwhile wait in the inbox; beyond that they are dropped and counted.
func TestStopAndReloadWhileTheDiskOfAQueueHangs(t *testing.T) {
	tests := []struct {
		name    string
		hanging hangingQueue
		dropped int64 // since the inbox was full
		call    string
	}{
		// One is being queued, and as many as the inbox holds wait.
		{name: "appending", hanging: hangingQueue{appending: true}, dropped: inboxBatches - 1, call: "outputs.out: appending to its queue"},
		{name: "reading", hanging: hangingQueue{peeking: true}, call: "outputs.out: reading its queue"},
		{name: "acknowledging", hanging: hangingQueue{acking: true}, call: "outputs.out: writing its queue"},
	}
	for _, tt := range tests {
		for _, reload := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reload %v", tt.name, reload), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					s := newSupervisor(r.agent, nil)
					s.config = r.agent
					haltCtx, cancel := context.WithCancel(t.Context())
					start := func(q buffer.Queue, replaced *runningOutput) *runningOutput {
						o, err := newOutput(r.agent, (&Agent{}).push("out", &fakePusher{}), s.health.Output("out"), s.calls, s.stopping)
						if err != nil {
							t.Fatal(err)
						}
						o.queue.Buffer = q
						o.start(haltCtx, replaced)
						return o
					}
					tt.hanging.Queue, tt.hanging.release = buffer.NewMemory(1<<20), make(chan struct{})
					o := start(&tt.hanging, nil)
					for range 2 * inboxBatches {
						b := batchOf(pointOf("x", 1))
						o.offer(nil, &b, nil)
						synctest.Wait()
					}
					if got := o.health.Dropped.Load(); got != tt.dropped {
						t.Errorf("%d counted as dropped, want %d", got, tt.dropped)
					}
					last := o
					if reload {
						if !o.handOver() {
							t.Error("not handed over")
						}
						last = start(nil, o)
						b := batchOf(pointOf("x", 1))
						last.offer(nil, &b, nil)
						synctest.Wait()
						if got := len(last.inbox); got != 1 {
							t.Errorf("%d batches wait, want 1", got)
						}
					}
					go last.leave(haltCtx, false)
					after(10 * time.Second)
					cancel()
					after(time.Second)
					if calls.IsClosed(last.left) {
						t.Error("left though the disk hangs")
					}
					if got := s.calls.List(); !slices.Contains(got, tt.call) {
						t.Errorf("hanging calls %q, want %q among them", got, tt.call)
					}
					close(tt.hanging.release)
					<-last.left
				})
			})
		}
	}
}

// A pushHeir is a Pusher that records its calls and from whom it inherits.
type pushHeir struct {
	*fakePusher
	name string
	note func(string)
}

func (h *pushHeir) Close() error {
	h.note(h.name + " is closed")
	return nil
}

func (h *pushHeir) InheritFrom(predecessor plugin.Pusher) {
	h.note(h.name + " inherits from " + predecessor.(*pushHeir).name)
}

func TestReloadLetsPushersInherit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var notes notes
		hang := make(chan struct{})
		heirOf := func(name string, hang chan struct{}) *pushHeir {
			return &pushHeir{name: name, note: notes.add, fakePusher: &fakePusher{push: func(context.Context, []string) error {
				notes.add(name + " pushes")
				if hang != nil {
					<-hang
				}
				return nil
			}}}
		}
		in := counting()
		r.agent.input("a", in)
		r.agent.push("out", heirOf("first", nil))
		r.start()
		after(20 * time.Second)
		for i, h := range []*pushHeir{heirOf("second", hang), heirOf("third", nil)} {
			next := r.sibling()
			next.input("a", in)
			next.push("out", h).Settings = &fakeSettings{Version: i + 2}
			r.reloadTo(next, nil)
			after(20 * time.Second) // also if the Push of the second hangs
		}
		close(hang)
		synctest.Wait()
		r.end()
		want := []string{
			"first pushes", "second inherits from first", "first is closed", "second pushes",
			"third pushes", "second is closed", "third is closed",
		}
		got := slices.CompactFunc(notes.all(), func(a, b string) bool { return a == b && strings.HasSuffix(a, " pushes") })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
