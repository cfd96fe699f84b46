package otlp

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/testing/protocmp"

	"sockwatch/agent/metric"
)

// change returns an event of a kind. The tags are keys and values, fields too.
func change(kind string, tags []string, fields ...any) metric.Point {
	p := metric.Point{Name: "tcp_listen_event", Time: at, Tags: metric.NewTags(append([]string{"event", kind}, tags...)...)}
	for i := 0; i < len(fields); i += 2 {
		f := metric.Field{Key: fields[i].(string)}
		switch v := fields[i+1].(type) {
		case string:
			f.Value = metric.String(v)
		case bool:
			f.Value = metric.Bool(v)
		case int:
			f.Value = metric.Int(int64(v))
		case uint64:
			f.Value = metric.Uint(v)
		case float64:
			f.Value = metric.Float(v)
		}
		p.Fields = append(p.Fields, f)
	}
	return p
}

// A log record has the names of OpenTelemetry's semantic conventions where there are any,
// and everything else under sockwatch.
func TestEventsBecomeLogRecords(t *testing.T) {
	logs := newReceiver(t)
	out, _ := newOutput(t, nil, logs, func(o *Options) {
		o.ServiceName, o.ServiceInstanceID = "ports", "i-0123"
		o.ResourceAttributes = map[string]string{"deployment.environment.name": "production"}
	})
	e := change("owner_changed", []string{
		"address", "0.0.0.0", "port", "80", "family", "ipv4", "exposure", "public", "process", "sshd", "user", "root", "container", "c0ffee", "pod", "0a-1b",
		"host", "web1", "rack", "7",
	}, "history", "h1", "sequence", 42, "pid", 99, "exe", "/usr/sbin/sshd", "parent_pid", 1, "parent_process", "systemd", "previous_process", "nginx",
		"down_seconds", 0.5, "while_down", false, "big", uint64(1<<63), "rack", 8)
	if err := out.Push(t.Context(), encode(t, out, e)); err != nil {
		t.Fatal(err)
	}
	kv := func(key string, v *commonpb.AnyValue) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: key, Value: v}
	}
	boolean := func(v bool) *commonpb.AnyValue {
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: v}}
	}
	want := &logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
			str("deployment.environment.name", "production"), str("host.name", "web1"), str("service.instance.id", "i-0123"), str("service.name", "ports")}},
		ScopeLogs: []*logspb.ScopeLogs{{
			Scope: &commonpb.InstrumentationScope{Name: "sockwatch"},
			LogRecords: []*logspb.LogRecord{{
				TimeUnixNano: atNano, ObservedTimeUnixNano: atNano,
				SeverityNumber: logspb.SeverityNumber_SEVERITY_NUMBER_WARN, SeverityText: "WARN",
				EventName: "sockwatch.tcp_listen.owner_changed",
				Body:      stringValue("owner_changed 0.0.0.0:80 public sshd[99] root c0ffee; was nginx 0a-1b; down 0.5s"),
				Attributes: []*commonpb.KeyValue{
					str("network.transport", "tcp"),
					str("network.local.address", "0.0.0.0"),
					str("container.id", "c0ffee"),
					str("sockwatch.event", "owner_changed"),
					str("sockwatch.exposure", "public"),
					str("sockwatch.family", "ipv4"),
					str("k8s.pod.uid", "0a-1b"),
					kv("network.local.port", intValue(80)),
					str("process.executable.name", "sshd"),
					str("sockwatch.rack", "7"),
					str("process.owner", "root"),
					str("sockwatch.history", "h1"),
					kv("sockwatch.sequence", intValue(42)),
					kv("process.pid", intValue(99)),
					str("process.executable.path", "/usr/sbin/sshd"),
					kv("process.parent_pid", intValue(1)),
					str("sockwatch.parent_process", "systemd"),
					str("sockwatch.previous_process", "nginx"),
					kv("sockwatch.down_seconds", &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: 0.5}}),
					kv("sockwatch.while_down", boolean(false)),
					str("sockwatch.big", "9223372036854775808"),
					kv("sockwatch.field.rack", intValue(8)),
				},
			}},
		}},
	}}}
	if diff := cmp.Diff(want, logs.logs[0], protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A point with another host than the resource's keeps it.
func TestHostOfAnEventIsKept(t *testing.T) {
	e := eventEncoder{hostname: "web1"}
	for _, test := range []struct{ host, want string }{{"web1", ""}, {"web2", "web2"}} {
		p := change("opened", []string{"host", test.host})
		got := ""
		for _, a := range e.attributes(&p) {
			if a.Key == "sockwatch.host" {
				got = a.Value.GetStringValue()
			}
		}
		if got != test.want {
			t.Errorf("host %s: sockwatch.host = %q, want %q", test.host, got, test.want)
		}
	}
}

func TestNamesOfEvents(t *testing.T) {
	for _, test := range []struct{ point, kind, want string }{
		{"tcp_listen_event", "opened", "sockwatch.tcp_listen.opened"},
		{"tcp_listen_rule_event", "failed", "sockwatch.tcp_listen_rule.failed"},
		{"other", "", "sockwatch.other"},
	} {
		p := metric.Point{Name: test.point, Tags: metric.NewTags("event", test.kind)}
		if got := eventName(&p); got != test.want {
			t.Errorf("name of %s = %q, want %q", p.Series(), got, test.want)
		}
	}
}

func TestSeverities(t *testing.T) {
	for _, test := range []struct {
		event metric.Point
		want  string
	}{
		{event: change("opened", []string{"exposure", "public"}), want: "WARN"},
		{event: change("opened", []string{"exposure", "private"}), want: "INFO"},
		{event: change("opened", nil), want: "INFO"},
		{event: change("returned", []string{"exposure", "public"}), want: "WARN"},
		{event: change("owner_changed", []string{"exposure", "public"}), want: "WARN"},
		{event: change("exposure_changed", []string{"exposure", "public"}), want: "WARN"},
		{event: change("exposure_changed", []string{"exposure", "loopback"}), want: "INFO"},
		{event: change("restarted", []string{"exposure", "public"}), want: "INFO"},
		{event: change("closed", []string{"exposure", "public"}), want: "INFO"},
		{event: change("opened", []string{"exposure", "public", "expected", "yes"}), want: "INFO"},
		{event: change("opened", []string{"exposure", "loopback", "expected", "no"}), want: "WARN"},
		{event: change("restarted", []string{"exposure", "loopback", "expected", "no"}), want: "WARN"},
		{event: change("opened", []string{"exposure", "loopback", "expected", "forbidden"}), want: "ERROR"},
		{event: change("closed", []string{"exposure", "public", "expected", "forbidden"}), want: "INFO"},
		{event: change("opened", []string{"exposure", "public", "expected", "undecided"}), want: "WARN"},
		{event: change("failed", []string{"name", "web", "rule", "expect"}), want: "ERROR"},
		{event: change("restored", []string{"name", "web", "rule", "expect"}), want: "INFO"},
		{event: change("violated", []string{"name", "telnet", "rule", "forbid"}, "verdict", "forbidden"), want: "ERROR"},
		{event: change("violated", nil, "verdict", "no"), want: "WARN"},
		{event: change("cleared", nil, "verdict", "forbidden"), want: "INFO"},
	} {
		if got := severityText[severityOf(&test.event)]; got != test.want {
			t.Errorf("severity of %s = %q, want %q", test.event.Series(), got, test.want)
		}
	}
}
