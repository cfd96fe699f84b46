package otlp

import (
	"mime"

	"google.golang.org/protobuf/encoding/protowire"

	"sockwatch/outputs/internal/push"
)

// answerText returns the message of an answer: that of a google.rpc.Status, which OTLP
// requires, or else the text.
func answerText(resp *push.Response) string {
	if isProtobuf(resp) && resp.Status >= 300 {
		if text, ok := parseStatus(resp.Body); ok {
			return text
		}
	}
	return resp.Text()
}

// isProtobuf reports whether an answer is protobuf. Loki and Mimir send it as octets.
func isProtobuf(resp *push.Response) bool {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return kind == "application/x-protobuf" || kind == "application/protobuf" || kind == "application/octet-stream"
}

// parsePartialSuccess returns what an ExportMetricsServiceResponse or
// ExportLogsServiceResponse says: how many data points or log records were rejected, and a
// message. Anything else counts as an empty response.
func parsePartialSuccess(response []byte) (rejected int64, message string) {
	partial, ok := field(response, 1, protowire.BytesType)
	if !ok {
		return 0, ""
	}
	if n, ok := field(partial.bytes, 1, protowire.VarintType); ok {
		rejected = max(int64(n.number), 0)
	}
	if m, ok := field(partial.bytes, 2, protowire.BytesType); ok {
		message = string(m.bytes)
	}
	return rejected, message
}

// parseStatus returns the message of a google.rpc.Status. It reports false if there is none.
func parseStatus(status []byte) (string, bool) {
	m, ok := field(status, 2, protowire.BytesType)
	return string(m.bytes), ok && len(m.bytes) > 0
}

// A value is that of a field: bytes or a number.
type value struct {
	bytes  []byte
	number uint64
}

// field returns the last value of a field of a message. It reports false if there is none,
// or if the message is damaged.
func field(message []byte, number protowire.Number, kind protowire.Type) (v value, found bool) {
	for len(message) > 0 {
		n, t, size := protowire.ConsumeTag(message)
		if size < 0 {
			return value{}, false
		}
		message = message[size:]
		size = protowire.ConsumeFieldValue(n, t, message)
		if size < 0 {
			return value{}, false
		}
		if n == number && t == kind {
			found = true
			switch kind {
			case protowire.BytesType:
				v.bytes, _ = protowire.ConsumeBytes(message)
			case protowire.VarintType:
				v.number, _ = protowire.ConsumeVarint(message)
			}
		}
		message = message[size:]
	}
	return v, found
}
