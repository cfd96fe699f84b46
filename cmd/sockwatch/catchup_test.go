package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"sockwatch/agent/buffer"
	"sockwatch/agent/config"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/outputs/influxdb"
)

// A backlog is the result of an outage of some hours: blocks of 1,000 listeners, encoded
// by the output influxdb.
type backlog struct {
	blocks [][][]byte
	bytes  int // as lines
}

func newBacklog(b *testing.B, blocks int) *backlog {
	b.Helper()
	out, err := influxdb.New(influxdb.Defaults(), plugin.Env{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var tags [][]metric.Tag
	for i := range 1000 {
		tags = append(tags, metric.NewTags("address", fmt.Sprintf("10.%d.%d.%d", rng.IntN(256), rng.IntN(256), rng.IntN(256)),
			"port", fmt.Sprint(1024+i), "family", "ipv4", "process", fmt.Sprintf("worker-%x", rng.IntN(1<<16)), "user", "www-data",
			"container", fmt.Sprintf("%012x", rng.Uint64()>>16), "exposure", "private", "owner", "resolved", "host", "web-17.example.org"))
	}
	log := &backlog{}
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for range blocks {
		at = at.Add(10 * time.Second)
		var block [][]byte
		for i := range tags {
			p := metric.Point{Name: "tcp_listen", Time: at, Tags: tags[i], Fields: []metric.Field{
				{Key: "sockets", Value: metric.Int(1)}, {Key: "processes", Value: metric.Int(int64(rng.IntN(9)))},
				{Key: "pid", Value: metric.Int(int64(1000 + i))}, {Key: "backlog", Value: metric.Int(int64(rng.IntN(128)))},
				{Key: "backlog_limit", Value: metric.Int(4096)}, {Key: "process_start_time_seconds", Value: metric.Float(1795000000.25 + float64(i))},
			}}
			record, err := out.Encode(nil, &p)
			if err != nil {
				b.Fatal(err)
			}
			block = append(block, record)
			log.bytes += len(record) + 1
		}
		log.blocks = append(log.blocks, block)
	}
	return log
}

// spool writes the backlog to disk.
func (l *backlog) spool(b *testing.B, dir string) {
	b.Helper()
	q, err := buffer.OpenDisk(dir, 1<<30, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	for _, block := range l.blocks {
		if dropped, err := q.Append(block); dropped > 0 || err != nil {
			b.Fatal(dropped, err)
		}
	}
	if err := q.Close(); err != nil {
		b.Fatal(err)
	}
}

// bodies returns the lines of the backlog in bodies of at most 1 MiB.
func (l *backlog) bodies() [][]byte {
	var bodies [][]byte
	var body []byte
	for _, block := range l.blocks {
		for _, r := range block {
			if len(body)+len(r)+1 > 1<<20 {
				bodies, body = append(bodies, body), nil
			}
			body = append(append(body, r...), '\n')
		}
	}
	return append(bodies, body)
}

// deliver runs the agent until the backlog is delivered.
func (l *backlog) deliver(b *testing.B, state, url string) {
	p := newDaemonProgram(io.Discard, os.Stderr)
	a, err := p.build([]config.File{{Name: "bench", Text: fmt.Sprintf(`
[agent]
  state_directory = %q
  shutdown_timeout = "1h"
  log_level = "warn"
[[inputs.serial]]
  interval = "1h"
[[outputs.influxdb]]
  urls = [%q]
  database = "db"
  buffer = "disk"
  buffer_limit = "1GiB"
  flush_interval = "0s"
  namepass = ["nothing"]
`, state, url)}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	// The stop drains the queue: Run returns when the queue is empty.
	if err := a.Run(ctx, nil, nil, stop); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCatchUp delivers a backlog on disk through the agent and the output
// influxdb, and the same lines by a bare loop of gzip and POST to the same server, in
// turns. The agent must be at least half as fast (agent/bare).
func BenchmarkCatchUp(b *testing.B) {
	var posted int // bytes
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			b.Error(err)
		}
		posted += int(n)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	log := newBacklog(b, 200)
	bodies := log.bodies()
	var total, fastest [2]time.Duration
	var size [2]int
	for b.Loop() {
		state := b.TempDir()
		log.spool(b, filepath.Join(state, "influxdb"))
		for i, deliver := range []func(){
			func() { log.deliver(b, state, server.URL) },
			func() { postBare(b, server.URL, bodies) },
		} {
			posted = 0
			began := time.Now()
			deliver()
			took := time.Since(began)
			total[i] += took
			if fastest[i] == 0 || took < fastest[i] {
				fastest[i] = took
			}
			size[i] = posted
		}
		if left, _, err := buffer.Backlog(filepath.Join(state, "influxdb")); left > 0 || err != nil {
			b.Fatal(left, err)
		}
	}
	// Both have sent the same lines; only the ends of the bodies differ.
	if slices.Min(size[:])*100 < slices.Max(size[:])*95 {
		b.Errorf("%d bytes were posted by the agent, %d by the bare loop", size[0], size[1])
	}
	mbs := func(took time.Duration) float64 { return float64(log.bytes) / took.Seconds() / 1e6 }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(log.bytes)/1e6, "MB")
	b.ReportMetric(mbs(fastest[0]), "agent-MB/s")
	b.ReportMetric(mbs(fastest[1]), "bare-MB/s")
	b.ReportMetric(float64(fastest[1])/float64(fastest[0]), "agent/bare")
	b.ReportMetric(float64(total[1])/float64(total[0]), "agent/bare-all")
}

// postBare is a loop of ten lines with the same compression.
func postBare(b *testing.B, url string, bodies [][]byte) {
	var body bytes.Buffer
	z, err := gzip.NewWriterLevel(&body, gzip.BestSpeed)
	if err != nil {
		b.Fatal(err)
	}
	for _, text := range bodies {
		body.Reset()
		z.Reset(&body)
		z.Write(text)
		z.Close()
		req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body.Bytes()))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Encoding", "gzip")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			b.Fatal(resp.Status)
		}
	}
}
