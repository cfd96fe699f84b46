package otlp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"sockwatch/agent/metric"
	"sockwatch/outputs/internal/promname"
)

// The kinds of records, which are their first byte.
const (
	kindMetrics byte = 'M'
	kindLogs    byte = 'L'
)

func kindOf(record []byte) byte {
	if len(record) == 0 {
		return 0
	}
	return record[0]
}

// The record of a point has everything that its data points share only once. It becomes
// messages of OTLP in metricsRequest. Layout, little-endian, with offset and size in bytes:
//
//	 0  1  'M'
//	 1  8  time, Unix nanoseconds
//	 9  8  start of the counters, Unix nanoseconds; 0: unknown
//	17     attributes of each data point, encoded, after their length (uvarint)
//	       for each metric:
//	           1 byte: 1 if it is a sum, 0 if it is a gauge
//	           encoded Metric with name and unit, after its length (uvarint)
//	           encoded NumberDataPoint without attributes and times, after its length (uvarint)
const (
	timeOffset  = 1
	startOffset = timeOffset + 8
	pointHeader = startOffset + 8
)

// A pointEncoder encodes points as records. The zero value has no documentation of fields.
type pointEncoder struct {
	descs   []metric.Desc
	headers map[[2]string]header // by point and field
	names   []string             // of the metrics of the current point
	buffer  []byte
	value   metricspb.NumberDataPoint
}

// A header is what the metrics of one field have in common.
type header struct {
	name    string
	typ     metric.Type
	encoded []byte // a Metric with name and unit
}

// maxHeaders bounds the memory for headers.
const maxHeaders = 10_000

// use sets the documentation of the fields of the following points.
func (e *pointEncoder) use(descs []metric.Desc) {
	e.descs, e.headers = descs, nil
}

// What the data points of a record say.
type content bool

const (
	recorded content = true  // the values of the fields
	ended    content = false // that there are no more values
)

// append appends a point as a record. It appends nothing if no field has a sample.
func (e *pointEncoder) append(dst []byte, p *metric.Point, what content) ([]byte, error) {
	at, err := unixNano(p.Time)
	if err != nil {
		return dst, err
	}
	start := uint64(0)
	if !p.Start.IsZero() {
		start, _ = unixNano(p.Start) // 0, which is unknown, if it is out of range
	}
	from := len(dst)
	dst = append(dst, kindMetrics)
	dst = binary.LittleEndian.AppendUint64(dst, at)
	dst = binary.LittleEndian.AppendUint64(dst, start)
	if dst, err = e.appendAttributes(dst, p.Tags); err != nil {
		return dst[:from], err
	}
	e.names = e.names[:0]
	for _, f := range p.Fields {
		if dst, err = e.appendMetric(dst, p.Name, f, what); err != nil {
			return dst[:from], err
		}
	}
	if len(e.names) == 0 {
		return dst[:from], nil
	}
	return dst, nil
}

func (e *pointEncoder) appendAttributes(dst []byte, tags []metric.Tag) ([]byte, error) {
	attributes := make([]*commonpb.KeyValue, len(tags))
	for i, t := range tags {
		attributes[i] = stringAttribute(t.Key, t.Value)
	}
	return e.appendMessage(dst, &metricspb.NumberDataPoint{Attributes: attributes})
}

// appendMetric appends the metric of a field. It appends nothing if the field has no sample,
// or if the metric of an earlier field has the same name.
func (e *pointEncoder) appendMetric(dst []byte, point string, f metric.Field, what content) ([]byte, error) {
	if f.Value.Kind() == metric.KindString {
		return dst, nil
	}
	h, err := e.header(point, f.Key)
	if err != nil {
		return dst, err
	}
	e.value.Value, e.value.Flags = nil, 0
	if what == ended {
		e.value.Flags = uint32(metricspb.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK)
	} else if !setValue(&e.value, f.Value, h.typ) {
		return dst, nil
	}
	if slices.Contains(e.names, h.name) {
		return dst, nil
	}
	e.names = append(e.names, h.name)
	if h.typ == metric.Counter {
		dst = append(dst, 1)
	} else {
		dst = append(dst, 0)
	}
	dst = appendPart(dst, h.encoded)
	return e.appendMessage(dst, &e.value)
}

