package encode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/calls"
	"sockwatch/agent/filter"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A storingPusher stores everything. Its records are "NAME VALUE" of points.
type storingPusher struct{}

func (storingPusher) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	v, _ := p.Field("value")
	return fmt.Appendf(dst, "%s %v", p.Name, v), nil
}

func (storingPusher) Push(context.Context, [][]byte) error { return nil }

// A restampingPusher writes records as "NAME TAGS FIELDS@TIME". It records what it
// encodes, and cannot encode a negative value.
type restampingPusher struct {
	storingPusher
	encoded    []string // names and tags, since it was last taken
	restampErr error
}

func (r *restampingPusher) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	r.encoded = append(r.encoded, p.Series())
	if v, _ := p.Field("value"); v.AsInt() < 0 {
		return append(dst, "half a rec"...), errors.New("negative")
	}
	return fmt.Appendf(dst, "%s %v@%d", p.Series(), p.Fields, p.Time.Unix()), nil
}

func (r *restampingPusher) Restamp(dst, record []byte, t time.Time) ([]byte, error) {
	if r.restampErr != nil {
		return append(dst, "half a rec"...), r.restampErr
	}
	at := strings.LastIndexByte(string(record), '@')
	return fmt.Appendf(append(dst, record[:at]...), "@%d", t.Unix()), nil
}

func (r *restampingPusher) take() []string {
	encoded := r.encoded
	r.encoded = nil
	return encoded
}

// testOptions are the options of an output that matter to its encoder.
type testOptions struct {
	filter.Options
	MinInterval time.Duration
	log         *strings.Builder
}

// A testOutput is an output that only encodes.
type testOutput struct {
	encoder *Encoder
	config  Config
}

// encodingOutput returns an output that encodes by p.
func encodingOutput(t testing.TB, p plugin.Pusher, change func(*testOptions)) *testOutput {
	t.Helper()
	o := testOptions{log: &strings.Builder{}}
	if change != nil {
		change(&o)
	}
	f, err := filter.New(o.Options)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{
		Name: "out", Pusher: p, Filter: f, MinInterval: o.MinInterval,
		Reject: func(string, error) {}, Panics: &calls.Panics{}, Calls: &calls.Pending{}, Log: slog.New(slog.NewTextHandler(o.log, nil)),
	}
	return &testOutput{encoder: New(c), config: c}
}

// encodeAgain returns an encoder for the same output that has not encoded anything.
func encodeAgain(o *testOutput) *Encoder { return New(o.config) }

// inputNamed returns a source for an entry.
func inputNamed(name string) *Source { return &Source{Name: name, Round: true} }

// encodeQueued encodes a batch for a queue that accepts it.
func (e *Encoder) encodeQueued(b *metric.Batch) [][]byte {
	records := e.Encode(Entry{Batch: b})
	e.Queued()
	return records
}

func texts(records [][]byte) []string {
	texts := []string{}
	for _, r := range records {
		texts = append(texts, string(r))
	}
	return texts
}

// An endingPusher writes points as "SERIES FIELDS@SECONDS", and ended series as "end
// SERIES KEYS@SECONDS".
type endingPusher struct {
	restampingPusher
	endErr error
}

func (e *endingPusher) EncodeEnded(dst []byte, p *metric.Point, t time.Time) ([]byte, error) {
	if e.endErr != nil {
		return append(dst, "half a rec"...), e.endErr
	}
	var keys []string
	for _, f := range p.Fields {
		if f.Value != metric.Zero(f.Value.Kind()) {
			keys = append(keys, "not zero")
		}
		keys = append(keys, f.Key)
	}
	return fmt.Appendf(dst, "end %s %v@%s", p.Series(), keys, seconds(t)), nil
}

// seconds returns a time as "10" or "10.001".
func seconds(t time.Time) string {
	return strings.TrimSuffix(fmt.Sprintf("%d.%03d", t.Unix(), t.UnixMilli()%1000), ".000")
}

// step encodes a batch taken at a time, for a queue that accepts it, and returns the records.
func (e *Encoder) step(at float64, points ...metric.Point) []string {
	records := texts(e.Encode(Entry{Source: stepInput, Batch: &metric.Batch{Source: "in", Time: at64(at), Points: points}}))
	e.Queued()
	return records
}

// stepInput is the input of each step.
var stepInput = inputNamed("in")

func at64(seconds float64) time.Time { return time.UnixMilli(int64(seconds * 1000)) }

// fails encodes the failure of an input.
func (e *Encoder) fails(name string, at float64) []string {
	records := texts(e.Encode(Entry{Source: inputNamed(name), At: at64(at)}))
	e.Queued()
	return records
}

func wantRecords(t *testing.T, when string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
		t.Errorf("%s: records (-want +got):\n%s", when, diff)
	}
}

func pointOf(name string, value int64, tags ...string) metric.Point {
	return metric.Point{Name: name, Tags: metric.NewTags(tags...), Fields: []metric.Field{{Key: "value", Value: metric.Int(value)}}}
}

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
