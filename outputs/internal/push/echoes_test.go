package push

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"sockwatch/outputs/internal/push/pushtest"
)

// TestSecretThatIsAWordOfTheAnswer changes neither how the points are handled nor the
// text shown: hiding one of the server's own words would reveal the secret.
func TestSecretThatIsAWordOfTheAnswer(t *testing.T) {
	server := pushtest.NewServer(t)
	server.Answers(http.StatusBadRequest, `{"error":"partial write: max-values-per-tag limit exceeded dropped=1"}`)
	for _, secret := range []string{"write", "t", "partial", "400", "limit", "e"} {
		o := to(server.URL)
		o.Username, o.Password = "write", secret
		out, _ := newOutput(t, o)
		err := send(t, out, "m v=1i 1", "m v=2i 2")
		want := server.URL + ": 400 Bad Request: partial write: max-values-per-tag limit exceeded dropped=1 (rejected)"
		if fmt.Sprint(err) != want || pushtest.Kind(err) != "bisect" {
			t.Errorf("%q: %s: error\n%v, want\n%s", secret, pushtest.Kind(err), err, want)
		}
	}
}

// TestEchoedCredentialsAreHidden has servers that quote what they received.
func TestEchoedCredentialsAreHidden(t *testing.T) {
	const long = "0123456789abcdef"
	for _, tt := range []struct {
		name   string
		change func(o *options)
		text   string
		want   string
	}{
		{name: "a short token behind its scheme", change: func(o *options) { o.Token = "t" },
			text: `bad token "Bearer t", not the type of Bearer token`, want: `bad token "Bearer [secret]", not the type of Bearer token`},
		{name: "a short token by itself is a word", change: func(o *options) { o.Token = "bad" },
			text: `bad token`, want: `bad token`},
		{name: "a token of 7 bytes by itself", change: func(o *options) { o.Token = "SECRET7" },
			text: "bad token SECRET7", want: "bad token SECRET7"},
		{name: "a token of 8 bytes by itself", change: func(o *options) { o.Token = "SECRETk8" },
			text: "bad token SECRETk8", want: "bad token [secret]"},
		{name: "a password of 8 bytes by itself", change: func(o *options) { o.Username, o.Password = "u", "SECRETp8" },
			text: "bad password SECRETp8", want: "bad password [secret]"},
		{name: "a header of 9 bytes by itself", change: func(o *options) { o.Headers = map[string]string{"X-Key": "SECRETkey"} },
			text: "bad key SECRETkey", want: "bad key [secret]"},
		{name: "a header's secret of 12 bytes without its scheme", change: func(o *options) { o.Headers = map[string]string{"Authorization": "Bearer SECRETxyz123"} },
			text: "bad token SECRETxyz123", want: "bad token [secret]"},
		{name: "a long token by itself", change: func(o *options) { o.Token = long },
			text: "bad token " + long + ", x" + long, want: "bad token [secret], x" + long},
		{name: "a token that ends in a sign", change: func(o *options) { o.Token = long + "==" },
			text: long + "==x " + long + "== " + long, want: "[secret]x [secret] " + long},
		{name: "basic authentication", change: func(o *options) { o.Username, o.Password = "u", "pw" },
			text: "Authorization: Basic dTpwdw== is u:pw, pw", want: "Authorization: Basic [secret] is u:[secret], pw"},
		{name: "a short header", change: func(o *options) { o.Headers = map[string]string{"X-Key": "k1"} },
			text: "X-Key: k1, X-Key: k12, k1", want: "X-Key: [secret], X-Key: k12, k1"},
		{name: "a header that is no secret", change: func(o *options) { o.Headers = map[string]string{"content-type": "application/stream+json"} },
			text: "unknown type application/stream+json", want: "unknown type application/stream+json"},
		{name: "a header with a scheme", change: func(o *options) { o.Headers = map[string]string{"Authorization": "Bearer k1"} },
			text: "Authorization: Bearer k1; Bearer k1", want: "Authorization: [secret]; [secret]"},
		{name: "a secret that begins with another", change: func(o *options) {
			o.Headers = map[string]string{"A": long, "B": long + " b", "C": long + " b c", "D": long + " b c d"}
		}, text: long + " b c d, " + long + " b c, " + long + " b, " + long, want: "[secret], [secret], [secret], [secret]"},
		{name: "one at the cut of the text", change: func(o *options) { o.Token = long },
			text: strings.Repeat("x", 490) + " " + long, want: strings.Repeat("x", 490) + " [secret]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := pushtest.NewServer(t)
			server.Answers(http.StatusInternalServerError, tt.text)
			o := to(server.URL)
			tt.change(&o)
			out, _ := newOutput(t, o)
			if got, want := fmt.Sprint(send(t, out, "m v=1i 1")), server.URL+": 500 Internal Server Error: "+tt.want; got != want {
				t.Errorf("error\n%s, want\n%s", got, want)
			}
		})
	}
}

// TestLongPartsOfAURLAreHidden: a webhook's URL is often its only secret.
func TestLongPartsOfAURLAreHidden(t *testing.T) {
	for _, tt := range []struct {
		name, path string // after the server's URL
		text, want string
	}{
		{name: "words", path: "/insert/jsonline?_time_field=timestamp", text: "no timestamp in jsonline", want: "no timestamp in jsonline"},
		{name: "a segment", path: "/hooks/0123456789abcdef/x", text: "no /hooks/0123456789abcdef/x", want: "no /hooks/[secret]/x"},
		{name: "a value", path: "/?key=0123456789abcdef", text: `no key "0123456789abcdef"`, want: `no key "[secret]"`},
		{name: "a value of 15 bytes", path: "/?key=0123456789abcde", text: `no key 0123456789abcde`, want: `no key 0123456789abcde`},
		{name: "an escaped value", path: "/?key=0123456789%2Fabcdef", text: `"0123456789/abcdef" is "0123456789%2Fabcdef"`, want: `"[secret]" is "[secret]"`},
		{name: "a secret without a name", path: "/?0123456789abcdef", text: `0123456789abcdef`, want: `[secret]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := pushtest.NewServer(t)
			server.Answers(500, tt.text)
			client, err := New(Config{URLs: []string{server.URL + tt.path}, URLOption: "url"})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			err = client.Push(t.Context(), &Request{Records: 1}, nil)
			if got, want := fmt.Sprint(err), server.URL+": 500 Internal Server Error: "+tt.want; got != want {
				t.Errorf("error\n%s, want\n%s", got, want)
			}
		})
	}
}

// TestEchoInABrokenHeader has a server whose answer the transport quotes in an error.
func TestEchoInABrokenHeader(t *testing.T) {
	url := rawServer(t, func(conn net.Conn, in *bufio.Reader) {
		if _, err := http.ReadRequest(in); err == nil {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nBearer s3cret\r\n\r\n")
		}
	})
	o := withToken(url, "")
	o.Token = "s3cret"
	out, _ := newOutput(t, o)
	err := send(t, out, "m v=1i 1")
	want := url + `: net/http: HTTP/1.x transport connection broken: malformed MIME header: missing colon: "Bearer [secret]"`
	if fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
		t.Errorf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
	}
}
