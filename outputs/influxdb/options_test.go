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

		{"nothing set", func(o *Options) {}, `database: must be set for the write API v1`},
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
		{"no scheme", func(o *Options) { o.Database, o.URLs = "d", []string{"localhost:8086"} },
			`urls: "localhost:8086" does not begin with http:// or https://`},
		{"another scheme", func(o *Options) { o.Database, o.URLs = "d", []string{"udp://h:1", "http://h"} },
			`urls: "udp://h:1" does not begin with http:// or https://`},
		{"no host", func(o *Options) { o.Database, o.URLs = "d", []string{"http://:8086"} }, `urls: "http://:8086" has no host`},
		{"port too high", func(o *Options) { o.Database, o.URLs = "d", []string{"http://h:65536", "http://h:0", "http://h:65535"} },
			"urls: the port of \"http://h:65536\" is not a number from 1 to 65535\nurls: the port of \"http://h:0\" is not a number from 1 to 65535"},
		{"no URL at all", func(o *Options) { o.Database, o.URLs = "d", []string{"http://h:port"} }, `urls: "http://h:port" is not a URL`},
		{"a query", func(o *Options) { o.Database, o.URLs = "d", []string{"http://h?p=s3cret"} },
			`urls: "http://h" is followed by "?" or "#", which is not allowed: set the options instead`},
		{"a query behind what is not a URL", func(o *Options) { o.Database, o.URLs = "d", []string{"http://h:port?p=s3cret"} },
			`urls: "http://h:port" is followed by "?" or "#", which is not allowed: set the options instead`},
		{"a fragment", func(o *Options) { o.Database, o.URLs = "d", []string{"http://h/p#s3cret"} },
			`urls: "http://h/p" is followed by "?" or "#", which is not allowed: set the options instead`},
		{"a password in the URL", func(o *Options) { o.Database, o.URLs = "d", []string{"http://u:s3cret@h:8086"} },
			`urls: a URL contains "@", as in user:password@host: set username and password instead`},
		{"a password that breaks the URL", func(o *Options) { o.Database, o.URLs = "d", []string{"http://u:s3cret#%@h:8086"} },
			`urls: a URL contains "@", as in user:password@host: set username and password instead`},
		{"two URLs, two errors", func(o *Options) { o.Database, o.URLs = "d", []string{"a", "b"} },
			`urls: "a" does not begin with http:// or https://
urls: "b" does not begin with http:// or https://`},

		{"a password twice", func(o *Options) { o.Database, o.Username, o.Password, o.PasswordFile = "d", "u", "s3cret", "/f" },
			`password: must not be set together with password_file`},
		{"a token twice", func(o *Options) { o.Database, o.Token, o.TokenFile = "d", "s3cret", "/f" },
			`token: must not be set together with token_file`},
		{"a password of nobody", func(o *Options) { o.Database, o.PasswordFile = "d", "/f" }, `username: must be set if a password is set`},
		{"a line end in a token", func(o *Options) { o.Database, o.Token = "d", "s3cret\n" },
			`token: contains a control character, such as a line end`},
		{"a colon in a user name", func(o *Options) { o.Database, o.Username = "d", "a:b" },
			`username: contains ":", which basic authentication does not allow`},
		{"an unknown encoding", func(o *Options) { o.Database, o.ContentEncoding = "d", "zstd" },
			`content_encoding: unknown value "zstd" (known: gzip, identity)`},
		{"no body", func(o *Options) { o.Database, o.MaxBody = "d", 0 }, `max_body: must be more than 0B and at most 1GiB`},
		{"a body that no server takes", func(o *Options) { o.Database, o.MaxBody = "d", 2<<30 }, `max_body: must be more than 0B and at most 1GiB`},
		{"a header for the token", func(o *Options) { o.Database, o.HTTPHeaders = "d", map[string]string{"Authorization": "Bearer s3cret"} }, ``},
		{"a token and a header", func(o *Options) {
			o.Database, o.Token, o.HTTPHeaders = "d", "s3cret", map[string]string{"authorization": "Bearer s3cret"}
		},
			`http_headers: "authorization" must not be set together with token or token_file`},
		{"a user and a header", func(o *Options) {
			o.Database, o.Username, o.HTTPHeaders = "d", "u", map[string]string{"Authorization": "Bearer s3cret"}
		},
			`http_headers: "Authorization" must not be set together with username`},
		{"wrong headers", func(o *Options) {
			o.Database = "d"
			o.HTTPHeaders = map[string]string{"": "s3cret", "a b": "s3cret", "é": "s3cret", "content-length": "s3cret", "X": "s3cret\n", "Y": " ", "Z": "s3cret", "z": "s3cret"}
		}, `http_headers: "" is not the name of an HTTP header
http_headers: "X" contains a control character, such as a line end
http_headers: "Y" is empty
http_headers: "a b" is not the name of an HTTP header
http_headers: "content-length" is set by the output itself
http_headers: "z" is set twice
http_headers: "é" is not the name of an HTTP header`},
		{"2.x without its databases", func(o *Options) { o.Organization, o.Bucket, o.SkipDatabaseCreation = "o", "b", true },
			`skip_database_creation: is not an option of the write API v2, which is selected by organization and bucket`},
		{"a token file with a relative path", func(o *Options) { o.Database, o.TokenFile = "d", "s3cret" }, `token_file: must be an absolute path`},
		{"files with relative paths", func(o *Options) {
			o.Database, o.Username, o.PasswordFile, o.TLSCA, o.TLSCert, o.TLSKey = "d", "u", "s3cret", "./ca", "c/c", "../k"
		}, `password_file: must be an absolute path
tls_ca: must be an absolute path
tls_cert: must be an absolute path
tls_key: must be an absolute path`},
		{"no name of a server", func(o *Options) { o.Database, o.TLSServerName = "d", "a b" }, `tls_server_name: "a b" is not a host name or an IP address`},
		{"the name of a server", func(o *Options) { o.Database, o.TLSServerName = "d", "a-1.example.org." }, ``},
		{"the address of a server", func(o *Options) { o.Database, o.TLSServerName = "d", "[::1]" }, ``},
		{"blank names of 1.x", func(o *Options) { o.Database, o.RetentionPolicy, o.Username = "\u3000", " ", " " },
			`database: contains only blanks
retention_policy: contains only blanks
username: contains only blanks`},
		{"blank names of 2.x", func(o *Options) { o.Organization, o.Bucket, o.Token = " ", "  ", " " },
			`organization: contains only blanks
bucket: contains only blanks
token: contains only blanks`},
		{"a certificate without its key", func(o *Options) { o.Database, o.TLSCert = "d", "/c" }, `tls_cert: must be set together with tls_key`},
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
