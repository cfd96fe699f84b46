package remotewrite

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOptionErrors(t *testing.T) {
	for _, test := range []struct {
		name string
		set  func(*Options)
		want string
	}{
		{name: "defaults", set: func(*Options) {}},
		{name: "a query", set: func(o *Options) { o.URLs = []string{"https://h.example.org/write?x=y"} }},
		{name: "no server", set: func(o *Options) { o.URLs = nil }, want: "urls: must name a server"},
		{name: "no URL", set: func(o *Options) { o.URLs = []string{"h:9090"} }, want: `urls: "h:9090" does not begin with http:// or https://`},
		{
			name: "unknown version", set: func(o *Options) { o.ProtocolVersion = "2" },
			want: `protocol_version: unknown value "2" (known: auto, 1.0, 2.0)`,
		},
		{name: "no body", set: func(o *Options) { o.MaxBody = 0 }, want: "max_body: must be more than 0B and at most 1GiB"},
		{
			name: "the headers of the version",
			set: func(o *Options) {
				o.Headers = map[string]string{"content-type": "application/x-protobuf", "x-prometheus-remote-write-version": "9"}
			},
			want: "headers: \"content-type\" is set by the output itself\nheaders: \"x-prometheus-remote-write-version\" is set by the output itself",
		},
		{
			name: "all at once",
			set: func(o *Options) {
				o.URLs, o.ProtocolVersion, o.Username, o.Token = nil, "", "u", "t"
			},
			want: "urls: must name a server\nprotocol_version: unknown value \"\" (known: auto, 1.0, 2.0)\ntoken: must not be set together with username",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := Defaults()
			test.set(&o)
			got := ""
			if err := o.Validate(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestURLWithoutAPathIsWarnedOf(t *testing.T) {
	o := Defaults()
	if err := o.Warn(); err != nil {
		t.Errorf("the defaults: warning %v", err)
	}
	o.URLs = []string{"https://h.example.org:9090/?x=y", "http://h.example.org/x"}
	want := `urls: "https://h.example.org:9090" has no path: Prometheus has "/api/v1/write", Mimir "/api/v1/push", Thanos "/api/v1/receive"`
	if err := o.Warn(); err == nil || err.Error() != want {
		t.Errorf("warning\n%v, want\n%s", err, want)
	}
}
