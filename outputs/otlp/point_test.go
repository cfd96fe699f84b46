package otlp

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/testing/protocmp"

	"sockwatch/agent/metric"
	"sockwatch/outputs/internal/promname"
)

var testDescs = []metric.Desc{
	{Name: "tcp_listen", Field: "backlog", Type: metric.Gauge, Unit: "connections", Help: "Waiting connections"},
	{Name: "tcp_listen", Field: "first_seen_time_seconds", Type: metric.Gauge, Unit: "seconds", Help: "When"},
	{Name: "tcp_listen", Field: "exe", Help: "Path"},
	{Name: "tcp_listen_events", Field: "total", Type: metric.Counter, Unit: "events", Help: "Events"},
	{Name: "queue", Field: "bytes", Type: metric.Gauge, Unit: "bytes", Help: "Bytes"},
}

func testDocs() *promname.Docs {
	d := &promname.Docs{}
	d.Learn(testDescs)
	return d
}

// newRequest returns the request of metrics that records become, decoded.
func newRequest(t testing.TB, records ...[]byte) *metricspb.MetricsData {
	t.Helper()
	res, err := newResource(&Options{ServiceName: "sockwatch"}, "web1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := newMetricsRequest(res, testDocs())
	if err != nil {
		t.Fatal(err)
	}
	r.reset()
	for _, record := range records {
		if ok, err := r.add(record, math.MaxInt); !ok || err != nil {
			t.Fatalf("add: %v, %v", ok, err)
		}
	}
	return decodeMetrics(t, r.body())
}

func str(key, value string) *commonpb.KeyValue { return stringAttribute(key, value) }

// A request is what the specification of OTLP describes: the data points of a metric are
// together and in order, and all have the attributes of their point.
func TestPointsBecomeMetrics(t *testing.T) {
	var e pointEncoder
	e.use(testDescs)
	start := at.Add(-time.Hour)
	points := []metric.Point{
		{Name: "tcp_listen", Time: at, Tags: metric.NewTags("host", "web1", "port", "80", "process", "nginx"), Fields: []metric.Field{
			{Key: "backlog", Value: metric.Int(3)}, {Key: "first_seen_time_seconds", Value: metric.Float(1.5)}, {Key: "exe", Value: metric.String("/bin/nginx")}}},
		{Name: "tcp_listen", Time: at, Tags: metric.NewTags("host", "web1", "port", "22", "process", "sshd"), Fields: []metric.Field{
			{Key: "backlog", Value: metric.Int(0)}}},
		{Name: "tcp_listen_events", Time: at, Start: start, Tags: metric.NewTags("event", "opened"), Fields: []metric.Field{{Key: "total", Value: metric.Uint(7)}}},
		{Name: "queue", Time: at.Add(time.Second), Start: start, Fields: []metric.Field{{Key: "bytes", Value: metric.Int(9)}}},
		{Name: "tcp_listen", Time: at.Add(time.Second), Tags: metric.NewTags("host", "web1", "port", "80", "process", "nginx"), Fields: []metric.Field{
			{Key: "backlog", Value: metric.Int(4)}}},
	}
	var records [][]byte
	for i := range points {
		r, err := e.append(nil, &points[i], recorded)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	nginx := []*commonpb.KeyValue{str("host", "web1"), str("port", "80"), str("process", "nginx")}
	sshd := []*commonpb.KeyValue{str("host", "web1"), str("port", "22"), str("process", "sshd")}
	asInt := func(n int64) *metricspb.NumberDataPoint_AsInt { return &metricspb.NumberDataPoint_AsInt{AsInt: n} }
	want := &metricspb.MetricsData{ResourceMetrics: []*metricspb.ResourceMetrics{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{str("host.name", "web1"), str("service.instance.id", "web1"), str("service.name", "sockwatch")}},
		ScopeMetrics: []*metricspb.ScopeMetrics{{
			Scope: &commonpb.InstrumentationScope{Name: "sockwatch"},
			Metrics: []*metricspb.Metric{
				{Name: "tcp_listen_backlog", Description: "Waiting connections", Unit: "{connections}", Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: []*metricspb.NumberDataPoint{
					{Attributes: nginx, TimeUnixNano: atNano, Value: asInt(3)},
					{Attributes: sshd, TimeUnixNano: atNano, Value: asInt(0)},
					{Attributes: nginx, TimeUnixNano: atNano + 1e9, Value: asInt(4)},
				}}}},
				{Name: "tcp_listen_first_seen_time_seconds", Description: "When", Unit: "s", Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: []*metricspb.NumberDataPoint{
					{Attributes: nginx, TimeUnixNano: atNano, Value: &metricspb.NumberDataPoint_AsDouble{AsDouble: 1.5}},
				}}}},
				{Name: "tcp_listen_events_total", Description: "Events", Unit: "{events}", Data: &metricspb.Metric_Sum{Sum: &metricspb.Sum{
					AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE, IsMonotonic: true,
					DataPoints: []*metricspb.NumberDataPoint{
						{Attributes: []*commonpb.KeyValue{str("event", "opened")}, StartTimeUnixNano: atNano - 3600e9, TimeUnixNano: atNano, Value: asInt(7)},
					}}}},
				{Name: "queue_bytes", Description: "Bytes", Unit: "By", Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: []*metricspb.NumberDataPoint{
					{TimeUnixNano: atNano + 1e9, Value: asInt(9)},
				}}}},
			},
		}},
	}}}
	if diff := cmp.Diff(want, newRequest(t, records...), protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestValuesOfFields(t *testing.T) {
	stale := math.Float64frombits(0x7ff0000000000002)
	for _, test := range []struct {
		name  string
		value metric.Value
		typ   metric.Type
		want  string // "": no metric
	}{
		{name: "int", value: metric.Int(math.MinInt64), want: "-9223372036854775808"},
		{name: "uint", value: metric.Uint(math.MaxInt64), want: "9223372036854775807"},
		{name: "uint beyond an int", value: metric.Uint(math.MaxUint64), want: "1.8446744073709552e+19"},
		{name: "false", value: metric.Bool(false), want: "0"},
		{name: "true", value: metric.Bool(true), want: "1"},
		{name: "float", value: metric.Float(-0.5), want: "-0.5"},
		{name: "infinity", value: metric.Float(math.Inf(1)), want: "+Inf"},
		{name: "NaN", value: metric.Float(stale), want: "NaN"},
		{name: "NaN of a counter", value: metric.Float(stale), typ: metric.Counter},
		{name: "string", value: metric.String("1")},
	} {
		t.Run(test.name, func(t *testing.T) {
			var e pointEncoder
			e.use([]metric.Desc{{Name: "x", Field: "value", Type: test.typ}})
			record, err := e.append([]byte("prefix"), &metric.Point{Name: "x", Time: at, Fields: []metric.Field{{Key: "value", Value: test.value}}}, recorded)
			if err != nil {
				t.Fatal(err)
			}
			if test.want == "" {
				if string(record) != "prefix" {
					t.Errorf("appended %q, want nothing", record)
				}
				return
			}
			m := newRequest(t, record[len("prefix"):])
			if diff := cmp.Diff([]string{"x " + test.want}, valuesOf(m)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if v := dataPoints(metricsOf(m)[0])[0].GetAsDouble(); math.Float64bits(v) == math.Float64bits(stale) {
				t.Error("the value is Prometheus's marker of a stale series")
			}
		})
	}
}

// Prometheus rejects a request with two values of one series at one time.
func TestFieldsOfOneNameAreOneMetric(t *testing.T) {
	var e pointEncoder
	record, err := e.append(nil, &metric.Point{Name: "x", Time: at, Fields: []metric.Field{
		{Key: "a-b", Value: metric.Int(1)}, {Key: "a_b", Value: metric.Int(2)}, {Key: "c", Value: metric.Int(3)}}}, recorded)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"x_a_b 1", "x_c 3"}, valuesOf(newRequest(t, record))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTimesOutsideOfOTLPAreRefused(t *testing.T) {
	for _, test := range []struct {
		name string
		time time.Time
		ok   bool
	}{
		{name: "1970", time: time.Unix(0, 0)}, // 0 means unknown
		{name: "before 1970", time: time.Unix(-1, 0)},
		{name: "the first", time: time.Unix(0, 1), ok: true},
		{name: "the last", time: time.Unix(0, math.MaxInt64), ok: true},
		{name: "far future", time: time.Unix(1<<40, 0)},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := "time out of range"
			if test.ok {
				want = ""
			}
			p := gauge("x", 1)
			p.Time = test.time
			var points pointEncoder
			var events eventEncoder
			_, pointErr := points.append(nil, &p, recorded)
			_, eventErr := events.append(nil, &p)
			q := gauge("x", 1)
			record, err := points.append(nil, &q, recorded)
			if err != nil {
				t.Fatal(err)
			}
			_, restampErr := restamp(nil, record, test.time)
			for what, err := range map[string]error{"point": pointErr, "event": eventErr, "restamp": restampErr} {
				got := ""
				if err != nil {
					got = err.Error()
				}
				if got != want {
					t.Errorf("%s: error %q, want %q", what, got, want)
				}
			}
		})
	}
}

