package remotewrite

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/outputs/internal/push/pushtest"
)

// TestDocumentationIsSentAgain has version 1.0, which sends it apart from the samples.
func TestDocumentationIsSentAgain(t *testing.T) {
	server := pushtest.NewServer(t)
	out, _ := newTestOutput(t, server.URL, useVersion(version1))
	out.UseDescs(testDescs)
	n := 0
	documented := func() int {
		t.Helper()
		n++
		if err := pushText(t, out, fmt.Sprintf(`%d {} m=g1`, n)); err != nil {
			t.Fatal(err)
		}
		_, docs := decodeV1(t, []byte(server.Took()[0].Body))
		return len(docs)
	}
	got := []int{documented(), documented()}
	out.docs.sent = time.Now().Add(-resendDocs)
	got = append(got, documented(), documented())
	if diff := cmp.Diff([]int{3, 0, 3, 0}, got); diff != "" {
		t.Errorf("documented metrics (-want +got):\n%s", diff)
	}
}

// TestCatalogKeepsTheMetricsOfAllSources learns from two sources in turn, as the agent calls
// UseDescs.
func TestCatalogKeepsTheMetricsOfAllSources(t *testing.T) {
	other := []metric.Desc{
		{Name: "x", Field: "value", Type: metric.Counter, Help: "First"},
		{Name: "y", Field: "sent_bytes_total", Type: metric.Counter, Unit: "bytes", Help: "Second"},
	}
	var c catalog
	for _, descs := range [][]metric.Desc{testDescs, nil, other, testDescs, other} {
		c.learn(descs)
	}
	want := map[string]metadata{
		"tcp_listen_backlog":     {kind: metric.Gauge, help: "Length of the accept queue"},
		"tcp_listen_drops_total": {kind: metric.Counter, help: "Dropped connections"},
		"tcp_listen_age_seconds": {kind: metric.Gauge, help: "Age of the process", unit: "seconds"},
		"x":                      {kind: metric.Counter, help: "First"},
		"y_sent_bytes_total":     {kind: metric.Counter, help: "Second", unit: "bytes"},
	}
	if diff := cmp.Diff(want, c.all(), cmp.AllowUnexported(metadata{})); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}
