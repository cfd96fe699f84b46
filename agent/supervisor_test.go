package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A stuckEndpoint hangs in Serve whatever its context says.
type stuckEndpoint struct{ release chan struct{} }

func (stuckEndpoint) Listen(context.Context) error { return nil }

func (e stuckEndpoint) Serve(context.Context, plugin.Board) error {
	<-e.release
	return nil
}

// A stuckCloser is an input whose Close hangs.
type stuckCloser struct {
	plugin.Input
	release chan struct{}
}

func (c stuckCloser) Close() error {
	<-c.release
	return nil
}

// If something does not return, the watchdog ends the program a second after the grace
// period, and names it; healthy outputs have drained by then.
func TestWatchdogNamesWhatHangs(t *testing.T) {
	tests := []struct {
		name  string
		hang  func(a *Agent, release chan struct{})
		calls string
	}{
		{name: "Gather", hang: func(a *Agent, release chan struct{}) {
			n := 0
			a.input("stuck", fakeInput(func(context.Context) (metric.Batch, error) {
				if n++; n > 1 {
					<-release
				}
				return batchOf(pointOf("late", 1)), nil
			}))
		}, calls: "inputs.stuck: Gather"},
		{name: "Close", hang: func(a *Agent, release chan struct{}) {
			a.input("stuck", stuckCloser{counting(), release})
		}, calls: "inputs.stuck: Close"},
		{name: "Push", hang: func(a *Agent, release chan struct{}) {
			a.push("stuck", &fakePusher{push: func(context.Context, []string) error { <-release; return nil }})
		}, calls: "outputs.stuck: Push"},
		{name: "Serve", hang: func(a *Agent, release chan struct{}) {
			a.pull("stuck", stuckEndpoint{release})
		}, calls: "outputs.stuck: Serve"},
		{name: "two at once", hang: func(a *Agent, release chan struct{}) {
			a.pull("b", stuckEndpoint{release})
			a.input("a", stuckCloser{counting(), release})
		}, calls: "inputs.a: Close, outputs.b: Serve"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				release := make(chan struct{})
				out := &fakePusher{}
				r.agent.input("fine", counting())
				r.agent.push("out", out).Options.FlushInterval = plugin.Duration(1000 * time.Hour)
				tt.hang(r.agent, release)
				r.start()
				after(15 * time.Second)
				began := time.Now()
				err := r.end()
				hung, ok := errors.AsType[*HungError](err)
				if want := "not stopped within 10s, not returned: " + tt.calls; !ok || hung.Error() != want {
					t.Errorf("error %v, want %s", err, want)
				}
				if took := time.Since(began); took != 11*time.Second {
					t.Errorf("ended after %v, want 11s", took)
				}
				if got := len(out.got("count")); got < 2 {
					t.Errorf("a healthy output has delivered %d points", got)
				}
				close(release)
				synctest.Wait()
			})
		})
	}
}

// A configuration whose reading hangs does not delay a stop, and is not a reason for the
// watchdog.
func TestStopWhileTheConfigurationIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		release := make(chan struct{})
		out := &fakePusher{}
		r.agent.input("a", counting())
		r.agent.push("out", out).Options.FlushInterval = plugin.Duration(1000 * time.Hour)
		ctx, stop := context.WithCancel(t.Context())
		load := func() (*Agent, error) { <-release; return nil, errors.New("late") }
		go func() { r.ended <- r.agent.Run(ctx, r.reload, load, nil) }()
		r.reload <- struct{}{}
		after(15 * time.Second)
		if want := `msg="still waiting, perhaps for a disk that is not responding" call="reading the configuration"`; strings.Count(r.log.String(), want) != 1 {
			t.Errorf("want %s once in the log:\n%s", want, r.log)
		}
		stop()
		after(openGrace)
		select {
		case err := <-r.ended:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("the stop waits for the configuration")
		}
		if got := fmt.Sprint(out.got("count")); got != "[count 1 count 2]" {
			t.Errorf("delivered %s", got)
		}
		close(release)
	})
}

// A configuration that is read at the moment when a stop no longer waits for it is not used. The
// race detector checks that its error is not read, either.
func TestStopWhileTheConfigurationArrives(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.agent.input("a", counting())
			ctx, stop := context.WithCancel(t.Context())
			load := func() (*Agent, error) {
				<-ctx.Done()
				time.Sleep(openGrace)
				return nil, errors.New("late")
			}
			go func() { r.ended <- r.agent.Run(ctx, r.reload, load, nil) }()
			r.reload <- struct{}{}
			after(time.Second)
			stop()
			if err := <-r.ended; err != nil {
				t.Error(err)
			}
			if got := strings.Count(r.log.String(), "reload failed"); got != 1 {
				t.Errorf("%d errors of reloads in the log, want 1", got)
			}
		})
	}
}

// A reload that is pending at a stop is neither done nor logged as an error of the
// configuration: the one whose reading hung is logged once.
func TestStopSkipsPendingReloads(t *testing.T) {
	for range 20 { // if a stop and a reload come at the same time, select picks at random
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.agent.input("a", counting())
			r.agent.push("out", &fakePusher{})
			ctx, stop := context.WithCancel(t.Context())
			reads := 0
			load := func() (*Agent, error) {
				reads++
				<-ctx.Done()
				return nil, fmt.Errorf("not read: %w", ctx.Err())
			}
			reload := make(chan struct{}, 1)
			go func() { r.ended <- r.agent.Run(ctx, reload, load, nil) }()
			reload <- struct{}{}
			after(time.Second)
			reload <- struct{}{}
			stop()
			if err := <-r.ended; err != nil {
				t.Error(err)
			}
			if reads != 1 {
				t.Errorf("the configuration was read %d times, want once", reads)
			}
			if got := strings.Count(r.log.String(), "reload failed"); got != 1 {
				t.Errorf("%d errors of reloads in the log, want 1", got)
			}
		})
	}
}