// setValue sets the value of a data point. It reports false if there is no sample.
func setValue(p *metricspb.NumberDataPoint, v metric.Value, t metric.Type) bool {
	switch u := v.AsUint(); {
	case v.Kind() == metric.KindInt:
		p.Value = &metricspb.NumberDataPoint_AsInt{AsInt: v.AsInt()}
	case v.Kind() == metric.KindUint && u <= math.MaxInt64:
		p.Value = &metricspb.NumberDataPoint_AsInt{AsInt: int64(u)}
	case v.Kind() == metric.KindBool:
		n := int64(0)
		if v.AsBool() {
			n = 1
		}
		p.Value = &metricspb.NumberDataPoint_AsInt{AsInt: n}
	default:
		n, ok := promname.Sample(v, t)
		p.Value = &metricspb.NumberDataPoint_AsDouble{AsDouble: n}
		return ok
	}
	return true
}

func (e *pointEncoder) header(point, field string) (header, error) {
	key := [2]string{point, field}
	if h, ok := e.headers[key]; ok {
		return h, nil
	}
	desc, _ := promname.Desc(e.descs, point, field)
	h := header{name: promname.Metric(point, field), typ: desc.Type}
	var err error
	h.encoded, err = proto.Marshal(&metricspb.Metric{Name: h.name, Unit: ucum(desc.Unit)})
	if err != nil {
		return header{}, fmt.Errorf("field %q: %w", field, err)
	}
	if e.headers == nil || len(e.headers) >= maxHeaders {
		e.headers = map[[2]string]header{}
	}
	e.headers[key] = h
	return h, nil
}

// ucum returns a unit in the notation of UCUM. Units that count things are annotations.
func ucum(unit string) string {
	switch unit {
	case "":
		return ""
	case "seconds", "Unix seconds":
		return "s"
	case "bytes":
		return "By"
	default:
		return "{" + strings.NewReplacer("{", "", "}", "").Replace(unit) + "}"
	}
}

// appendMessage appends a message after its length.
func (e *pointEncoder) appendMessage(dst []byte, m proto.Message) ([]byte, error) {
	var err error
	if e.buffer, err = (proto.MarshalOptions{}).MarshalAppend(e.buffer[:0], m); err != nil {
		return dst, err
	}
	return appendPart(dst, e.buffer), nil
}

// appendPart appends bytes after their length.
func appendPart(dst, part []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(part))), part...)
}

func stringAttribute(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

var errTimeRange = errors.New("time out of range")

// unixNano returns a time as OTLP has it: 0 is not a time.
func unixNano(t time.Time) (uint64, error) {
	if !t.After(time.Unix(0, 0)) || t.After(time.Unix(0, math.MaxInt64)) {
		return 0, errTimeRange
	}
	return uint64(t.UnixNano()), nil
}

// restamp appends a record of a point with another time.
func restamp(dst, record []byte, t time.Time) ([]byte, error) {
	if kindOf(record) != kindMetrics || len(record) < pointHeader {
		return dst, errUnknownRecord
	}
	at, err := unixNano(t)
	if err != nil {
		return dst, err
	}
	from := len(dst)
	dst = append(dst, record...)
	binary.LittleEndian.PutUint64(dst[from+timeOffset:], at)
	return dst, nil
}

// timeOf returns the time of a record of a point.
func timeOf(record []byte) int64 {
	return int64(binary.LittleEndian.Uint64(record[timeOffset:])) //nolint:gosec // unixNano has checked it
}

// A point is the parsed record of a point.
type point struct {
	time, start uint64
	attributes  []byte
	metrics     []sample
}

// A sample is one metric of a point, with its value.
type sample struct {
	sum           bool
	header, value []byte
}

// parse parses a record into p, whose buffers it reuses. The result refers to the record.
func (p *point) parse(record []byte) error {
	if kindOf(record) != kindMetrics || len(record) < pointHeader {
		return errUnknownRecord
	}
	p.time = binary.LittleEndian.Uint64(record[timeOffset:])
	p.start = binary.LittleEndian.Uint64(record[startOffset:])
	if p.start > p.time {
		p.start = 0
	}
	p.metrics = p.metrics[:0]
	rest, ok := record[pointHeader:], true
	if p.attributes, rest, ok = cutPart(rest); !ok {
		return errUnknownRecord
	}
	for len(rest) > 0 {
		s := sample{sum: rest[0] == 1}
		if rest[0] > 1 {
			return errUnknownRecord
		}
		if s.header, rest, ok = cutPart(rest[1:]); !ok {
			return errUnknownRecord
		}
		if s.value, rest, ok = cutPart(rest); !ok {
			return errUnknownRecord
		}
		p.metrics = append(p.metrics, s)
	}
	return nil
}

// cutPart returns the part that appendPart has written, and what follows it.
func cutPart(b []byte) (part, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	end := size + int(n)
	return b[size:end], b[end:], true
}
