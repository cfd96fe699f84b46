package format

import (
	"testing"
	"time"

	"github.com/influxdata/line-protocol/v2/lineprotocol"

	"sockwatch/agent/metric"
)

// listener is a point as tcp_listen emits them.
func listener() metric.Point {
	return metric.Point{
		Name: "tcp_listen", Time: time.Unix(1795341600, 123456789),
		Tags: metric.NewTags("address", "0.0.0.0", "port", "443", "family", "dual", "process", "nginx", "user", "www-data",
			"unit", "nginx.service", "exposure", "public", "owner", "resolved", "host", "web-17.example.org"),
		Fields: []metric.Field{
			{Key: "sockets", Value: metric.Int(2)}, {Key: "processes", Value: metric.Int(9)}, {Key: "pid", Value: metric.Int(31337)},
			{Key: "backlog", Value: metric.Int(0)}, {Key: "backlog_limit", Value: metric.Int(511)}, {Key: "uid", Value: metric.Int(33)},
			{Key: "process_start_time_seconds", Value: metric.Float(1795000000.25)},
			{Key: "exe", Value: metric.String("/usr/sbin/nginx")},
		},
	}
}

// bare is what a program would do that has line-protocol's own encoder and nothing
// to fear.
func bare(e *lineprotocol.Encoder, p *metric.Point) {
	e.Reset()
	e.StartLine(p.Name)
	for _, t := range p.Tags {
		e.AddTag(t.Key, t.Value)
	}
	for _, f := range p.Fields {
		switch f.Value.Kind() {
		case metric.KindInt:
			e.AddField(f.Key, lineprotocol.IntValue(f.Value.AsInt()))
		case metric.KindFloat:
			v, _ := lineprotocol.FloatValue(f.Value.AsFloat())
			e.AddField(f.Key, v)
		default:
			v, _ := lineprotocol.StringValue(f.Value.AsString())
			e.AddField(f.Key, v)
		}
	}
	e.EndLine(p.Time)
}

func BenchmarkEncode(b *testing.B) {
	p := listener()
	b.Run("influx", func(b *testing.B) {
		var l LineProtocol
		var buf []byte
		b.ReportAllocs()
		for b.Loop() {
			buf, _ = l.Append(buf[:0], &p)
		}
	})
	b.Run("bare", func(b *testing.B) {
		var e lineprotocol.Encoder
		b.ReportAllocs()
		for b.Loop() {
			bare(&e, &p)
		}
	})
	b.Run("json", func(b *testing.B) {
		j := NewJSON("rfc3339")
		var buf []byte
		b.ReportAllocs()
		for b.Loop() {
			buf, _ = j.Append(buf[:0], &p)
		}
	})
}

// BenchmarkEncodeRatio takes turns, so that a busy machine slows both alike: an
// encoding may take 1.2 times what the bare loop takes (influx/bare, of the
// fastest of the turns, and of all).
func BenchmarkEncodeRatio(b *testing.B) {
	const turn = 50
	p := listener()
	var l LineProtocol
	var e lineprotocol.Encoder
	var buf []byte
	turns := [2]func(){func() { buf, _ = l.Append(buf[:0], &p) }, func() { bare(&e, &p) }}
	var total, fastest [2]time.Duration
	for b.Loop() {
		for i, encode := range turns {
			began := time.Now()
			for range turn {
				encode()
			}
			took := time.Since(began)
			total[i] += took
			if fastest[i] == 0 || took < fastest[i] {
				fastest[i] = took
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(fastest[0].Nanoseconds())/turn, "influx-ns")
	b.ReportMetric(float64(fastest[1].Nanoseconds())/turn, "bare-ns")
	b.ReportMetric(float64(fastest[0])/float64(fastest[1]), "influx/bare")
	b.ReportMetric(float64(total[0])/float64(total[1]), "influx/bare-all")
}
