package influxdb

import (
	"strings"
	"testing"
)

// TestEveryWrongOptionIsNamed checks every error of the options, and that none contains a secret.
func TestEveryWrongOptionIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(o *Options)
		want   string
	}{
		{"1.x", func(o *Options) { o.Database = "d" }, ""},
		{"1.x with a user", func(o *Options) { o.Database, o.Username, o.Password = "d", "u", "s3cret" }, ""},
		{"1.x with a user without a password", func(o *Options) { o.Database, o.Username = "d", "u" }, ""},
		{"2.x", func(o *Options) { o.Organization, o.Bucket, o.Token = "o", "b", "s3cret" }, ""},
		{"2.x without a token, as VictoriaMetrics has it", func(o *Options) { o.Organization, o.Bucket = "o", "b" }, ""},
		{"3.x", func(o *Options) { o.Database, o.TokenFile = "d", "/f" }, ""},
		{"3.x without a token", func(o *Options) { o.Database, o.API = "d", "v3" }, ""},
		{"IPv6", func(o *Options) { o.Database, o.URLs = "d", []string{"http://[::1]:8086/path"} }, ""},

		{"nothing set", func(o *Options) {},
			`database: must be set for the write API v1, which is selected if neither organization, bucket nor a token is set`},
		{"half of 2.x", func(o *Options) { o.Bucket = "b" }, `organization: must be set for the write API v2, which is selected by organization and bucket`},
		{"1.x and 2.x", func(o *Options) {
			o.Database, o.Organization, o.Bucket, o.Password, o.Username = "d", "o", "b", "s3cret", "u"
		},
			`database: is not an option of the write API v2, which is selected by organization and bucket
username: is not an option of the write API v2, which is selected by organization and bucket
password: is not an option of the write API v2, which is selected by organization and bucket`},
		{"3.x with a user", func(o *Options) { o.Database, o.Token, o.Username = "d", "s3cret", "u" },
			`username: is not an option of the write API v3, which is selected by the token`},
		{"a token alone", func(o *Options) { o.Token = "s3cret" }, `database: must be set for the write API v3, which is selected by the token`},
		{"1.x with a token", func(o *Options) { o.API, o.Database, o.Token = "v1", "d", "s3cret" }, `token: is not an option of the write API v1`},
		{"2.x chosen, 1.x set", func(o *Options) { o.API, o.Database = "v2", "d" },
			`organization: must be set for the write API v2
bucket: must be set for the write API v2
database: is not an option of the write API v2`},
		{"an API of the future", func(o *Options) { o.API = "v4" }, `api: unknown value "v4" (known: auto, v1, v2, v3)`},

		{"no URL", func(o *Options) { o.Database, o.URLs = "d", nil }, `urls: must name a server`},
		{"another scheme", func(o *Options) { o.Database, o.URLs = "d", []string{"udp://h:1", "http://h"} },
			`urls: "udp://h:1" does not begin with http:// or https://`},
		{"a query", func(o *Options) { o.Database, o.URLs = "d", []string{"http://h?p=s3cret"} },
			`urls: "http://h" is followed by "?" or "#", which is not allowed: set the options instead`},
		{"two URLs, two errors", func(o *Options) { o.Database, o.URLs = "d", []string{"a", "b"} },
			`urls: "a" does not begin with http:// or https://
urls: "b" does not begin with http:// or https://`},

		{"a password twice", func(o *Options) { o.Database, o.Username, o.Password, o.PasswordFile = "d", "u", "s3cret", "/f" },
			`password: must not be set together with password_file`},
		{"a token twice", func(o *Options) { o.Database, o.Token, o.TokenFile = "d", "s3cret", "/f" },
			`token: must not be set together with token_file`},
		{"an unknown encoding", func(o *Options) { o.Database, o.ContentEncoding = "d", "zstd" },
			`content_encoding: unknown value "zstd" (known: gzip, identity)`},
		{"no body", func(o *Options) { o.Database, o.MaxBody = "d", 0 }, `max_body: must be more than 0B and at most 1GiB`},
		{"a header for the token", func(o *Options) { o.Database, o.HTTPHeaders = "d", map[string]string{"Authorization": "Bearer s3cret"} }, ``},
		{"a header of the output itself", func(o *Options) { o.Database, o.HTTPHeaders = "d", map[string]string{"content-type": "s3cret"} },
			`http_headers: "content-type" is set by the output itself`},
		{"2.x without its databases", func(o *Options) { o.Organization, o.Bucket, o.SkipDatabaseCreation = "o", "b", true },
			`skip_database_creation: is not an option of the write API v2, which is selected by organization and bucket`},
		{"files with relative paths", func(o *Options) {
			o.Database, o.Username, o.PasswordFile, o.TLSCA, o.TLSCert, o.TLSKey = "d", "u", "s3cret", "./ca", "c/c", "../k"
		}, `password_file: must be an absolute path
tls_ca: must be an absolute path
tls_cert: must be an absolute path
tls_key: must be an absolute path`},
		{"blank names of 1.x", func(o *Options) { o.Database, o.RetentionPolicy, o.Username = "\u3000", " ", " " },
			`database: contains only blanks
retention_policy: contains only blanks
username: contains only blanks`},
		{"blank names of 2.x", func(o *Options) { o.Organization, o.Bucket, o.Token = " ", "  ", " " },
			`organization: contains only blanks
bucket: contains only blanks
token: contains only blanks`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := Defaults()
			tt.change(&o)
			got := ""
			if err := o.Validate(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("error\n%s\nwant\n%s", got, tt.want)
			}
			if strings.Contains(got, "s3cret") {
				t.Error("a secret is in the error")
			}
		})
	}
}
