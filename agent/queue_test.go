package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// hundreds returns an input whose every gather has 100 new points "x N".
func hundreds() fakeInput {
	n := int64(0)
	return func(context.Context) (metric.Batch, error) {
		b := batchOf()
		for range 100 {
			b.Points = append(b.Points, pointOf("x", n, "n", fmt.Sprint(n)))
			n++
		}
		return b, nil
	}
}

// A boundedPusher is a fakePusher that accepts few bytes in one Push.
type boundedPusher struct {
	*fakePusher
	maxBytes int
}

func (p boundedPusher) MaxBytes() int { return p.maxBytes }

// A queue that is half full, or holds a full request, does not wait for the flush: no
// point is dropped while the destination is healthy.
func TestFullQueueIsFlushedAtOnce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		limit    plugin.Size
		maxBytes int
		disk     bool
		atLeast  int // points delivered before the first flush
	}{
		{name: "half full in memory", limit: 64 << 10, maxBytes: 1 << 20, atLeast: 4000},
		{name: "half full on disk", limit: 64 << 10, maxBytes: 1 << 20, disk: true, atLeast: 4000},
		{name: "a full request", limit: 64 << 20, maxBytes: 8 << 10, atLeast: 4000},
		{name: "neither", limit: 64 << 20, maxBytes: 1 << 20, atLeast: 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				out := boundedPusher{&fakePusher{}, tt.maxBytes}
				r.agent.input("a", hundreds())
				push := r.agent.push("out", out)
				push.Options.NamePass = []string{"x"}
				push.Options.BufferLimit = tt.limit
				push.Options.FlushInterval = plugin.Duration(1000 * time.Hour)
				if tt.disk {
					push.Options.Buffer = "disk"
				}
				r.start()
				const batches = 181
				after((batches-1)*10*time.Second + time.Second)
				if got := len(out.got("x")); got < tt.atLeast || tt.atLeast == 0 && got > 0 {
					t.Errorf("%d of %d points delivered before the flush, want %d at least", got, 100*batches, tt.atLeast)
				}
				r.end()
				if got := len(out.got("x")); got != 100*batches {
					t.Errorf("%d of %d points delivered after the stop", got, 100*batches)
				}
				if strings.Contains(r.log.String(), "dropped") {
					t.Errorf("dropped:\n%s", r.log)
				}
			})
		})
	}
}

// A batch that is larger than the limit is not reported as a full queue.
func TestBatchLargerThanTheLimitSaysSo(t *testing.T) {
	for _, buffer := range []string{"memory", "disk"} {
		t.Run(buffer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.agent.Options.StateDirectory = t.TempDir()
				page := newFakeEndpoint()
				r.agent.input("a", hundreds())
				push := r.agent.push("out", &fakePusher{})
				push.Options.NamePass = []string{"x"}
				push.Options.Buffer, push.Options.BufferLimit = buffer, 100
				r.agent.pull("page", page)
				r.start()
				board := <-page.board
				if got := board.Health().Outputs[0].DroppedPoints; got != 100 {
					t.Errorf("%d counted as dropped, want 100", got)
				}
				if log := r.log.String(); !strings.Contains(log, "is larger than buffer_limit (100 bytes)") || !strings.Contains(log, `msg="points dropped" plugin=outputs.out points=100 error=`) {
					t.Errorf("the log does not say that the batch is larger than the limit:\n%s", log)
				}
				r.end()
			})
		})
	}
}

func TestStateDirectoryThatOthersMayWriteIsRefused(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(state, 0o777); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	r.agent.Options.StateDirectory = state
	r.agent.input("a", counting())
	onDisk(r.agent.push("out", &fakePusher{}))
	err := r.agent.Run(t.Context(), nil, nil, nil)
	if want := "agent.state_directory: "; err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), state) {
		t.Errorf("error %v, want %s... that names it", err, want)
	}
	if entries, _ := os.ReadDir(state); len(entries) > 0 {
		t.Errorf("%v was made in it", entries)
	}
}
