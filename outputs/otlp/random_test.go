package otlp

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/soak"
)

// Whatever two receivers answer, every point and every event is stored once and in order,
// except those that a receiver always rejects.
func TestRandomAnswersStoreEverythingOnce(t *testing.T) {
	for seed := range uint64(soak.Times(30)) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 15))
			metrics, logs := newReceiver(t), newReceiver(t)
			metrics.respond(moody(rand.New(rand.NewPCG(seed, 1))))
			logs.respond(moody(rand.New(rand.NewPCG(seed, 2))))
			out, _ := newOutput(t, metrics, logs, func(o *Options) { o.MaxBody = plugin.Size(300 + rng.IntN(3000)) })
			var queue [][]byte
			total, take := 0, 0
			for pushes := 0; total < 100 || len(queue) > 0; pushes++ {
				if pushes > 5000 {
					t.Fatalf("%d records are still queued after %d pushes", len(queue), pushes)
				}
				if total < 100 {
					more := rng.IntN(10)
					queue = append(queue, mixed(t, out, total, total+more)...)
					total += more
				}
				if take == 0 || take > len(queue) {
					take = len(queue)
				}
				if take == 0 {
					continue
				}
				err := out.Push(t.Context(), queue[:take])
				rejected, _ := errors.AsType[*plugin.RejectedError](err)
				switch {
				case rejected != nil && len(rejected.Records) > 0:
					t.Fatalf("records are rejected: %v", err)
				case errors.Is(err, plugin.ErrTooLarge), errors.Is(err, plugin.ErrRejected):
					if take == 1 {
						t.Fatalf("a record is rejected: %v", err)
					}
					take /= 2
				case err == nil:
					queue, take = queue[take:], 0
				}
				if rng.IntN(10) == 0 { // a reload
					next, _ := newOutput(t, metrics, logs, nil)
					next.InheritFrom(out)
					out = next
				}
			}
			if diff := cmp.Diff(xs(0, total), metrics.values()); diff != "" {
				t.Errorf("stored metrics (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(opened(0, total), logs.bodies()); diff != "" {
				t.Errorf("stored logs (-want +got):\n%s", diff)
			}
		})
	}
}

// moody answers with success only sometimes. It has outages, and limits on the size of a
// request.
func moody(rng *rand.Rand) http.HandlerFunc {
	outage := 0
	return func(w http.ResponseWriter, r *http.Request) {
		if outage > 0 {
			outage--
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		switch rng.IntN(12) {
		case 0:
			outage = rng.IntN(20)
			w.WriteHeader(http.StatusServiceUnavailable)
		case 1:
			w.WriteHeader(http.StatusTooManyRequests)
		case 2:
			w.WriteHeader(http.StatusUnauthorized)
		case 3:
			if r.ContentLength > 500 {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
			}
		}
	}
}
