package otlp

import (
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"sockwatch/outputs/internal/promname"
)

const (
	fieldName        protowire.Number = 1 // of Metric
	fieldDescription protowire.Number = 2 // of Metric
	fieldGauge       protowire.Number = 5 // of Metric
	fieldSum         protowire.Number = 7 // of Metric
	fieldDataPoints  protowire.Number = 1 // of Gauge and Sum
	fieldStart       protowire.Number = 2 // of NumberDataPoint
	fieldTime        protowire.Number = 3 // of NumberDataPoint
)

// A metricsRequest collects points. Data points of the same metric are together, in order.
type metricsRequest struct {
	resource resource
	docs     *promname.Docs
	sum      []byte // the fields of each Sum except its data points: a cumulative counter
	groups   []group
	index    map[string]int // of groups, by key
	key      []byte         // of the last group that was looked for: its kind and header
	points   int            // data points
	bytes    int            // of the request, at least
	current  point
}

// A group is one metric of a request.
type group struct {
	header []byte // a Metric with name, unit and description
	sum    bool
	points []byte // data points as fields of Gauge or Sum
}

// newMetricsRequest returns an empty request.
func newMetricsRequest(r resource, docs *promname.Docs) (*metricsRequest, error) {
	sum, err := proto.Marshal(&metricspb.Sum{
		AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE, IsMonotonic: true,
	})
	return &metricsRequest{resource: r, docs: docs, sum: sum}, err
}

// keepBuffers is the size of a request above which its buffers are not kept for the next one.
const keepBuffers = 1 << 20

func (r *metricsRequest) reset() {
	if r.bytes > keepBuffers {
		r.groups = nil
	}
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
		if _, ok := r.groupOf(s); !ok {
			size += len(s.header) + len(r.helpOf(s.header)) + len(r.sum) + 3*maxPrefix
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

// groupOf returns the index of a sample's group. It reports false if there is none.
func (r *metricsRequest) groupOf(s *sample) (int, bool) {
	kind := byte(0)
	if s.sum {
		kind = 1
	}
	r.key = append(append(r.key[:0], kind), s.header...)
	i, ok := r.index[string(r.key)]
	return i, ok
}

// group returns the group of a sample. It reuses the buffers of an earlier request.
func (r *metricsRequest) group(s *sample) *group {
	i, ok := r.groupOf(s)
	if !ok {
		i = len(r.groups)
		r.index[string(r.key)] = i
		if i < cap(r.groups) {
			r.groups = r.groups[:i+1]
			r.groups[i].points = r.groups[i].points[:0]
		} else {
			r.groups = append(r.groups, group{})
		}
		r.groups[i].header = append(r.groups[i].header[:0], s.header...)
		if help := r.helpOf(s.header); help != "" {
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

// helpOf returns the description of a metric, which is encoded. Descriptions are not part of
// records: they would make these twice as large. Records that were queued before a restart may
// be sent without them.
func (r *metricsRequest) helpOf(header []byte) string {
	name, _ := field(header, fieldName, protowire.BytesType)
	return r.docs.All()[string(name.bytes)].Help
}
