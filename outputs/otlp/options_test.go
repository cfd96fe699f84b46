package otlp

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOptionsAreChecked(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{name: "neither URL", change: func(*Options) {}, want: "metrics_url: is required, or logs_url, or both"},
		{name: "only metrics", change: func(o *Options) { o.MetricsURL = "http://h:4318/v1/metrics" }},
		{name: "only logs", change: func(o *Options) { o.LogsURL = "https://h/otlp/v1/logs?x=y" }},
		{name: "no path", change: func(o *Options) { o.MetricsURL, o.LogsURL = "http://h:4318", "http://h:4318/" },
			want: "metrics_url: has no path: most receivers have \"/v1/metrics\"\nlogs_url: has no path: most receivers have \"/v1/logs\""},
		{name: "not a URL", change: func(o *Options) { o.LogsURL = "h:4318/v1/logs" }, want: `logs_url: "h:4318/v1/logs" does not begin with http:// or https://`},
		{name: "no service name", change: func(o *Options) { o.LogsURL, o.ServiceName = "http://h/v1/logs", "" }, want: "service_name: must not be empty"},
		{name: "attributes of other options", change: func(o *Options) {
			o.LogsURL = "http://h/v1/logs"
			o.ResourceAttributes = map[string]string{"": "x", "a": "", "host.name": "x", "service.name": "x", "service.instance.id": "x", "rack": "7"}
		}, want: "resource_attributes: has an attribute without a name\n" +
			"resource_attributes: \"a\" is empty\n" +
			"resource_attributes: set hostname in [agent] instead of \"host.name\"\n" +
			"resource_attributes: set service_instance_id instead of \"service.instance.id\"\n" +
			"resource_attributes: set service_name instead of \"service.name\""},
		{name: "snappy", change: func(o *Options) { o.LogsURL, o.ContentEncoding = "http://h/v1/logs", "snappy" },
			want: `content_encoding: unknown value "snappy" (known: gzip, zstd, identity)`},
		{name: "the header of the encoding", change: func(o *Options) {
			o.LogsURL, o.Headers = "http://h/v1/logs", map[string]string{"Content-Type": "application/json"}
		}, want: `headers: "Content-Type" is set by the output itself`},
		{name: "no size", change: func(o *Options) { o.LogsURL, o.MaxBody = "http://h/v1/logs", 0 }, want: "max_body: must be more than 0B and at most 1GiB"},
		{name: "user without a name", change: func(o *Options) { o.LogsURL, o.Password = "http://h/v1/logs", "secret" }, want: "username: must be set if a password is set"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := Defaults()
			test.change(&o)
			got := ""
			if err := o.Validate(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPortOfGRPCIsWarnedOf(t *testing.T) {
	o := Defaults()
	o.MetricsURL, o.LogsURL = "http://h:4318/v1/metrics", ""
	if err := o.Warn(); err != nil {
		t.Errorf("the port of HTTP: warning %v", err)
	}
	o.LogsURL = "http://h:4317/v1/logs"
	want := "logs_url: 4317 is usually the port of OTLP over gRPC: that of OTLP over HTTP is 4318"
	if err := o.Warn(); err == nil || err.Error() != want {
		t.Errorf("warning %v, want %s", err, want)
	}
}

func TestSwappedURLsAreWarnedOf(t *testing.T) {
	o := Defaults()
	o.MetricsURL, o.LogsURL = "http://h:4318/v1/logs", "http://h:4318/v1/metrics"
	want := "metrics_url: \"/v1/logs\" is the path for logs_url: a receiver rejects everything else there\n" +
		"logs_url: \"/v1/metrics\" is the path for metrics_url: a receiver rejects everything else there"
	if err := o.Warn(); err == nil || err.Error() != want {
		t.Errorf("warning %v, want %s", err, want)
	}
}
