package otlp

import (
	"math"
	"strconv"
	"strings"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/proto"

	"sockwatch/agent/metric"
)

// The record of an event is 'L' and an encoded LogRecord.

// An eventEncoder encodes events as records.
type eventEncoder struct {
	hostname string // of the resource
}

// append appends an event as a record.
func (e *eventEncoder) append(dst []byte, event *metric.Point) ([]byte, error) {
	at, err := unixNano(event.Time)
	if err != nil {
		return dst, err
	}
	severity := severityOf(event)
	r := logspb.LogRecord{
		TimeUnixNano: at, ObservedTimeUnixNano: at, // the time of an event is that of the scan that showed it
		SeverityNumber: severity, SeverityText: severityText[severity],
		EventName: eventName(event), Body: stringValue(sentence(event)), Attributes: e.attributes(event),
	}
	record, err := (proto.MarshalOptions{}).MarshalAppend(append(dst, kindLogs), &r)
	if err != nil {
		return dst, err
	}
	return record, nil
}

// eventName returns the name of an event: sockwatch.tcp_listen.opened.
func eventName(event *metric.Point) string {
	name := "sockwatch." + strings.TrimSuffix(event.Name, "_event")
	if kind := event.Tag("event"); kind != "" {
		name += "." + kind
	}
	return name
}

var severityText = map[logspb.SeverityNumber]string{
	logspb.SeverityNumber_SEVERITY_NUMBER_INFO:  "INFO",
	logspb.SeverityNumber_SEVERITY_NUMBER_WARN:  "WARN",
	logspb.SeverityNumber_SEVERITY_NUMBER_ERROR: "ERROR",
}

// severityOf returns the severity of an event. The verdict of the rules decides. Without rules,
// anything that makes a service publicly reachable is a warning.
func severityOf(event *metric.Point) logspb.SeverityNumber {
	kind := event.Tag("event")
	verdict := event.Tag("expected")
	if v, ok := event.Field("verdict"); ok {
		verdict = v.AsString()
	}
	over := kind == "closed" || kind == "cleared" || kind == "restored"
	switch {
	case over:
		return logspb.SeverityNumber_SEVERITY_NUMBER_INFO
	case verdict == "forbidden" || kind == "failed":
		return logspb.SeverityNumber_SEVERITY_NUMBER_ERROR
	case verdict == "no":
		return logspb.SeverityNumber_SEVERITY_NUMBER_WARN
	case verdict == "yes" || kind == "restarted":
		return logspb.SeverityNumber_SEVERITY_NUMBER_INFO
	case event.Tag("exposure") == "public":
		return logspb.SeverityNumber_SEVERITY_NUMBER_WARN
	default:
		return logspb.SeverityNumber_SEVERITY_NUMBER_INFO
	}
}

// conventions are the tags and fields that OpenTelemetry has names for. All others are under
// "sockwatch.".
var conventions = map[string]string{
	"address":    "network.local.address",
	"port":       "network.local.port",
	"pid":        "process.pid",
	"process":    "process.executable.name",
	"exe":        "process.executable.path",
	"parent_pid": "process.parent_pid",
	"user":       "process.owner",
	"container":  "container.id",
	"pod":        "k8s.pod.uid",
}

// attributes returns the attributes of an event: its tags, then its fields. Their keys are
// unique.
func (e *eventEncoder) attributes(event *metric.Point) []*commonpb.KeyValue {
	attributes := make([]*commonpb.KeyValue, 0, 1+len(event.Tags)+len(event.Fields))
	add := func(key string, v *commonpb.AnyValue) {
		attributes = append(attributes, &commonpb.KeyValue{Key: key, Value: v})
	}
	if event.Tag("port") != "" {
		add("network.transport", stringValue("tcp"))
	}
	for _, t := range event.Tags {
		if t.Key == "host" && t.Value == e.hostname {
			continue // the resource has it
		}
		add(attributeKey(t.Key), tagValue(t))
	}
	for _, f := range event.Fields {
		key := attributeKey(f.Key)
		if event.Tag(f.Key) != "" {
			key = "sockwatch.field." + f.Key
		}
		add(key, fieldValue(f.Value))
	}
	return attributes
}

func attributeKey(key string) string {
	if name, ok := conventions[key]; ok {
		return name
	}
	return "sockwatch." + key
}

// tagValue returns the value of a tag. A port is a number by convention.
func tagValue(t metric.Tag) *commonpb.AnyValue {
	if t.Key == "port" {
		if n, err := strconv.ParseUint(t.Value, 10, 16); err == nil {
			return intValue(int64(n))
		}
	}
	return stringValue(t.Value)
}

// fieldValue returns the value of a field. OTLP has no integers above 2^63-1: they are
// strings.
func fieldValue(v metric.Value) *commonpb.AnyValue {
	switch v.Kind() {
	case metric.KindString:
		return stringValue(v.AsString())
	case metric.KindBool:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: v.AsBool()}}
	case metric.KindInt:
		return intValue(v.AsInt())
	case metric.KindUint:
		if v.AsUint() > math.MaxInt64 {
			return stringValue(v.String())
		}
		return intValue(int64(v.AsUint()))
	default:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: v.AsFloat()}}
	}
}

func stringValue(s string) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: s}}
}

func intValue(n int64) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: n}}
}
