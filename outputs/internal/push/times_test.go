package push

import "testing"

func TestRefusesTimes(t *testing.T) {
	for _, test := range []struct {
		status int
		text   string
		want   bool
	}{
		{status: 400, text: "out of order sample\n", want: true},
		{status: 400, text: `the sample has been rejected (err-mimir-sample-timestamp-too-old). series: 'x'`, want: true},
		{status: 400, text: "received a sample whose timestamp is too far in the future, timestamp: 1764185600000 series: 'tcp_listen_backlog' (err-mimir-too-far-in-future). To adjust the related per-tenant limit, configure -validation.create-grace-period, or contact your service administrator.", want: true},
		{status: 400, text: "received a sample whose timestamp is too far in the past, timestamp: 1764185600000 series: 'tcp_listen_backlog' (err-mimir-too-far-in-past). To adjust the related per-tenant limit, configure -validation.past-grace-period, or contact your service administrator.", want: true},
		{status: 400, text: "user=1: the sample has been rejected because another sample with a more recent timestamp has already been ingested and this sample is beyond the out-of-order time window of 5m (err-mimir-sample-timestamp-too-old). The affected sample has timestamp 2026-11-26T19:33:28Z and is from series x", want: true},
		{status: 400, text: `timestamp too old: 1764185600000 metric: "tcp_listen_backlog"`, want: true},
		{status: 400, text: `received a series whose label value length exceeds the limit, value: 'a sample whose timestamp is too far in the past'`, want: false},
		{status: 409, text: "store locally for endpoint thanos-receive-0.thanos-receive.monitoring.svc.cluster.local:10901: conflict", want: true},
		{status: 409, text: "forwarding request to endpoint {10.0.0.7:10901 10.0.0.7:19391 a}: rpc error: code = AlreadyExists desc = store locally for endpoint {10.0.0.7:10901 10.0.0.7:19391 a}: conflict", want: true},
		{status: 500, text: "too old sample", want: true},
		{status: 500, text: "disk full: too old sample", want: false},
		{status: 503, text: "out of order sample", want: false},
		{status: 400, text: `invalid label value in x{process="out of order sample"}`, want: false},
		{status: 400, text: "bad name", want: false},
	} {
		if got := RefusesTimes(test.status, test.text); got != test.want {
			t.Errorf("RefusesTimes(%d, %q) = %v, want %v", test.status, test.text, got, test.want)
		}
	}
}
