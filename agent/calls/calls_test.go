package calls

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestCallsThatHangAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		p := &Pending{Log: slog.New(slog.NewTextHandler(&log, nil))}
		answer := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), 11*time.Second)
		defer cancel()
		if p.Within(ctx, "b: Push", func() { <-answer }) {
			t.Error("Within reports that a hanging call has returned")
		}
		synctest.Wait() // for the log
		end := p.Begin("a: Close")
		if got, want := p.List(), []string{"a: Close", "b: Push"}; !slices.Equal(got, want) {
			t.Errorf("List = %q, want %q", got, want)
		}
		if !strings.Contains(log.String(), `call="b: Push"`) {
			t.Errorf("the log does not name the slow call: %s", &log)
		}
		close(answer)
		end()
		synctest.Wait()
		if got := p.List(); len(got) != 0 {
			t.Errorf("after all have returned: List = %q", got)
		}
	})
}

func TestPanicsAreErrorsAndCounted(t *testing.T) {
	var p Panics
	call := func(f func()) (err error) {
		defer p.Recover(&err, slog.New(slog.DiscardHandler))
		f()
		return nil
	}
	if err := call(func() { panic("boom") }); err == nil || err.Error() != "panic: boom" {
		t.Errorf("error %v, want panic: boom", err)
	}
	if err := call(func() {}); err != nil {
		t.Error(err)
	}
	if got := p.Load(); got != 1 {
		t.Errorf("%d panics counted, want 1", got)
	}
}

// If a channel is closed, a context that has ended as well does not matter.
func TestAwaitPrefersWhatIsDone(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan struct{})
	if Await(ended, done) {
		t.Error("Await reports that an open channel is closed")
	}
	close(done)
	for range 100 {
		if !Await(ended, done) {
			t.Fatal("Await reports that a closed channel is open")
		}
	}
}

func TestCloseLogsErrors(t *testing.T) {
	var log strings.Builder
	l := slog.New(slog.NewTextHandler(&log, nil))
	Close(struct{}{}, l)
	if log.Len() > 0 {
		t.Errorf("a value without Close is logged: %s", &log)
	}
	Close(closer{}, l)
	if !strings.Contains(log.String(), `error="disk full"`) {
		t.Errorf("the error of Close is not logged: %q", &log)
	}
}

type closer struct{}

func (closer) Close() error { return errors.New("disk full") }
