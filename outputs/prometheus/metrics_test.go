package prometheus

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
)

// TestProcessMetrics: the process_* are those of client_golang's own collector.
func TestProcessMetrics(t *testing.T) {
	describe := func(c prometheus.Collector) map[string]string {
		t.Helper()
		r := prometheus.NewRegistry()
		r.MustRegister(c)
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]string{}
		for _, f := range families {
			names[f.GetName()] = f.GetType().String() + " " + f.GetHelp()
		}
		return names
	}
	ours, theirs := newProcessCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})
	if diff := cmp.Diff(describe(theirs), describe(ours)); diff != "" {
		t.Errorf("process metrics (-client_golang's +ours):\n%s", diff)
	}
	value := func(c prometheus.Collector, name string) float64 {
		r := prometheus.NewRegistry()
		r.MustRegister(c)
		families, _ := r.Gather()
		for _, f := range families {
			if f.GetName() == name {
				return f.Metric[0].GetGauge().GetValue()
			}
		}
		return -1
	}
	for _, name := range []string{"process_start_time_seconds", "process_max_fds", "process_virtual_memory_max_bytes"} {
		if a, b := value(ours, name), value(theirs, name); a != b {
			t.Errorf("%s is %v, client_golang has %v", name, a, b)
		}
	}
}

// TestOwnMetricsAreARegistrys: what stands on the page without a Registry is what a
// Registry would have made of it.
func TestOwnMetricsAreARegistrys(t *testing.T) {
	m := newOwnMetrics()
	r := prometheus.NewRegistry()
	r.MustRegister(m.collectors...)
	want, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	signature := func(f *dto.MetricFamily) string {
		var s []string
		for _, metric := range f.Metric {
			for _, l := range metric.Label {
				if f.GetName() != "go_info" {
					s = append(s, l.GetName()+"="+l.GetValue())
				}
			}
		}
		return f.GetName() + " " + f.GetType().String() + " " + f.GetHelp() + " " + strings.Join(s, ",")
	}
	for range 2 { // the second time with all Descs known
		var got, expected []string
		for _, f := range want {
			expected = append(expected, signature(f))
		}
		if err := m.gather(func(f *dto.MetricFamily) error { got = append(got, signature(f)); return nil }); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(expected, got); diff != "" {
			t.Errorf("families (-registry +ours):\n%s", diff)
		}
	}
}
