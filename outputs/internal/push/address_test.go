package push

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMistypedURLs has values with which every request would fail, and checks that no error
// shows a secret.
func TestMistypedURLs(t *testing.T) {
	for _, tt := range []struct {
		name       string
		url        string
		allowQuery bool
		want       string
	}{
		{name: "highest port", url: "http://h:65535", want: "<nil>"},
		{name: "IPv6", url: "http://[::1]:8086/path", want: "<nil>"},
		{name: "zone", url: "http://[fe80::1%25eth0]", want: "<nil>"},
		{name: "IPv4", url: "http://10.0.0.1", want: "<nil>"},
		{name: "number behind a hyphen", url: "http://influx-2", want: "<nil>"},
		{name: "query", url: "http://h/p?a=b&c=d", allowQuery: true, want: "<nil>"},
		{name: "port too high", url: "http://h:65536", want: `urls: the port of "http://h:65536" is not a number from 1 to 65535`},
		{name: "port 0", url: "http://h:0", want: `urls: the port of "http://h:0" is not a number from 1 to 65535`},
		{name: "port of a webhook", url: "http://h:0/s3cret", allowQuery: true, want: `urls: the port of "http://h:0" is not a number from 1 to 65535`},
		{name: "port of letters", url: "http://h:port", want: `urls: "http://h:port" is not a URL`},
		{name: "number too high for an address", url: "http://127.0.0.300:8086", want: `urls: the host "127.0.0.300" is not an IP address`},
		{name: "query that is not allowed", url: "http://h?p=s3cret", want: `urls: "http://h" is followed by "?" or "#", which is not allowed: set the options instead`},
		{name: "fragment", url: "http://h/p#s3cret", want: `urls: "http://h/p" is followed by "?" or "#", which is not allowed: set the options instead`},
		{name: "fragment behind a query", url: "http://h/p?x=s3cret#s3cret", allowQuery: true, want: `urls: "http://h/p" is followed by "#", which is not allowed`},
		{name: "user", url: "http://u:s3cret@h", allowQuery: true, want: `urls: a URL contains "@", as in user:password@host: set username and password instead`},
		{name: "another scheme", url: "ftp://h", want: `urls: "ftp://h" does not begin with http:// or https://`},
		{name: "no scheme", url: "127.0.0.1:9090/api/v1/write", want: `urls: "127.0.0.1:9090/api/v1/write" does not begin with http:// or https://`},
		{name: "one slash", url: "http:/h/p", want: `urls: "http:/h/p" does not begin with http:// or https://`},
		{name: "capital letters", url: "HTTP://h", want: "<nil>"},
		{name: "blank", url: " http://h", want: `urls: " http://h" contains a blank`},
		{name: "IPv6 without brackets", url: "http://::1:9090/p", want: `urls: "http://::1:9090/p" is not a URL: write an IPv6 address in brackets`},
		{name: "no host", url: "http://:80", want: `urls: "http://:80" has no host`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := fmt.Sprint(ValidateURL("urls", tt.url, tt.allowQuery))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if strings.Contains(got, "s3cret") {
				t.Error("a secret is in the error")
			}
		})
	}
}

// FuzzURL: a URL that is accepted can be used, and no error shows what follows "?" or may be a
// password.
func FuzzURL(f *testing.F) {
	for _, s := range []string{"http://h", "https://[::1]:8086/a%2Fb?x=y", "http://h:65536", "http://127.0.0.300", "http://%zz", "//h", "http://h\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		const secret = "s3cret-s3cret"
		for _, value := range []string{s + "?" + secret, "http://u:" + secret + "@" + s, s + "#" + secret} {
			if err := ValidateURL("url", value, false); err == nil || strings.Contains(err.Error(), secret) && !strings.Contains(s, "?") && !strings.Contains(s, "#") {
				t.Errorf("%q: error %v", value, err)
			}
			if err := (&Transport{HTTPProxyURL: value}).Validate(); err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("proxy %q: error %v", value, err)
			}
		}
		if ValidateURL("url", s, true) != nil {
			return
		}
		c, err := New(Config{URLs: []string{s}})
		if err != nil {
			t.Fatalf("%q is valid, but %v", s, err)
		}
		if _, err := http.NewRequest(http.MethodPost, c.servers[0].target(&Request{Path: "write", Query: "a=b"}), nil); err != nil {
			t.Errorf("%q is valid, but %v", s, err)
		}
	})
}
