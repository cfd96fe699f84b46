package remotewrite

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	writev2 "github.com/prometheus/client_golang/exp/api/remote/genproto/v2"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"sockwatch/agent/metric"
	"sockwatch/outputs/internal/promname"
)

// labelsToo lets cmp compare labels.
var labelsToo = cmp.AllowUnexported(label{})

// A decodedSeries is a series of a request of either version.
type decodedSeries struct {
	Labels           []label
	Samples          []decodedSample
	Type, Help, Unit string // 2.0
}

type decodedSample struct {
	Time  int64
	Value string // "stale" for the marker
	Start int64  // 2.0
}

func newDecodedSample(value float64, at int64) decodedSample {
	if isStale(value) {
		return decodedSample{Time: at, Value: "stale"}
	}
	return decodedSample{Time: at, Value: fmt.Sprint(value)}
}

// check fails the test if a series breaks a rule of the specification.
func (s *decodedSeries) check(t testing.TB) {
	t.Helper()
	if !slices.IsSortedFunc(s.Labels, func(a, b label) int { return strings.Compare(a.name, b.name) }) {
		t.Fatalf("labels are not sorted: %q", s.Labels)
	}
	named := 0
	for i, l := range s.Labels {
		if i > 0 && s.Labels[i-1].name == l.name || !isName([]byte(l.name), false) {
			t.Fatalf("label %q is repeated or not a name: %q", l.name, s.Labels)
		}
		if l.name == nameLabel && isName([]byte(l.value), true) {
			named++
		}
	}
	if named != 1 {
		t.Fatalf("no name: %q", s.Labels)
	}
	if len(s.Samples) == 0 {
		t.Fatalf("no samples: %q", s.Labels)
	}
	for i, x := range s.Samples {
		if i > 0 && s.Samples[i-1].Time >= x.Time {
			t.Fatalf("samples are not in the order of time: %v", s.Samples)
		}
	}
}

// writeRequest is the descriptor of prometheus.WriteRequest, as the specification of remote
// write 1.0 has it.
const writeRequest = `
name: "remote.proto" package: "prometheus" syntax: "proto3"
message_type { name: "WriteRequest"
  field { name: "timeseries" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".prometheus.TimeSeries" }
  field { name: "metadata" number: 3 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".prometheus.MetricMetadata" } }
message_type { name: "TimeSeries"
  field { name: "labels" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".prometheus.Label" }
  field { name: "samples" number: 2 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".prometheus.Sample" } }
message_type { name: "Label"
  field { name: "name" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING } }
message_type { name: "Sample"
  field { name: "value" number: 1 label: LABEL_OPTIONAL type: TYPE_DOUBLE }
  field { name: "timestamp" number: 2 label: LABEL_OPTIONAL type: TYPE_INT64 } }
message_type { name: "MetricMetadata"
  field { name: "type" number: 1 label: LABEL_OPTIONAL type: TYPE_ENUM type_name: ".prometheus.MetricType" }
  field { name: "metric_family_name" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "help" number: 4 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "unit" number: 5 label: LABEL_OPTIONAL type: TYPE_STRING } }
enum_type { name: "MetricType" value { name: "UNKNOWN" number: 0 } value { name: "COUNTER" number: 1 } value { name: "GAUGE" number: 2 } }
`

