package delivery

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/buffer"
	"sockwatch/agent/health"
)

// An outage in which every attempt has a different error is logged when it begins,
// once a minute, and when it ends; the next one at once.
func TestOutageOfManyErrorsIsLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		p := &outage{
			log: slog.New(slog.NewTextHandler(&log, nil)), health: health.NewOutput(nil),
			queue: &Queue{Buffer: buffer.NewMemory(1 << 20)},
		}
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
		for line := range strings.Lines(log.String()) {
			if _, rest, ok := strings.Cut(line, `error="`); ok {
				got = append(got, rest[:strings.Index(rest, `"`)])
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("logged (-want +got):\n%s", diff)
		}
		if n := strings.Count(log.String(), "delivery resumed"); n != 2 {
			t.Errorf("%d recoveries are logged, want 2", n)
		}
	})
}
