package push

import (
	"errors"
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
		{name: "nothing", change: func(o *Options) {}},
		{name: "a user without a password", change: func(o *Options) { o.Username = "u" }},
		{name: "a token", change: func(o *Options) { o.TokenFile = "/f" }},
		{name: "a password twice", change: func(o *Options) { o.Username, o.Password, o.PasswordFile = "u", "s3cret", "/f" },
			want: `password: must not be set together with password_file`},
		{name: "a token twice", change: func(o *Options) { o.Token, o.TokenFile = "s3cret", "/f" },
			want: `token: must not be set together with token_file`},
		{name: "a user and a token", change: func(o *Options) { o.Username, o.TokenFile = "u", "/f" },
			want: `token: must not be set together with username`},
		{name: "a password of nobody", change: func(o *Options) { o.PasswordFile = "/f" }, want: `username: must be set if a password is set`},
		{name: "line ends", change: func(o *Options) { o.Username, o.Password = "u\n", "s3cret\n" },
			want: "username: contains a control character, such as a line end\npassword: contains a control character, such as a line end"},
		{name: "a line end in a token", change: func(o *Options) { o.Token = "s3cret\n" }, want: `token: contains a control character, such as a line end`},
		{name: "blanks", change: func(o *Options) { o.Token = " \u3000" }, want: "token: contains only blanks"},
		{name: "a colon in a user name", change: func(o *Options) { o.Username = "a:b" },
			want: `username: contains ":", which basic authentication does not allow`},
		{name: "a header for the token", change: func(o *Options) { o.Headers = map[string]string{"Authorization": "Bearer s3cret"} }},
		{name: "a token and a header", change: func(o *Options) {
			o.Token, o.Headers = "s3cret", map[string]string{"authorization": "Bearer s3cret"}
		}, want: `headers: "authorization" must not be set together with token or token_file`},
		{name: "a user and a header", change: func(o *Options) {
			o.Username, o.Headers = "u", map[string]string{"Authorization": "Bearer s3cret"}
		}, want: `headers: "Authorization" must not be set together with username`},
		{name: "wrong headers", change: func(o *Options) {
			o.Headers = map[string]string{"": "s3cret", "a b": "s3cret", "é": "s3cret", "content-length": "s3cret", "content-type": "s3cret", "X": "s3cret\n", "Y": " ", "Z": "s3cret", "z": "s3cret"}
		}, want: `headers: "" is not the name of an HTTP header
headers: "X" contains a control character, such as a line end
headers: "Y" is empty
headers: "a b" is not the name of an HTTP header
headers: "content-length" is set by the output itself
headers: "content-type" is set by the output itself
headers: "z" is set twice
headers: "é" is not the name of an HTTP header`},
		{name: "files with relative paths", change: func(o *Options) {
			o.Username, o.PasswordFile, o.TLSCA, o.TLSCert, o.TLSKey = "u", "s3cret", "./ca", "c/c", "../k"
		}, want: `password_file: must be an absolute path
tls_ca: must be an absolute path
tls_cert: must be an absolute path
tls_key: must be an absolute path`},
		{name: "a token file with a relative path", change: func(o *Options) { o.TokenFile = "s3cret" }, want: `token_file: must be an absolute path`},
		{name: "no name of a server", change: func(o *Options) { o.TLSServerName = "a b" }, want: `tls_server_name: "a b" is not a host name or an IP address`},
		{name: "the name of a server", change: func(o *Options) { o.TLSServerName = "a-1.example.org." }},
		{name: "the address of a server", change: func(o *Options) { o.TLSServerName = "[::1]" }},
		{name: "a certificate without its key", change: func(o *Options) { o.TLSCert = "/c" }, want: `tls_cert: must be set together with tls_key`},
		{name: "a proxy", change: func(o *Options) { o.HTTPProxyURL = "http://proxy.example.org:3128" }},
		{name: "a proxy with a password", change: func(o *Options) { o.HTTPProxyURL = "socks5://u:s3cret@[::1]:1080/" }},
		{name: "a proxy without a scheme", change: func(o *Options) { o.HTTPProxyURL = "s3cret:3128" },
			want: `http_proxy_url: is not the URL of a proxy: write one such as "http://proxy.example.org:3128" or "socks5://127.0.0.1:1080"`},
		{name: "a proxy with a port too high", change: func(o *Options) { o.HTTPProxyURL = "http://u:s3cret@h:65536" },
			want: `http_proxy_url: the host or port is not valid`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var o Options
			tt.change(&o)
			got := ""
			if err := o.Validate("Content-Type"); err != nil {
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

// TestLimitsOfBodies checks the options that each output has itself.
func TestLimitsOfBodies(t *testing.T) {
	err := errors.Join(ValidateMaxBody(1), ValidateMaxBody(1<<30), ValidateMaxBody(0), ValidateMaxBody(1<<30+1),
		ValidateEncoding("gzip", "gzip", "identity"), ValidateEncoding("br", "gzip", "identity"))
	want := `max_body: must be more than 0B and at most 1GiB
max_body: must be more than 0B and at most 1GiB
content_encoding: unknown value "br" (known: gzip, identity)`
	if err == nil || err.Error() != want {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
}
