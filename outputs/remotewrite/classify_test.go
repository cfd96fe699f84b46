package remotewrite

import (
	"testing"

	"sockwatch/outputs/internal/push/pushtest"
)

func TestAnswers(t *testing.T) {
	const count = writtenHeader + ": "
	for _, test := range []struct {
		name    string
		version string
		status  int
		body    string
		headers []string
		want    string
		text    string
	}{
		{name: "stored", version: version2, status: 204, headers: []string{count + "3"}, want: "stored"},
		{name: "stored with 200", version: version1, status: 200, want: "stored"},
		{
			name: "stored less", version: version2, status: 204, headers: []string{count + "1"}, want: "partial 2",
			text: "204 No Content: stored only 1 of 3 samples",
		},
		{
			name: "stored nothing", version: version2, status: 200, headers: []string{count + "0"}, want: "partial 2",
			text: "200 OK: stored only 0 of 3 samples",
		},
		{
			name: "a login portal", version: version1, status: 200, headers: []string{"Content-Type: text/html"}, body: "<html>", want: "kept",
			text: "200 OK: a web page: this is not how a receiver of remote write answers: check urls",
		},
		{name: "1.0 has no count", version: version1, status: 200, headers: []string{count + "0"}, want: "stored"},
		{
			name: "2.0 unknown", version: version2, status: 415, body: "no", want: "kept",
			text: "415 Unsupported Media Type: no: the server does not understand version 2.0 of remote write: check urls and protocol_version",
		},
		{
			name: "2.0 ignored", version: version2, status: 200, want: "kept",
			text: "200 OK: the server does not understand version 2.0 of remote write: check urls and protocol_version",
		},
		{
			name: "1.0 unknown", version: version1, status: 415, want: "kept",
			text: "415 Unsupported Media Type: the server does not understand version 1.0 of remote write: check urls and protocol_version",
		},
		{
			name: "Prometheus 3, some out of order", version: version2, status: 400, headers: []string{count + "2"},
			body: `out of order sample for series {__name__="m"}`, want: "partial 1",
			text: `400 Bad Request: out of order sample for series {__name__="m"}: stored only 2 of 3 samples`,
		},
		{
			name: "Prometheus 3, all out of order", version: version2, status: 400, headers: []string{count + "0"},
			body: `out of order sample for series {__name__="m"}`, want: "rejected [0 1], others stored",
		},
		{
			name: "Prometheus 3, one label invalid", version: version2, status: 400, headers: []string{count + "2"},
			body: `invalid metric name or labels, got {__name__="m"}`, want: "partial 1",
		},
		{name: "Prometheus 2", version: version1, status: 400, body: "out of order sample\n", want: "rejected [0 1], others stored", text: "400 Bad Request: out of order sample (and 1 more rejected records)"},
		{name: "Prometheus 2 out of bounds", version: version1, status: 400, body: "out of bounds\n", want: "rejected [0 1], others stored"},
		{name: "Prometheus 2 duplicate", version: version1, status: 400, body: "duplicate sample for timestamp\n", want: "rejected [0 1], others stored"},
		{name: "Prometheus 2 too old", version: version1, status: 500, body: "too old sample\n", want: "rejected [0 1], others stored"},
		{name: "another 500", version: version1, status: 500, body: "log: disk full after a too old sample\n", want: "kept"},
		{
			name: "Thanos", version: version1, status: 409, want: "rejected [0 1], others stored",
			body: "store locally for endpoint {10.0.0.7:10901 10.0.0.7:19391 a}: conflict",
		},
		{
			name: "Thanos not ready", version: version1, status: 503, body: "store locally for endpoint: TSDB not ready", want: "kept",
		},
		{
			name: "Mimir too old", version: version1, status: 400, want: "rejected [0 1], others stored",
			body: `failed pushing to ingester i1: user=u: the sample has been rejected because its timestamp is too old (err-mimir-sample-timestamp-too-old). The affected sample has timestamp 2024-01-29T13:44:19.997Z and is from series {__name__="m"}`,
		},
		{
			name: "Mimir out of order", version: version1, status: 400, want: "rejected [0 1], others stored",
			body: "the sample has been rejected because another sample with a more recent timestamp has already been ingested and out-of-order samples are not allowed (err-mimir-sample-out-of-order)",
		},
		{
			name: "Mimir duplicate", version: version1, status: 400, want: "rejected [0 1], others stored",
			body: "the sample has been rejected because another sample with the same timestamp, but a different value, has already been ingested (err-mimir-sample-duplicate-timestamp)",
		},
		{
			name: "Mimir limit", version: version1, status: 400, want: "bisect",
			body: `received a series whose label value length exceeds the limit, label: 'process', value: 'out of order sample' (err-mimir-label-value-too-long)`,
		},
		{name: "Cortex", version: version1, status: 400, body: "user=1: sample timestamp out of order; last timestamp: 1", want: "rejected [0 1], others stored"},
		{
			name: "the words of a label", version: version1, status: 400, body: `label limit exceeded: {process="out of order sample"}`, want: "bisect",
		},
		{name: "JSON", version: version1, status: 400, body: `{"error": "out of bounds"}`, want: "rejected [0 1], others stored"},
		{name: "bad", version: version1, status: 400, body: "no", want: "bisect"},
		{name: "bad with 2.0", version: version2, status: 400, body: "no", want: "bisect"},
		{name: "bad with 2.0, nothing stored", version: auto, status: 400, body: "no", headers: []string{count + "0"}, want: "bisect"},
		{name: "login", version: version1, status: 401, want: "kept"},
		{name: "forbidden", version: version1, status: 403, want: "kept"},
		{name: "missing", version: version1, status: 404, body: "404 page not found", want: "kept", text: "404 Not Found: 404 page not found: check urls"},
		{name: "receiver is off", version: version1, status: 404, body: "remote write receiver needs to be enabled with --web.enable-remote-write-receiver", want: "kept"},
		{name: "timeout", version: version1, status: 408, want: "kept"},
		{name: "too large", version: version2, status: 413, want: "too large"},
		{name: "busy", version: version1, status: 429, headers: []string{"Retry-After: 7"}, want: "after 7s"},
		{name: "busy with 2.0", version: auto, status: 429, headers: []string{"Retry-After: 7"}, want: "after 7s"},
		{name: "down", version: version2, status: 503, want: "kept"},
		{name: "redirect", version: version1, status: 308, headers: []string{"Location: https://other.example.org/"}, want: "kept"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := pushtest.NewServer(t)
			server.Answers(test.status, test.body, test.headers...)
			out, _ := newTestOutput(t, server.URL, useVersion(test.version))
			err := pushText(t, out, `1 {} m=g1 n=g2`, `1 {a="b"} m=g3`)
			if got := kind(err); got != test.want {
				t.Errorf("outcome %s, want %s: %v", got, test.want, err)
			}
			if test.text != "" && (err == nil || err.Error() != server.URL+": "+test.text) {
				t.Errorf("error %q, want %q", err, server.URL+": "+test.text)
			}
			if requests := server.Took(); len(requests) != 1 {
				t.Errorf("%d requests, want 1", len(requests))
			}
		})
	}
}
