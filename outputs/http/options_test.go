package http

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
)

// TestEveryWrongOptionIsNamed checks the errors of the options, and that none contains a secret.
func TestEveryWrongOptionIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(o *Options)
		want   string
	}{
		{name: "a URL", change: func(o *Options) {}, want: "<nil>"},
		{name: "a URL with a query", change: func(o *Options) { o.URL = plugin.Strings{"https://h/p?a=b"} }, want: "<nil>"},
		{name: "no URL", change: func(o *Options) { o.URL = nil }, want: "url: must name a server"},
		{name: "wrong URLs", change: func(o *Options) { o.URL = plugin.Strings{"h?s3cret", "http://u:s3cret@h"} },
			want: `url: "h" does not begin with http:// or https://
url: a URL contains "@", as in user:password@host: set username and password instead`},
		{name: "a method without a body", change: func(o *Options) { o.Method = "GET" }, want: `method: unknown value "GET" (known: POST, PUT, PATCH)`},
		{name: "a method in lower case", change: func(o *Options) { o.Method = "post" }, want: `method: unknown value "post" (known: POST, PUT, PATCH)`},
		{name: "a format of Telegraf", change: func(o *Options) { o.Format = "json" }, want: `format: unknown value "json" (known: json_array, json_lines, json_object)`},
		{name: "times", change: func(o *Options) { o.TimestampFormat = "iso" },
			want: `timestamp_format: unknown value "iso" (known: rfc3339, unix, unix_ms, unix_us, unix_ns)`},
		{name: "an encoding", change: func(o *Options) { o.ContentEncoding = "br" },
			want: `content_encoding: unknown value "br" (known: gzip, zstd, snappy, identity)`},
		{name: "no body", change: func(o *Options) { o.MaxBody = 0 }, want: "max_body: must be more than 0B and at most 1GiB"},
		{name: "statuses", change: func(o *Options) { o.NonRetryableStatusCodes = []int{200, 300, 599, 600} },
			want: "non_retryable_statuscodes: 200 is not a status from 300 to 599\nnon_retryable_statuscodes: 600 is not a status from 300 to 599"},
		{name: "a type of its own", change: func(o *Options) { o.Headers = map[string]string{"Content-Type": "text/plain"} }, want: "<nil>"},
		{name: "a shared option", change: func(o *Options) { o.Token, o.TokenFile = "s3cret", "/f" }, want: "token: must not be set together with token_file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := to("http://127.0.0.1:1")
			tt.change(&o)
			got := fmt.Sprint(o.Validate())
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if strings.Contains(got, "s3cret") {
				t.Error("a secret is in the error")
			}
		})
	}
}
