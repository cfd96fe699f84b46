package promname

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

// TestDocsKeepTheMetricsOfAllSources learns from two sources in turn, as the agent calls
// UseDescs.
func TestDocsKeepTheMetricsOfAllSources(t *testing.T) {
	descs := []metric.Desc{
		{Name: "tcp_listen", Field: "backlog", Type: metric.Gauge, Unit: "connections", Help: "Length\xff"},
		{Name: "tcp_listen", Field: "age_seconds", Type: metric.Gauge, Unit: "seconds", Help: "Age"},
		{Name: "tcp_listen", Field: "exe", Help: "A string"},
	}
	other := []metric.Desc{
		{Name: "x", Field: "value", Type: metric.Counter, Help: "First"},
		{Name: "y", Field: "sent_bytes_total", Type: metric.Counter, Unit: "bytes", Help: "Second"},
	}
	var d Docs
	for _, learned := range [][]metric.Desc{descs, nil, other, descs, other} {
		d.Learn(learned)
	}
	want := map[string]Doc{
		"tcp_listen_backlog":     {Type: metric.Gauge, Help: "Length?"},
		"tcp_listen_age_seconds": {Type: metric.Gauge, Help: "Age", Unit: "seconds"},
		"tcp_listen_exe":         {Help: "A string"},
		"x":                      {Type: metric.Counter, Help: "First"},
		"y_sent_bytes_total":     {Type: metric.Counter, Help: "Second", Unit: "bytes"},
	}
	if diff := cmp.Diff(want, d.All()); diff != "" {
		t.Errorf("documentation (-want +got):\n%s", diff)
	}
}
