package otlp

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"sockwatch/agent/metric"
	"sockwatch/outputs/internal/promname"
)

// Requests are put together from encoded messages. Their outer messages are the same for
// metrics and logs:
//
//	MetricsData   { repeated ResourceMetrics = 1 }    LogsData   { repeated ResourceLogs = 1 }
//	ResourceMetrics { resource = 1, scope_metrics = 2 } ResourceLogs { resource = 1, scope_logs = 2 }
//	ScopeMetrics  { scope = 1, metrics = 2 }          ScopeLogs  { scope = 1, log_records = 2 }
//
// MetricsData and LogsData have the same encoding as ExportMetricsServiceRequest and
// ExportLogsServiceRequest, whose packages would bring gRPC along.
const (
	fieldFirst  protowire.Number = 1 // resource_metrics, resource and scope, each in its message
	fieldSecond protowire.Number = 2 // scope_metrics, metrics, scope_logs and log_records

	fieldName        protowire.Number = 1 // of Metric
	fieldDescription protowire.Number = 2 // of Metric
	fieldGauge       protowire.Number = 5 // of Metric
	fieldSum         protowire.Number = 7 // of Metric
	fieldDataPoints  protowire.Number = 1 // of Gauge and Sum
	fieldStart       protowire.Number = 2 // of NumberDataPoint
	fieldTime        protowire.Number = 3 // of NumberDataPoint
)

// A resource is the encoded Resource and scope of all requests of an instance.
type resource struct {
	resource, scope []byte
	identity        []byte // a Resource with only the attributes that identify the instance
}

// newResource returns the resource of an instance on a host.
func newResource(o *Options, hostname string) (resource, error) {
	attributes := maps.Clone(o.ResourceAttributes)
	if attributes == nil {
		attributes = map[string]string{}
	}
	attributes["host.name"] = hostname
	attributes["service.name"] = o.ServiceName
	attributes["service.instance.id"] = o.ServiceInstanceID
	if o.ServiceInstanceID == "" {
		attributes["service.instance.id"] = hostname
	}
	var all, identity resourcepb.Resource
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		if attributes[key] == "" {
			continue
		}
		a := stringAttribute(key, attributes[key])
		all.Attributes = append(all.Attributes, a)
		if key == "service.name" || key == "service.instance.id" {
			identity.Attributes = append(identity.Attributes, a)
		}
	}
	var r resource
	var errs [3]error
	r.resource, errs[0] = proto.Marshal(&all)
	r.identity, errs[1] = proto.Marshal(&identity)
	r.scope, errs[2] = proto.Marshal(&commonpb.InstrumentationScope{Name: "sockwatch"})
	return r, errors.Join(errs[:]...)
}

// body returns a request with a Resource, and the content of a ScopeMetrics or ScopeLogs
// except its scope.
func (r *resource) body(resource, content []byte) []byte {
	scope := sizeOf(len(r.scope)) + len(content)
	inner := sizeOf(len(resource)) + sizeOf(scope)
	b := make([]byte, 0, sizeOf(inner))
	b = appendLength(b, fieldFirst, inner)
	b = appendField(b, fieldFirst, resource)
	b = appendLength(b, fieldSecond, scope)
	b = appendField(b, fieldFirst, r.scope)
	return append(b, content...)
}

// overhead returns how much larger a request is than its content, at most.
func (r *resource) overhead() int { return len(r.resource) + len(r.scope) + 4*maxPrefix }

// maxPrefix is how many bytes the number and the length of a field take, at most.
const maxPrefix = 1 + 5

// A metricsRequest collects points. Data points of the same metric are together, in order.
type metricsRequest struct {
	resource resource
	help     *descriptions
	sum      []byte // the fields of each Sum except its data points: a cumulative counter
	groups   []group
	index    map[string]int // of groups, by header and kind
	points   int            // data points
	bytes    int            // of the request, at least
	current  point
}

// descriptions are the descriptions of metrics. They are not part of records: they would make
// these twice as large. Records that were queued before a restart may be sent without them.
type descriptions struct {
	mu     sync.Mutex
	byName map[string]string
}

// add adds the descriptions of metrics.
func (d *descriptions) add(descs []metric.Desc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byName == nil || len(d.byName) >= maxHeaders {
		d.byName = map[string]string{}
	}
	for _, desc := range descs {
		d.byName[promname.Metric(desc.Name, desc.Field)] = strings.ToValidUTF8(desc.Help, "?")
	}
}

// of returns the description of a metric, which is encoded.
func (d *descriptions) of(header []byte) string {
	name, _ := field(header, fieldName, protowire.BytesType)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.byName[string(name.bytes)]
}

// A group is one metric of a request.
type group struct {
	header []byte // a Metric with name, unit and description
	sum    bool
	points []byte // data points as fields of Gauge or Sum
}

// newMetricsRequest returns an empty request.
func newMetricsRequest(r resource, help *descriptions) (*metricsRequest, error) {
	sum, err := proto.Marshal(&metricspb.Sum{
		AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE, IsMonotonic: true,
	})
	return &metricsRequest{resource: r, help: help, sum: sum}, err
}

func (r *metricsRequest) reset() {
	r.groups, r.points, r.bytes = r.groups[:0], 0, r.resource.overhead()
	r.index = map[string]int{}
}