// A counter cannot begin after its value: then the start is unknown, as without a clock that
// was set back.
func TestStartOfACounterAfterItsTimeIsUnknown(t *testing.T) {
	var e pointEncoder
	e.use(testDescs)
	for _, test := range []struct {
		name  string
		start time.Time
		want  uint64
	}{
		{name: "before", start: at.Add(-time.Second), want: atNano - 1e9},
		{name: "at the same time", start: at, want: atNano},
		{name: "after", start: at.Add(time.Nanosecond), want: 0},
		{name: "unknown", want: 0},
		{name: "before 1970", start: time.Unix(-5, 0), want: 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			record, err := e.append(nil, &metric.Point{Name: "tcp_listen_events", Time: at, Start: test.start, Fields: []metric.Field{{Key: "total", Value: metric.Int(1)}}}, recorded)
			if err != nil {
				t.Fatal(err)
			}
			p := dataPoints(metricsOf(newRequest(t, record))[0])[0]
			if p.StartTimeUnixNano != test.want || p.TimeUnixNano != atNano {
				t.Errorf("start %d, time %d, want %d and %d", p.StartTimeUnixNano, p.TimeUnixNano, test.want, uint64(atNano))
			}
		})
	}
}

func TestEndedSeriesHaveNoRecordedValue(t *testing.T) {
	out, _ := newOutput(t, newReceiver(t), nil, nil)
	out.UseDescs(testDescs)
	series := metric.Point{Name: "tcp_listen", Tags: metric.NewTags("port", "80"), Fields: []metric.Field{
		{Key: "backlog", Value: metric.Int(0)}, {Key: "first_seen_time_seconds", Value: metric.Float(0)}, {Key: "exe", Value: metric.String("")}}}
	record, err := out.EncodeEnded([]byte("prefix"), &series, at)
	if err != nil {
		t.Fatal(err)
	}
	if !series.Time.IsZero() {
		t.Error("EncodeEnded changed its point")
	}
	var got []string
	for _, m := range metricsOf(newRequest(t, record[len("prefix"):])) {
		for _, p := range dataPoints(m) {
			if p.Flags != 1 || p.TimeUnixNano != atNano {
				t.Errorf("%s: flags %d, time %d", m.Name, p.Flags, p.TimeUnixNano)
			}
			got = append(got, m.Name+" "+valueText(p))
		}
	}
	if diff := cmp.Diff([]string{"tcp_listen_backlog none", "tcp_listen_first_seen_time_seconds none"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The same field of another input may have another type.
func TestUseDescsReplacesTheDocumentation(t *testing.T) {
	r := newReceiver(t)
	out, _ := newOutput(t, r, nil, nil)
	for _, d := range []metric.Desc{{Name: "x", Field: "value", Type: metric.Counter, Unit: "events", Help: "a"}, {Name: "x", Field: "value", Type: metric.Gauge, Unit: "seconds", Help: "b"}, {Name: "x", Field: "value"}} {
		out.UseDescs([]metric.Desc{d})
		if err := out.Push(t.Context(), encode(t, out, gauge("x", 1))); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, request := range r.metrics {
		m := metricsOf(request)[0]
		kind := "gauge"
		if m.GetSum() != nil {
			kind = "sum"
		}
		got = append(got, kind+" "+m.Unit+" "+m.Description)
	}
	if diff := cmp.Diff([]string{"sum {events} a", "gauge s b", "gauge  "}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnits(t *testing.T) {
	for _, test := range []struct{ unit, want string }{
		{"", ""}, {"seconds", "s"}, {"Unix seconds", "s"}, {"bytes", "By"}, {"connections", "{connections}"}, {"a{b}c", "{abc}"},
	} {
		if got := ucum(test.unit); got != test.want {
			t.Errorf("ucum(%q) = %q, want %q", test.unit, got, test.want)
		}
	}
}

// A queue on disk may hold records of another version.
func TestUnknownRecordsAreRejected(t *testing.T) {
	p := gauge("x", 1, "a", "b")
	var e pointEncoder
	whole, err := e.append(nil, &p, recorded)
	if err != nil {
		t.Fatal(err)
	}
	var parsed point
	if err := parsed.parse(whole); err != nil {
		t.Errorf("parse of a whole record: %v", err)
	}
	for n := range len(whole) {
		// A record that ends after the attributes is whole, too: it has no metrics.
		if err := parsed.parse(whole[:n]); err == nil && len(parsed.metrics) > 0 {
			t.Errorf("parse of the first %d of %d bytes: no error", n, len(whole))
		}
	}
	for _, record := range []string{"", "M", "X123456789012345678901234567890", string(whole) + "\x02"} {
		if err := parsed.parse([]byte(record)); err != errUnknownRecord {
			t.Errorf("parse(%q) = %v", record, err)
		}
	}
}
