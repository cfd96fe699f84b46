package prometheus

import (
	"slices"
	"testing"
)

// TestOwnMetrics: the usual process_* and go_* are shown with the output's own.
func TestOwnMetrics(t *testing.T) {
	families, err := newOwnMetrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	for _, want := range []string{
		"go_goroutines", "go_info", "go_memstats_alloc_bytes",
		"process_cpu_seconds_total", "process_max_fds", "process_network_receive_bytes_total", "process_network_transmit_bytes_total",
		"process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds", "process_virtual_memory_bytes",
		"process_virtual_memory_max_bytes", ownName + "_left_out_series_total", ownName + "_refused_requests_total", ownName + "_series",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s among %q", want, names)
		}
	}
}
