package otlp

import (
	"net/http"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"sockwatch/outputs/internal/push"
)

func TestTextOfAnAnswer(t *testing.T) {
	message := func(number protowire.Number, text string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), text)
	}
	for _, test := range []struct {
		name, contentType string
		body              []byte
		want              string
	}{
		{name: "a status", contentType: "application/x-protobuf", body: message(2, "bad name"), want: "bad name"},
		{name: "a status of Loki", contentType: "application/octet-stream", body: message(2, "entry for stream '{}' has timestamp too old"), want: "entry for stream '{}' has timestamp too old"},
		{name: "a status without a message", contentType: "application/x-protobuf", body: message(3, "details"), want: "\x1a\adetails"},
		{name: "damaged", contentType: "application/x-protobuf", body: message(2, "bad name")[:5], want: "\x12\bbad"},
		{name: "text", contentType: "text/plain; charset=utf-8", body: []byte("bad name\n"), want: "bad name\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := &push.Response{Status: http.StatusBadRequest, Header: http.Header{"Content-Type": {test.contentType}}, Body: test.body}
			if got := answerText(a); got != test.want {
				t.Errorf("answerText = %q, want %q", got, test.want)
			}
		})
	}
}

// FuzzAnswer reads answers of foreign servers.
func FuzzAnswer(f *testing.F) {
	partial := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 3)
	partial = protowire.AppendString(protowire.AppendTag(partial, 2, protowire.BytesType), "why")
	f.Add(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), partial))
	f.Add(partial)
	f.Add([]byte("\x0a\xff\xff\xff\xff\x0f"))
	f.Add([]byte("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, body []byte) {
		rejected, message := parsePartialSuccess(body)
		if rejected < 0 || len(message) > len(body) {
			t.Errorf("%d rejected, a message of %d bytes in %d", rejected, len(message), len(body))
		}
		if text, ok := parseStatus(body); ok == (text == "") {
			t.Errorf("parseStatus = %q, %v", text, ok)
		}
		// What is written is read, whatever precedes it, if that is a message.
		again := protowire.AppendBytes(protowire.AppendTag(append([]byte{}, body...), 1, protowire.BytesType), partial)
		if n, why := parsePartialSuccess(again); valid(body) && (n != 3 || why != "why") {
			t.Errorf("parsePartialSuccess = %d, %q, want 3 and why", n, why)
		}
	})
}

// valid reports whether bytes are the fields of a message.
func valid(b []byte) bool {
	for len(b) > 0 {
		_, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return false
		}
		b = b[n:]
	}
	return true
}
