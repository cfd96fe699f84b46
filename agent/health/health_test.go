package health

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/buffer"
	"sockwatch/agent/metric"
)

// The points have exactly the documented fields. Those of an endpoint have no counters of points.
func TestEachFieldIsDocumented(t *testing.T) {
	r := New("1.2.3", func() {})
	r.Input("tcp_listen").Succeeded(time.Second, &metric.Batch{}, false)
	r.Output("influxdb").SetQueue(buffer.NewMemory(1 << 20))
	r.Output("prometheus").Endpoint.Store(true)
	documented, got, endpoint := map[string]bool{}, map[string]bool{}, []string(nil)
	for _, d := range Descs {
		documented[d.Name+"."+d.Field] = true
	}
	b := r.Batch()
	if err := b.Check(); err != nil {
		t.Error(err)
	}
	for _, p := range b.Points {
		for _, f := range p.Fields {
			got[p.Name+"."+f.Key] = true
			if p.Tag("output") == "prometheus" {
				endpoint = append(endpoint, f.Key)
			}
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(documented)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("fields (-documented +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"up", "panics_total"}, endpoint); diff != "" {
		t.Errorf("fields of an endpoint (-want +got):\n%s", diff)
	}
}

// An output that goes down or up is a change. Another error of one that is down is not.
func TestChangesOfAnOutputAreReported(t *testing.T) {
	changes := 0
	r := New("1.2.3", func() { changes++ })
	o := r.Output("influxdb")
	for i, step := range []struct {
		err  error
		want int
	}{{nil, 0}, {errors.New("refused"), 1}, {errors.New("timeout"), 1}, {nil, 2}} {
		if o.SetState(step.err); changes != step.want {
			t.Errorf("after step %d: %d changes, want %d", i, changes, step.want)
		}
	}
}
