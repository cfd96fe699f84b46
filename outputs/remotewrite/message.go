package remotewrite

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"sockwatch/agent/metric"
	"sockwatch/outputs/internal/promname"
)

// The messages of both versions of the protocol, written field by field: they are few, and
// a generated encoder would need every label and sample as an object.

const nameLabel = "__name__"

// position returns where among sorted labels the label with the metric's name belongs.
func position(set []label) int {
	i, _ := slices.BinarySearchFunc(set, nameLabel, func(l label, name string) int { return strings.Compare(l.name, name) })
	return i
}

// appendV1 appends a prometheus.WriteRequest (remote write 1.0) of all samples, and of the
// documentation of metrics by name.
//
//	message WriteRequest   { repeated TimeSeries timeseries = 1; repeated MetricMetadata metadata = 3; }
//	message TimeSeries     { repeated Label labels = 1; repeated Sample samples = 2; }
//	message Label          { string name = 1; string value = 2; }
//	message Sample         { double value = 1; int64 timestamp = 2; }
//	message MetricMetadata { MetricType type = 1; string metric_family_name = 2; string help = 4; string unit = 5; }
func appendV1(dst []byte, c *collection, docs map[string]promname.Doc) []byte {
	type encoded struct{ before, after []byte } // the labels on both sides of the name
	sets := make([]encoded, len(c.sets))
	for i, set := range c.sets {
		at := position(set)
		for j, l := range set {
			half := &sets[i].before
			if j >= at {
				half = &sets[i].after
			}
			*half = appendLabelV1(*half, l)
		}
	}
	names := make([][]byte, len(c.metrics))
	for i, name := range c.metrics {
		names[i] = appendLabelV1(nil, label{nameLabel, name})
	}
	var samples []byte
	for i := range c.series {
		s := &c.series[i]
		samples = samples[:0]
		for _, x := range s.samples {
			samples = appendSample(samples, 2, x.value, x.time, 0)
		}
		set, name := &sets[s.set], names[s.metric]
		dst = protowire.AppendTag(dst, 1, protowire.BytesType)
		dst = protowire.AppendVarint(dst, uint64(len(set.before)+len(name)+len(set.after)+len(samples)))
		dst = append(append(append(append(dst, set.before...), name...), set.after...), samples...)
	}
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		d := docs[name]
		if d.Type == metric.Untyped { // mostly a string
			continue
		}
		m := appendInt(nil, 1, uint64(kindNumbers[d.Type]))
		m = appendString(m, 2, name)
		m = appendString(m, 4, d.Help)
		m = appendString(m, 5, d.Unit)
		dst = appendMessage(dst, 3, m)
	}
	return dst
}

func appendLabelV1(dst []byte, l label) []byte {
	size := protowire.SizeTag(1) + protowire.SizeBytes(len(l.name)) + protowire.SizeTag(2) + protowire.SizeBytes(len(l.value))
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(size)) //nolint:gosec // not negative
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	dst = protowire.AppendString(dst, l.name)
	dst = protowire.AppendTag(dst, 2, protowire.BytesType)
	return protowire.AppendString(dst, l.value)
}

// kindNumbers are the values of the enum MetricType, which is the same in both versions.
var kindNumbers = [...]byte{metric.Untyped: 0, metric.Counter: 1, metric.Gauge: 2}

// appendV2 appends an io.prometheus.write.v2.Request (remote write 2.0).
//
//	message Request    { repeated string symbols = 4; repeated TimeSeries timeseries = 5; }
//	message TimeSeries { repeated uint32 labels_refs = 1; repeated Sample samples = 2; Metadata metadata = 5; }
//	message Sample     { double value = 1; int64 timestamp = 2; int64 start_timestamp = 3; }
//	message Metadata   { MetricType type = 1; uint32 help_ref = 3; uint32 unit_ref = 4; }
func appendV2(dst []byte, c *collection, docs map[string]promname.Doc) []byte {
	table := symbols{refs: map[string]uint32{}}
	table.ref("") // the first symbol is empty
	nameRef := table.ref(nameLabel)
	type encoded struct{ before, after []byte }
	sets := make([]encoded, len(c.sets))
	for i, set := range c.sets {
		at := position(set)
		for j, l := range set {
			half := &sets[i].before
			if j >= at {
				half = &sets[i].after
			}
			*half = protowire.AppendVarint(*half, uint64(table.ref(l.name)))
			*half = protowire.AppendVarint(*half, uint64(table.ref(l.value)))
		}
	}
	names, meta := make([][]byte, len(c.metrics)), make([][]byte, len(c.metrics))
	for i, name := range c.metrics {
		names[i] = protowire.AppendVarint(protowire.AppendVarint(nil, uint64(nameRef)), uint64(table.ref(name)))
		meta[i] = appendInt(meta[i], 3, uint64(table.ref(docs[name].Help)))
		meta[i] = appendInt(meta[i], 4, uint64(table.ref(docs[name].Unit)))
	}
	for _, s := range table.list {
		dst = protowire.AppendTag(dst, 4, protowire.BytesType)
		dst = protowire.AppendString(dst, s)
	}
	var m, kind []byte
	for i := range c.series {
		s := &c.series[i]
		set, name := &sets[s.set], names[s.metric]
		m = protowire.AppendTag(m[:0], 1, protowire.BytesType)
		m = protowire.AppendVarint(m, uint64(len(set.before)+len(name)+len(set.after)))
		m = append(append(append(m, set.before...), name...), set.after...)
		for _, x := range s.samples {
			m = appendSample(m, 2, x.value, x.time, x.start)
		}
		kind = appendInt(kind[:0], 1, uint64(kindNumbers[s.kind]))
		m = protowire.AppendTag(m, 5, protowire.BytesType)
		m = protowire.AppendVarint(m, uint64(len(kind)+len(meta[s.metric])))
		m = append(append(m, kind...), meta[s.metric]...)
		dst = appendMessage(dst, 5, m)
	}
	return dst
}

// symbols is the table of the strings of a request.
type symbols struct {
	list []string
	refs map[string]uint32
}

func (t *symbols) ref(s string) uint32 {
	ref, ok := t.refs[s]
	if !ok {
		ref = uint32(len(t.list)) //nolint:gosec // far fewer
		t.refs[s] = ref
		t.list = append(t.list, s)
	}
	return ref
}

// appendSample appends a Sample of either version. 1.0 has no start.
func appendSample(dst []byte, number protowire.Number, value float64, at, start int64) []byte {
	var b [3 * (1 + binary.MaxVarintLen64)]byte
	m := b[:0]
	if bits := math.Float64bits(value); bits != 0 {
		m = protowire.AppendTag(m, 1, protowire.Fixed64Type)
		m = protowire.AppendFixed64(m, bits)
	}
	m = appendInt(m, 2, uint64(at))    //nolint:gosec // two's complement, as protobuf has it
	m = appendInt(m, 3, uint64(start)) //nolint:gosec // likewise
	return appendMessage(dst, number, m)
}

func appendMessage(dst []byte, number protowire.Number, m []byte) []byte {
	dst = protowire.AppendTag(dst, number, protowire.BytesType)
	return protowire.AppendBytes(dst, m)
}

// appendInt appends an integer field, unless it is 0.
func appendInt(dst []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, number, protowire.VarintType), v)
}

// appendString appends a string field, unless it is empty.
func appendString(dst []byte, number protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, number, protowire.BytesType), s)
}
