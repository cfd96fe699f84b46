package push

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/outputs/internal/push/pushtest"
)

// TestBodiesDecompress compresses with one Compressor several times, and keeps every body.
func TestBodiesDecompress(t *testing.T) {
	records := [][]byte{[]byte(`{"a":1}`), []byte(`{"b":2}`), []byte(strings.Repeat("x", 100000))}
	for _, tt := range []struct {
		encoding string
		header   string
	}{
		{encoding: "identity"},
		{encoding: "gzip", header: "gzip"},
		{encoding: "zstd", header: "zstd"},
		{encoding: "snappy", header: "snappy"},
	} {
		t.Run(tt.encoding, func(t *testing.T) {
			c := NewCompressor(tt.encoding)
			if got := c.Encoding(); got != tt.header {
				t.Errorf("Encoding() = %q, want %q", got, tt.header)
			}
			var want []string
			var bodies [][]byte
			for n := range records {
				for _, f := range []Framing{Lines, JSONArray} {
					body, err := c.Join(records[:n+1], f)
					if err != nil {
						t.Fatal(err)
					}
					bodies = append(bodies, body)
				}
				lines := string(bytes.Join(records[:n+1], []byte("\n"))) + "\n"
				want = append(want, lines, "["+string(bytes.Join(records[:n+1], []byte(",")))+"]")
			}
			for i, body := range bodies { // all at the end: none may have been reused
				raw, err := pushtest.ReadBody(&http.Request{Body: noClose{bytes.NewReader(body)}, Header: http.Header{"Content-Encoding": header(tt.header)}})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want[i], string(raw)); diff != "" {
					t.Errorf("body %d (-want +got)\n%.1000s", i, diff)
				}
				if tt.header != "" && i == len(bodies)-1 && len(body) > len(raw)/10 {
					t.Errorf("%d bytes of %d", len(body), len(raw))
				}
			}
		})
	}
}

type noClose struct{ *bytes.Reader }

func (noClose) Close() error { return nil }

func header(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}