func (r *metricsRequest) items() int { return r.points }

// add adds a record. It reports false if the request has others and would be larger than
// limit.
func (r *metricsRequest) add(record []byte, limit int) (bool, error) {
	p := &r.current
	if err := p.parse(record); err != nil {
		return false, err
	}
	size := 0
	for i := range p.metrics {
		s := &p.metrics[i]
		size += sizeOf(p.dataPoint(s))
		if _, ok := r.index[groupKey(s)]; !ok {
			size += len(s.header) + len(r.help.of(s.header)) + len(r.sum) + 3*maxPrefix
		}
	}
	if r.points > 0 && r.bytes+size > limit {
		return false, nil
	}
	r.bytes += size
	r.points += len(p.metrics)
	for i := range p.metrics {
		s := &p.metrics[i]
		g := r.group(s)
		g.points = p.appendDataPoint(g.points, s)
	}
	return true, nil
}

// groupKey returns the key of a sample's group. Its kind is part of it.
func groupKey(s *sample) string {
	if s.sum {
		return "+" + string(s.header)
	}
	return string(s.header)
}

// group returns the group of a sample. It reuses the buffers of an earlier request.
func (r *metricsRequest) group(s *sample) *group {
	key := groupKey(s)
	i, ok := r.index[key]
	if !ok {
		i = len(r.groups)
		r.index[key] = i
		if i < cap(r.groups) {
			r.groups = r.groups[:i+1]
			r.groups[i].points = r.groups[i].points[:0]
		} else {
			r.groups = append(r.groups, group{})
		}
		r.groups[i].header = append(r.groups[i].header[:0], s.header...)
		if help := r.help.of(s.header); help != "" {
			r.groups[i].header = appendField(r.groups[i].header, fieldDescription, []byte(help))
		}
		r.groups[i].sum = s.sum
	}
	return &r.groups[i]
}

// dataPoint returns the size of a data point.
func (p *point) dataPoint(s *sample) int {
	n := len(p.attributes) + fixed64 + len(s.value)
	if s.sum && p.start != 0 {
		n += fixed64
	}
	return n
}

// fixed64 is the size of a field with a fixed number of 64 bits.
const fixed64 = 1 + 8

func (p *point) appendDataPoint(b []byte, s *sample) []byte {
	b = appendLength(b, fieldDataPoints, p.dataPoint(s))
	if s.sum && p.start != 0 {
		b = protowire.AppendFixed64(protowire.AppendTag(b, fieldStart, protowire.Fixed64Type), p.start)
	}
	b = protowire.AppendFixed64(protowire.AppendTag(b, fieldTime, protowire.Fixed64Type), p.time)
	return append(append(b, p.attributes...), s.value...)
}

func (r *metricsRequest) body() []byte { return r.resource.body(r.resource.resource, r.content()) }

// bodyWithoutInfo returns a request whose resource has only what identifies the instance. From
// the other attributes Prometheus makes a series, target_info, with the times of the data
// points. It is out of order if an earlier request had a later point, even of another
// series, and Prometheus then stores nothing of the request.
func (r *metricsRequest) bodyWithoutInfo() []byte {
	return r.resource.body(r.resource.identity, r.content())
}

func (r *metricsRequest) content() []byte {
	content := make([]byte, 0, r.bytes)
	for i := range r.groups {
		g := &r.groups[i]
		data, fields := fieldGauge, []byte(nil)
		if g.sum {
			data, fields = fieldSum, r.sum
		}
		size := len(fields) + len(g.points)
		content = appendLength(content, fieldSecond, len(g.header)+sizeOf(size))
		content = append(content, g.header...)
		content = appendLength(content, data, size)
		content = append(append(content, fields...), g.points...)
	}
	return content
}

// A logsRequest collects log records.
type logsRequest struct {
	resource resource
	records  []byte // as fields of ScopeLogs
	count    int
}

func (r *logsRequest) reset() { r.records, r.count = r.records[:0], 0 }

func (r *logsRequest) items() int { return r.count }

// add adds a record. It reports false if the request has others and would be larger than
// limit.
func (r *logsRequest) add(record []byte, limit int) (bool, error) {
	if kindOf(record) != kindLogs || len(record) < 2 {
		return false, errUnknownRecord
	}
	record = record[1:]
	if r.count > 0 && r.resource.overhead()+len(r.records)+sizeOf(len(record)) > limit {
		return false, nil
	}
	r.records = appendField(r.records, fieldSecond, record)
	r.count++
	return true, nil
}

func (r *logsRequest) body() []byte { return r.resource.body(r.resource.resource, r.records) }

func (r *logsRequest) bodyWithoutInfo() []byte { return nil }

// sizeOf returns the size of a field with a message of a size. All numbers of fields here
// take one byte.
func sizeOf(message int) int { return 1 + protowire.SizeBytes(message) }

// appendField appends a field with an encoded message.
func appendField(b []byte, number protowire.Number, message []byte) []byte {
	return append(appendLength(b, number, len(message)), message...)
}

// appendLength appends the beginning of a field with a message of a size.
func appendLength(b []byte, number protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.BytesType), uint64(size))
}