func newWriteRequest(t testing.TB) *dynamicpb.Message {
	t.Helper()
	var file descriptorpb.FileDescriptorProto
	if err := prototext.Unmarshal([]byte(writeRequest), &file); err != nil {
		t.Fatal(err)
	}
	d, err := protodesc.NewFile(&file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return dynamicpb.NewMessage(d.Messages().ByName("WriteRequest"))
}

// decodeV1 decodes a request of version 1.0 with protobuf's own decoder.
func decodeV1(t testing.TB, message []byte) ([]decodedSeries, []string) {
	t.Helper()
	request := newWriteRequest(t)
	if err := proto.Unmarshal(message, request); err != nil {
		t.Fatal(err)
	}
	get := func(m protoreflect.Message, name protoreflect.Name) protoreflect.Value {
		if len(m.GetUnknown()) > 0 {
			t.Fatalf("unknown fields in a %s: %x", m.Descriptor().Name(), m.GetUnknown())
		}
		return m.Get(m.Descriptor().Fields().ByName(name))
	}
	var all []decodedSeries
	for list, i := get(request, "timeseries").List(), 0; i < list.Len(); i++ {
		var s decodedSeries
		for labels, j := get(list.Get(i).Message(), "labels").List(), 0; j < labels.Len(); j++ {
			l := labels.Get(j).Message()
			s.Labels = append(s.Labels, label{get(l, "name").String(), get(l, "value").String()})
		}
		for samples, j := get(list.Get(i).Message(), "samples").List(), 0; j < samples.Len(); j++ {
			x := samples.Get(j).Message()
			s.Samples = append(s.Samples, newDecodedSample(get(x, "value").Float(), get(x, "timestamp").Int()))
		}
		s.check(t)
		all = append(all, s)
	}
	var docs []string
	for list, i := get(request, "metadata").List(), 0; i < list.Len(); i++ {
		d := list.Get(i).Message()
		docs = append(docs, fmt.Sprintf("%v %d %q %q", get(d, "metric_family_name"), get(d, "type").Enum(), get(d, "help").String(), get(d, "unit").String()))
	}
	return all, docs
}

// decodeV2 decodes a request of version 2.0 with Prometheus' own messages. They are from
// before samples had a start_timestamp, which is therefore an unknown field.
func decodeV2(t testing.TB, message []byte) []decodedSeries {
	t.Helper()
	var request writev2.Request
	if err := proto.Unmarshal(message, &request); err != nil {
		t.Fatal(err)
	}
	if len(request.Symbols) == 0 || request.Symbols[0] != "" {
		t.Fatalf("the first symbol is not empty: %q", request.Symbols)
	}
	seen := map[string]bool{}
	for _, s := range request.Symbols {
		if seen[s] || !utf8.ValidString(s) {
			t.Fatalf("symbol %q is repeated or not UTF-8", s)
		}
		seen[s] = true
	}
	var all []decodedSeries
	for _, ts := range request.Timeseries {
		var s decodedSeries
		if len(ts.LabelsRefs)%2 != 0 || len(ts.ProtoReflect().GetUnknown()) > 0 {
			t.Fatalf("series %v", ts)
		}
		for i := 0; i < len(ts.LabelsRefs); i += 2 {
			s.Labels = append(s.Labels, label{request.Symbols[ts.LabelsRefs[i]], request.Symbols[ts.LabelsRefs[i+1]]})
		}
		for _, x := range ts.Samples {
			d := newDecodedSample(x.Value, x.Timestamp)
			if unknown := x.ProtoReflect().GetUnknown(); len(unknown) > 0 {
				number, kind, n := protowire.ConsumeTag(unknown)
				start, m := protowire.ConsumeVarint(unknown[n:])
				if number != 3 || kind != protowire.VarintType || n+m != len(unknown) {
					t.Fatalf("unknown fields in a Sample: %x", unknown)
				}
				d.Start = int64(start)
			}
			s.Samples = append(s.Samples, d)
		}
		m := ts.Metadata
		s.Type = strings.TrimPrefix(m.Type.String(), "METRIC_TYPE_")
		s.Help, s.Unit = request.Symbols[m.HelpRef], request.Symbols[m.UnitRef]
		s.check(t)
		all = append(all, s)
	}
	return all
}

// TestMessages decodes requests of both versions with the reference messages.
func TestMessages(t *testing.T) {
	var docs promname.Docs
	docs.Learn(testDescs)
	c, rejected := newCollector().collect([][]byte{
		[]byte(`2000 {A="x",a="y"} tcp_listen_backlog=g1 tcp_listen_drops_total=c7@1500 other=u0`),
		[]byte(`1000 {A="x",a="y"} tcp_listen_backlog=g-2`), // the clock was set back
		[]byte(`2000 {} tcp_listen_age_seconds=g0.5`),
		[]byte(`3000 {A="x",a="y"} tcp_listen_backlog=gstale tcp_listen_drops_total=c9@3000`),
	}, math.MinInt64)
	if len(rejected) > 0 {
		t.Fatal(rejected)
	}
	labels := func(name string) []label { return []label{{"A", "x"}, {nameLabel, name}, {"a", "y"}} }
	want := []decodedSeries{
		{
			Labels:  labels("tcp_listen_backlog"),
			Samples: []decodedSample{{Time: 1000, Value: "-2"}, {Time: 2000, Value: "1"}, {Time: 3000, Value: "stale"}},
			Type:    "GAUGE", Help: "Length of the accept queue",
		},
		{
			Labels:  labels("tcp_listen_drops_total"),
			Samples: []decodedSample{{Time: 2000, Value: "7", Start: 1500}, {Time: 3000, Value: "9"}}, // a start that is not earlier says nothing
			Type:    "COUNTER", Help: "Dropped connections",
		},
		{Labels: labels("other"), Samples: []decodedSample{{Time: 2000, Value: "0"}}, Type: "UNSPECIFIED"},
		{
			Labels:  []label{{nameLabel, "tcp_listen_age_seconds"}},
			Samples: []decodedSample{{Time: 2000, Value: "0.5"}},
			Type:    "GAUGE", Help: "Age of the process", Unit: "seconds",
		},
	}
	if diff := cmp.Diff(want, decodeV2(t, appendV2(nil, c, docs.All())), labelsToo); diff != "" {
		t.Errorf("2.0 (-want +got):\n%s", diff)
	}
	for i := range want {
		want[i].Type, want[i].Help, want[i].Unit = "", "", ""
		for j := range want[i].Samples {
			want[i].Samples[j].Start = 0
		}
	}
	series, gotDocs := decodeV1(t, appendV1(nil, c, docs.All()))
	if diff := cmp.Diff(want, series, labelsToo); diff != "" {
		t.Errorf("1.0 (-want +got):\n%s", diff)
	}
	wantDocs := []string{
		`tcp_listen_age_seconds 2 "Age of the process" "seconds"`,
		`tcp_listen_backlog 2 "Length of the accept queue" ""`,
		`tcp_listen_drops_total 1 "Dropped connections" ""`,
	}
	if diff := cmp.Diff(wantDocs, gotDocs); diff != "" {
		t.Errorf("documentation in 1.0 (-want +got):\n%s", diff)
	}
}

// TestEmptyMetadata has no documentation: every reference is to the empty symbol.
func TestEmptyMetadata(t *testing.T) {
	c, _ := newCollector().collect([][]byte{[]byte(`1 {} m=u1`)}, math.MinInt64)
	want := []decodedSeries{{Labels: []label{{nameLabel, "m"}}, Samples: []decodedSample{{Time: 1, Value: "1"}}, Type: "UNSPECIFIED"}}
	if diff := cmp.Diff(want, decodeV2(t, appendV2(nil, c, nil)), labelsToo); diff != "" {
		t.Errorf("2.0 (-want +got):\n%s", diff)
	}
}

// benchmarkPoints returns the points of n listeners.
func benchmarkPoints(n int) []metric.Point {
	points := make([]metric.Point, n)
	for i := range points {
		points[i] = metric.Point{
			Name: "tcp_listen", Time: at,
			Tags: metric.NewTags("address", fmt.Sprintf("10.0.%d.%d", i/250, i%250), "port", fmt.Sprint(1024+i), "family", "ipv4", "process", "nginx",
				"user", "www-data", "unit", "nginx.service", "exposure", "private", "host", "web1.example.org", "netns", "host"),
		}
		for j := range 12 {
			points[i].Fields = append(points[i].Fields, metric.Field{Key: fmt.Sprintf("field_%d_seconds", j), Value: metric.Int(int64(1000*i + j))})
		}
		points[i].Fields = append(points[i].Fields, metric.Field{Key: "exe", Value: metric.String("/usr/sbin/nginx")})
	}
	return points
}

// BenchmarkRequest is what one Push computes before compression: a request of version 2.0
// for 500 listeners, from records.
func BenchmarkRequest(b *testing.B) {
	e, _ := newTestEncoder()
	var records [][]byte
	size := 0
	for _, p := range benchmarkPoints(500) {
		records = append(records, e.append(nil, &p, false))
		size += len(records[len(records)-1])
	}
	var message []byte
	for b.Loop() {
		c, rejected := newCollector().collect(records, math.MinInt64)
		if len(rejected) > 0 {
			b.Fatal(rejected)
		}
		message = appendV2(message[:0], c, nil)
	}
	b.ReportMetric(float64(size)/500, "B/record")
	b.ReportMetric(float64(len(message))/500, "B/point")
}

// BenchmarkAgainstReference reports the time of both steps, Encode and the request,
// relative to a plain client: a Request of Prometheus' own messages, made of the points with
// its symbol table, and marshaled by its generated code.
func BenchmarkAgainstReference(b *testing.B) {
	points := benchmarkPoints(500)
	var ours, theirs time.Duration
	for b.Loop() {
		start := time.Now()
		e, _ := newTestEncoder()
		records := make([][]byte, len(points))
		for i := range points {
			records[i] = e.append(nil, &points[i], false)
		}
		c, _ := newCollector().collect(records, math.MinInt64)
		message := appendV2(nil, c, nil)
		ours += time.Since(start)
		start = time.Now()
		reference := plainRequest(b, points)
		theirs += time.Since(start)
		if len(message) > len(reference)*11/10 {
			b.Fatalf("%d bytes, the reference has %d", len(message), len(reference))
		}
	}
	b.ReportMetric(float64(ours)/float64(theirs), "x-reference")
}

func plainRequest(t testing.TB, points []metric.Point) []byte {
	table := writev2.NewSymbolTable()
	request := &writev2.Request{}
	for i := range points {
		p := &points[i]
		labels := make([]string, 0, 2*len(p.Tags)+2)
		for _, f := range p.Fields {
			v, ok := f.Value.Number()
			if !ok {
				continue
			}
			labels = append(labels[:0], nameLabel, p.Name+"_"+f.Key)
			for _, tag := range p.Tags {
				labels = append(labels, tag.Key, tag.Value)
			}
			request.Timeseries = append(request.Timeseries, &writev2.TimeSeries{
				LabelsRefs: table.SymbolizeLabels(labels, nil),
				Samples:    []*writev2.Sample{{Value: v, Timestamp: p.Time.UnixMilli()}},
				Metadata:   &writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE},
			})
		}
	}
	request.Symbols = table.Symbols()
	message, err := request.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return message
}

func isStale(v float64) bool { return math.Float64bits(v) == math.Float64bits(stale) }
