package otlp

import (
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest"
)

// at is the time of the points of tests.
var at = time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.UTC)

const atNano = 1795341600123456789

// A receiver is a fake receiver of OTLP. It decodes requests by the reference messages.
type receiver struct {
	server *httptest.Server

	mu      sync.Mutex
	answer  http.HandlerFunc // nil: 200 without a body; if it answers 2xx, the request counts as stored
	metrics []*metricspb.MetricsData
	logs    []*logspb.LogsData
	headers []http.Header
}

func newReceiver(t testing.TB) *receiver {
	r := &receiver{}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body := readBody(t, req)
		r.mu.Lock()
		answer := r.answer
		r.headers = append(r.headers, req.Header)
		r.mu.Unlock()
		status := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		if answer != nil {
			answer(status, req)
		}
		if status.status >= 300 {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		switch req.URL.Path {
		case "/v1/metrics":
			r.metrics = append(r.metrics, decodeMetrics(t, body))
		case "/v1/logs":
			r.logs = append(r.logs, decodeLogs(t, body))
		default:
			t.Errorf("request to %s", req.URL.Path)
		}
	}))
	t.Cleanup(r.server.Close)
	return r
}

// A statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func readBody(t testing.TB, req *http.Request) []byte {
	var body io.Reader = req.Body
	if req.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if body, err = gzip.NewReader(body); err != nil {
			t.Error(err)
			return nil
		}
	}
	b, err := io.ReadAll(body)
	if err != nil && req.Context().Err() == nil {
		t.Error(err)
	}
	return b
}

func decodeMetrics(t testing.TB, body []byte) *metricspb.MetricsData {
	var m metricspb.MetricsData
	if err := proto.Unmarshal(body, &m); err != nil {
		t.Errorf("request of metrics: %v", err)
	}
	return &m
}

func decodeLogs(t testing.TB, body []byte) *logspb.LogsData {
	var l logspb.LogsData
	if err := proto.Unmarshal(body, &l); err != nil {
		t.Errorf("request of logs: %v", err)
	}
	return &l
}

// respond sets how the receiver answers.
func (r *receiver) respond(f http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

// status returns an answer with a status and a text.
func status(code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		io.WriteString(w, text)
	}
}

// requests returns how many requests have arrived.
func (r *receiver) requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.headers)
}

// values returns the stored values of all metrics in order: NAME VALUE.
func (r *receiver) values() (values []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.metrics {
		values = append(values, valuesOf(m)...)
	}
	return values
}

// bodies returns the bodies of the stored log records in order.
func (r *receiver) bodies() (bodies []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.logs {
		for _, record := range logRecords(l) {
			bodies = append(bodies, record.Body.GetStringValue())
		}
	}
	return bodies
}

func logRecords(l *logspb.LogsData) (records []*logspb.LogRecord) {
	for _, resource := range l.ResourceLogs {
		for _, scope := range resource.ScopeLogs {
			records = append(records, scope.LogRecords...)
		}
	}
	return records
}

func metricsOf(m *metricspb.MetricsData) (metrics []*metricspb.Metric) {
	for _, resource := range m.ResourceMetrics {
		for _, scope := range resource.ScopeMetrics {
			metrics = append(metrics, scope.Metrics...)
		}
	}
	return metrics
}

func dataPoints(m *metricspb.Metric) []*metricspb.NumberDataPoint {
	if sum := m.GetSum(); sum != nil {
		return sum.DataPoints
	}
	return m.GetGauge().GetDataPoints()
}

func valuesOf(m *metricspb.MetricsData) (values []string) {
	for _, m := range metricsOf(m) {
		for _, p := range dataPoints(m) {
			values = append(values, m.Name+" "+valueText(p))
		}
	}
	return values
}

func valueText(p *metricspb.NumberDataPoint) string {
	switch v := p.Value.(type) {
	case *metricspb.NumberDataPoint_AsInt:
		return metric.Int(v.AsInt).String()
	case *metricspb.NumberDataPoint_AsDouble:
		return metric.Float(v.AsDouble).String()
	default:
		return "none"
	}
}

// newOutput returns an output that sends metrics to one receiver and logs to another, and
// its log. A nil receiver gets nothing.
func newOutput(t testing.TB, metrics, logs *receiver, change func(*Options)) (*output, *strings.Builder) {
	t.Helper()
	return newOutputIn(t, "", metrics, logs, change)
}

// newOutputIn returns an output with a state directory; "": none.
func newOutputIn(t testing.TB, stateDir string, metrics, logs *receiver, change func(*Options)) (*output, *strings.Builder) {
	t.Helper()
	o := Defaults()
	if metrics != nil {
		o.MetricsURL = metrics.server.URL + "/v1/metrics"
	}
	if logs != nil {
		o.LogsURL = logs.server.URL + "/v1/logs"
	}
	if change != nil {
		change(&o)
	}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	env := plugintest.Env(Plugin)
	env.Hostname, env.StateDir = "web1", stateDir
	log := &strings.Builder{}
	env.Log = textLog(log)
	out, err := New(o, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := out.(*output).Close(); err != nil {
			t.Error(err)
		}
	})
	return out.(*output), log
}

// gauge returns a point with one field.
func gauge(name string, value int64, tags ...string) metric.Point {
	return metric.Point{Name: name, Time: at, Tags: metric.NewTags(tags...), Fields: []metric.Field{{Key: "value", Value: metric.Int(value)}}}
}

// event returns an event of a listener with a sequence number.
func event(sequence int64) metric.Point {
	return metric.Point{
		Name: "tcp_listen_event", Time: at,
		Tags:   metric.NewTags("event", "opened", "address", "0.0.0.0", "port", "80", "family", "ipv4", "exposure", "public", "process", "nginx", "user", "www-data", "host", "web1"),
		Fields: []metric.Field{{Key: "history", Value: metric.String("h1")}, {Key: "sequence", Value: metric.Int(sequence)}, {Key: "pid", Value: metric.Int(17 + sequence)}},
	}
}

func encode(t testing.TB, out plugin.Pusher, points ...metric.Point) (records [][]byte) {
	t.Helper()
	for _, p := range points {
		f := out.Encode
		if strings.HasSuffix(p.Name, "_event") {
			f = out.(plugin.EventEncoder).EncodeEvent
		}
		r, err := f(nil, &p)
		if err != nil {
			t.Fatalf("%s: %v", p.Series(), err)
		}
		records = append(records, r)
	}
	return records
}

// textLog returns a log that is written as text.
func textLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
