package format

import (
	"testing"
	"time"

	"github.com/influxdata/line-protocol/v2/lineprotocol"

	"sockwatch/agent/metric"
)

// listener is a point like those of tcp_listen.
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

// bare uses line-protocol's own encoder directly, without any checks.
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

// BenchmarkEncode measures one point: encoded, with a new time, and with the libraries used
// directly. All take turns in one run, so that a busy machine slows them
// equally; a ratio is that of the fastest turns.
func BenchmarkEncode(b *testing.B) {
	const turn = 50
	p := listener()
	var l LineProtocol
	j := NewJSON("rfc3339")
	var e lineprotocol.Encoder
	line, err := l.Encode(nil, &p)
	if err != nil {
		b.Fatal(err)
	}
	object, err := j.Encode(nil, &p)
	if err != nil {
		b.Fatal(err)
	}
	later := p.Time.Add(10 * time.Second)
	var buf []byte
	turns := []func(){
		func() { bare(&e, &p) },
		func() { buf, _ = l.Encode(buf[:0], &p) },
		func() { buf, _ = l.Restamp(buf[:0], line, later) },
		func() { buf, _ = marshal(&p) },
		func() { buf, _ = j.Encode(buf[:0], &p) },
		func() { buf, _ = j.Restamp(buf[:0], object, later) },
	}
	fastest := make([]time.Duration, len(turns))
	for b.Loop() {
		for i, encode := range turns {
			began := time.Now()
			for range turn {
				encode()
			}
			if took := time.Since(began); fastest[i] == 0 || took < fastest[i] {
				fastest[i] = took
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, r := range []struct {
		name        string
		plain, ours int
	}{
		{"influx", 0, 1}, {"influx-restamp", 0, 2}, {"json", 3, 4}, {"json-restamp", 3, 5},
	} {
		b.ReportMetric(float64(fastest[r.ours].Nanoseconds())/turn, r.name+"-ns")
		b.ReportMetric(float64(fastest[r.ours])/float64(fastest[r.plain]), r.name+"/plain")
	}
}
