package otlp

import (
	"errors"
	"maps"
	"slices"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
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

// A logsRequest collects log records.
type logsRequest struct {
	resource resource
	records  []byte // as fields of ScopeLogs
	count    int
}

func (r *logsRequest) reset() {
	if len(r.records) > keepBuffers {
		r.records = nil
	}
	r.records, r.count = r.records[:0], 0
}

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
