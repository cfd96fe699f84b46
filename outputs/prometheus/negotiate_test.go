package prometheus

import (
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
)

func TestNegotiateEncoding(t *testing.T) {
	for _, test := range []struct {
		header []string
		want   encoding
	}{
		{nil, identity},
		{[]string{""}, identity},
		{[]string{"gzip"}, gzipped},
		{[]string{"x-gzip"}, gzipped},
		{[]string{"GZIP"}, gzipped},
		{[]string{"gzip, deflate, br, zstd"}, zstandard},
		{[]string{"gzip;q=1.0, zstd;q=0.5"}, gzipped},
		{[]string{"gzip;q=0"}, identity},
		{[]string{"gzip;q=0, *"}, identity},
		{[]string{"*"}, gzipped},
		{[]string{"identity, gzip;q=0.5"}, identity},
		{[]string{"identity;q=0.5, gzip;q=0.5"}, gzipped},
		{[]string{"br", "zstd ; q=0.1"}, zstandard},
		{[]string{"gzip;q=2"}, identity},
		{[]string{"gzip;q=NaN"}, identity},
		{[]string{"gzip;q=x, ,;;,zstd;q=-1"}, identity},
	} {
		if got, err := negotiateEncoding(http.Header{"Accept-Encoding": test.header}); got != test.want || err != nil {
			t.Errorf("%q: %q, %v, want %q", test.header, got, err, test.want)
		}
	}
	for _, header := range []string{"*;q=0", "identity;q=0", "identity;q=0, gzip;q=0, zstd;q=0.0", "br, identity;q=0", "*;q=0, br"} {
		if got, err := negotiateEncoding(http.Header{"Accept-Encoding": {header}}); err != error(errNotAcceptable) {
			t.Errorf("%q: %q, %v, want %v", header, got, err, errNotAcceptable)
		}
	}
}

// TestRefusedFormatsAreNotSent: a weight of 0 refuses a format.
func TestRefusedFormatsAreNotSent(t *testing.T) {
	for _, test := range []struct{ accept, want string }{
		{"text/plain;q=0, application/openmetrics-text;version=1.0.0;q=0.1", "application/openmetrics-text; version=1.0.0"},
		{"text/plain;q=0, */*", "application/openmetrics-text; version=1.0.0"},
		{"application/openmetrics-text;q=0, */*;q=0.1", "text/plain; version=0.0.4"},
		{"application/openmetrics-text;version=1.0.0;q=0, application/openmetrics-text;version=0.0.1", "application/openmetrics-text; version=0.0.1"},
		{"*/*;q=0, text/plain;version=1.0.0", "text/plain; version=1.0.0"},
		{"text/*;q=0.0, application/openmetrics-text;q=0, */*;q=0.5", "application/vnd.google.protobuf"},
		{"text/plain;version=0.0.4;q=0", "text/plain; version=1.0.0"},
		{"text/html;q=0", "text/plain; version=0.0.4"},
		{"*/*;q=0", ""},
		{"text/*;q=0, application/*;q=0", ""},
	} {
		_, contentType, err := negotiateFormat(http.Header{"Accept": {test.accept}})
		if !strings.HasPrefix(contentType, test.want) || (err == nil) != (test.want != "") {
			t.Errorf("%q: %q, %v, want %q", test.accept, contentType, err, test.want)
		}
	}
	e, _ := newTestEndpoint(t, nil)
	for _, header := range []string{"Accept", "Accept-Encoding"} {
		r := get(t, e, boardOf(batch("a", point("m", 1))), "/metrics", header, "*;q=0")
		if want := "the client accepts no format or encoding of this page\n"; r.StatusCode != 406 || bodyOf(t, r) != want {
			t.Errorf("%s: *;q=0: status %d", header, r.StatusCode)
		}
	}
}

func FuzzNegotiate(f *testing.F) {
	f.Add("gzip;q=0.5, *", prometheusAccept)
	f.Add(";q=,;", "a/b;version=x,*/*;q=z;escaping=allow-utf-8")
	f.Fuzz(func(t *testing.T, encodings, accept string) {
		h := http.Header{"Accept-Encoding": {encodings}, "Accept": {accept}}
		enc, err := negotiateEncoding(h)
		if err == nil && enc != identity && !strings.Contains(strings.ToLower(encodings), string(enc)) && !strings.Contains(encodings, "*") {
			t.Errorf("%q gives %q", encodings, enc)
		}
		format, contentType, err := negotiateFormat(h)
		if err != nil {
			return
		}
		if format.FormatType() == expfmt.TypeUnknown || !strings.HasSuffix(contentType, "; escaping=underscores") {
			t.Errorf("%q gives %q, %q", accept, format, contentType)
		}
	})
}
