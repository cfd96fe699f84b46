package agent

import (
	"fmt"
	"testing"
	"time"

	"sockwatch/agent/calls"
	"sockwatch/agent/encode"
	"sockwatch/agent/health"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// listenerPoints returns a batch like those of tcp_listen.
func listenerPoints(n int) metric.Batch {
	b := metric.Batch{Time: time.Now()}
	for i := range n {
		b.Points = append(b.Points, metric.Point{
			Name: "tcp_listen",
			Tags: metric.NewTags("address", "0.0.0.0", "port", fmt.Sprint(i), "family", "ipv4", "process", "nginx", "user", "www-data",
				"unit", "nginx.service", "exposure", "public", "owner", "resolved"),
			Fields: []metric.Field{{Key: "sockets", Value: metric.Int(1)}, {Key: "processes", Value: metric.Int(2)}, {Key: "pid", Value: metric.Int(4711)},
				{Key: "backlog", Value: metric.Int(0)}, {Key: "backlog_limit", Value: metric.Int(511)}, {Key: "uid", Value: metric.Int(33)}},
		})
	}
	return b
}

// BenchmarkPath measures what the agent adds to a gather of 1,000 listeners: the
// check of the batch, its tags, and a filter in front of a queue in memory.
func BenchmarkPath(b *testing.B) {
	batch := listenerPoints(1000)
	in := &Input{Name: "tcp_listen"}
	in.Options.Tags = map[string]string{"host": "web1", "dc": "fra1"}
	d, err := newTransform(in)
	if err != nil {
		b.Fatal(err)
	}
	push := &Push{Name: "out", Pusher: &fakePusher{}, Options: DefaultPushOptions(plugin.Plugin{})}
	push.Options.NamePass, push.Options.BufferLimit = []string{"tcp_listen*"}, 1<<20
	o, err := newOutput(&Agent{Log: newRig(nil).agent.Log}, push, health.NewOutput(nil), &calls.Pending{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	o.queue.OpenMemory()
	b.Run("check", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := batch.Check(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("transform", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d.points(batch.Points)
		}
	})
	b.Run("encode and queue", func(b *testing.B) {
		b.ReportAllocs()
		transformed, err := d.batch(batch)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			o.queue.AppendPoints(o.encoder.Encode(encode.Entry{Batch: transformed}))
			o.encoder.Queued()
		}
	})
}
