package influxdb

import (
	"context"
	"strings"
	"testing"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/push/pushtest"
)

// newOutput returns the output of options that must be valid, and its log.
func newOutput(t testing.TB, o Options) (*output, *pushtest.Log) {
	t.Helper()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	log := &pushtest.Log{}
	p, err := New(o, plugin.Env{Log: log.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	out := p.(*output)
	t.Cleanup(func() { out.Close() })
	return out, log
}

// v1 returns options for InfluxDB 1.x at these URLs.
func v1(urls ...string) Options {
	o := Defaults()
	o.URLs, o.Database = urls, "sockwatch"
	return o
}

// encode returns the records of points.
func encode(t testing.TB, out *output, points ...metric.Point) [][]byte {
	t.Helper()
	var records [][]byte
	for i := range points {
		r, err := out.Encode(nil, &points[i])
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	return records
}

// send pushes with a timeout that only a fault exceeds.
func send(t testing.TB, out *output, records ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var raw [][]byte
	for _, r := range records {
		raw = append(raw, []byte(r))
	}
	return out.Push(ctx, raw)
}

// withoutPort replaces a fake's URL in a text.
func withoutPort(text, url string) string { return strings.ReplaceAll(text, url, "URL") }
