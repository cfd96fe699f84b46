package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/influxdata/line-protocol/v2/lineprotocol"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"sockwatch/agent/config"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// listeners returns points of many listeners; the generation is in a field.
func listeners(n int, generation int64) []metric.Point {
	points := make([]metric.Point, n)
	for i := range points {
		points[i] = metric.Point{
			Name: "tcp_listen",
			Tags: metric.NewTags("address", "0.0.0.0", "port", fmt.Sprint(i), "family", "ipv4", "process", fmt.Sprint("worker", i/10), "user", "www-data",
				"unit", "nginx.service", "exposure", "public", "owner", "resolved"),
			Fields: []metric.Field{{Key: "sockets", Value: metric.Int(1)}, {Key: "processes", Value: metric.Int(2)}, {Key: "pid", Value: metric.Int(int64(4711 + i/10))},
				{Key: "backlog", Value: metric.Int(generation)}, {Key: "backlog_limit", Value: metric.Int(511)}, {Key: "uid", Value: metric.Int(33)},
				{Key: "process_start_time_seconds", Value: metric.Float(1795000000.25 + float64(i))}, {Key: "exe", Value: metric.String("/usr/sbin/nginx")}},
		}
	}
	return points
}

// A scriptedInput gathers the points that next returns.
type scriptedInput struct{ next func() []metric.Point }

func (s scriptedInput) Gather(context.Context) (metric.Batch, error) {
	return metric.Batch{Time: time.Now(), Points: s.next()}, nil
}

type noOptions struct{}

func (*noOptions) Validate() error { return nil }

// BenchmarkDelivery measures the CPU time of 5,000 listeners from a gather to an InfluxDB
// server and a JSON file: if none has changed, if all have changed, and with
// line-protocol, gzip and encoding/json used directly.
// The direct uses have no agent and no queues. All run in one process and
// take turns.
func BenchmarkDelivery(b *testing.B) {
	const listed, gathers = 5000, 20
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	dir := b.TempDir()
	constant, generation := listeners(listed, 0), int64(0)
	changed := func() []metric.Point { generation++; return listeners(listed, generation) }
	cost := map[string]time.Duration{}
	lowest := func(name string, run func() time.Duration) {
		if d := run(); cost[name] == 0 || d < cost[name] {
			cost[name] = d
		}
	}
	for b.Loop() {
		lowest("unchanged", func() time.Duration {
			return agentDelivery(b, server.URL, dir, gathers, func() []metric.Point { return constant })
		})
		lowest("changed", func() time.Duration { return agentDelivery(b, server.URL, dir, gathers, changed) })
		lowest("plain", func() time.Duration { return plainDelivery(b, server.URL, dir, gathers, changed) })
		lowest("making", func() time.Duration { // the cost of the input that changes the points
			before := cpu(b)
			for range gathers {
				changed()
			}
			return (cpu(b) - before) / gathers
		})
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(cost["unchanged"]), "unchanged-ms")
	b.ReportMetric(ms(cost["changed"]-cost["making"]), "changed-ms")
	b.ReportMetric(ms(cost["plain"]-cost["making"]), "plain-ms")
	b.ReportMetric(float64(cost["unchanged"])/float64(cost["plain"]-cost["making"]), "unchanged/plain")
	b.ReportMetric(float64(cost["changed"]-cost["making"])/float64(cost["plain"]-cost["making"]), "changed/plain")
}

// agentDelivery returns the CPU time of a gather and its delivery in a running agent.
func agentDelivery(b *testing.B, url, dir string, gathers int, next func() []metric.Point) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	var count atomic.Int64
	var before, after time.Duration
	input := plugin.Plugin{
		Name:     "scripted",
		Defaults: func() plugin.Options { return &noOptions{} },
		Example:  func() plugin.Options { return &noOptions{} },
		NewInput: func(plugin.Options, plugin.Env) (plugin.Input, error) {
			return scriptedInput{func() []metric.Point {
				switch count.Add(1) {
				case 3: // the first ones cost more than later ones
					before = cpu(b)
				case int64(3 + gathers):
					after = cpu(b)
					cancel()
				}
				return next()
			}}, nil
		},
	}
	p := newDaemonProgram(io.Discard, os.Stderr)
	p.plugins = append(slices.Clone(p.plugins), input)
	a, err := p.build([]config.File{{Name: "bench", Text: fmt.Sprintf(`
[agent]
  interval = "200ms"
  log_level = "error"
[[inputs.scripted]]
[[outputs.influxdb]]
  urls = [%q]
  database = "db"
  flush_interval = "0s"
[[outputs.file]]
  path = %q
`, url, filepath.Join(dir, "listeners.jsonl"))}})
	if err != nil {
		b.Fatal(err)
	}
	if err := a.Run(ctx, nil, nil, nil); err != nil {
		b.Fatal(err)
	}
	if after == 0 {
		b.Fatalf("%d of %d gathers within a minute", count.Load(), gathers)
	}
	return (after - before) / time.Duration(gathers)
}

// plainDelivery returns the CPU time of a loop that uses only the libraries.
func plainDelivery(b *testing.B, url, dir string, gathers int, next func() []metric.Point) time.Duration {
	b.Helper()
	f, err := os.Create(filepath.Join(dir, "plain.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	before := cpu(b)
	for range gathers {
		points, now := next(), time.Now()
		var enc lineprotocol.Encoder
		for i := range points {
			encodePlainly(&enc, &points[i], now)
		}
		if err := enc.Err(); err != nil {
			b.Fatal(err)
		}
		var body bytes.Buffer
		w, err := gzip.NewWriterLevel(&body, gzip.BestSpeed)
		if err != nil {
			b.Fatal(err)
		}
		w.Write(enc.Bytes())
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
		resp, err := http.Post(url, "text/plain", &body)
		if err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
		var lines bytes.Buffer
		for i := range points {
			line, err := json.Marshal(plainObject(&points[i], now))
			if err != nil {
				b.Fatal(err)
			}
			lines.Write(append(line, '\n'))
		}
		if _, err := f.Write(lines.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
	return (cpu(b) - before) / time.Duration(gathers)
}

func encodePlainly(e *lineprotocol.Encoder, p *metric.Point, now time.Time) {
	e.StartLine(p.Name)
	for _, t := range p.Tags {
		e.AddTag(t.Key, t.Value)
	}
	for _, f := range p.Fields {
		e.AddField(f.Key, lineprotocol.MustNewValue(plainValue(f.Value)))
	}
	e.EndLine(now)
}

func plainObject(p *metric.Point, now time.Time) any {
	tags, fields := map[string]string{}, map[string]any{}
	for _, t := range p.Tags {
		tags[t.Key] = t.Value
	}
	for _, f := range p.Fields {
		fields[f.Key] = plainValue(f.Value)
	}
	return struct {
		Name      string            `json:"name"`
		Tags      map[string]string `json:"tags"`
		Fields    map[string]any    `json:"fields"`
		Timestamp time.Time         `json:"timestamp"`
	}{p.Name, tags, fields, now}
}

// plainValue returns a value of one of the kinds that listeners uses.
func plainValue(v metric.Value) any {
	switch v.Kind() {
	case metric.KindInt:
		return v.AsInt()
	case metric.KindString:
		return v.AsString()
	default:
		return v.AsFloat()
	}
}

// cpu returns the CPU time of the process.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
