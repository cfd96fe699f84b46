package push

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/outputs/internal/push/pushtest"
)

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSecretFiles checks how text around a secret is treated: blanks are removed from a
// token, but not from a password.
func TestSecretFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	for _, tt := range []struct {
		name, text      string
		token, password string // "": an error
		err             string // after the option's name
	}{
		{name: "bare", text: "t0k", token: "t0k", password: "t0k"},
		{name: "a line", text: "t0k\n", token: "t0k", password: "t0k"},
		{name: "a line of Windows", text: "t0k\r\n", token: "t0k", password: "t0k"},
		{name: "empty lines behind it", text: "t0k\n\n", token: "t0k", password: "t0k"},
		{name: "a byte order mark", text: "\ufefft0k\r\n", token: "t0k", password: "t0k"},
		{name: "blanks", text: "\ufeff t0k\t \n", token: "t0k", err: "contains more than one line, or another control character"},
		{name: "spaces", text: " t0k \n", token: "t0k", password: " t0k "},
		{name: "empty", text: "", err: "is empty"},
		{name: "a byte order mark alone", text: "\ufeff\n", err: "is empty"},
		{name: "two lines", text: "t0k\nt0k\n", err: "contains more than one line, or another control character"},
		{name: "a NUL", text: "t0k\x00", err: "contains more than one line, or another control character"},
		{name: "UTF-16", text: "\xff\xfet\x000\x00k\x00", err: "contains more than one line, or another control character"},
		{name: "64 KiB and a byte", text: strings.Repeat("x", maxSecret+1), err: "is larger than 65536 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := pushtest.NewServer(t)
			write(t, path, tt.text)
			byToken, byPassword := withToken(server.URL, path), to(server.URL)
			byPassword.Username, byPassword.PasswordFile = "u", path
			for _, by := range []struct {
				option, secret, login string
				options               options
			}{
				{option: "token_file", secret: tt.token, login: "Bearer " + tt.token, options: byToken},
				{option: "password_file", secret: tt.password, login: "Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+tt.password)), options: byPassword},
			} {
				want := []string{by.login, "<nil>"}
				if by.secret == "" {
					want = []string{"", fmt.Sprintf("%s: %q %s", by.option, path, tt.err)}
				}
				out, _ := newOutput(t, by.options)
				err := send(t, out, "m v=1i 1")
				got := []string{"", fmt.Sprint(err)}
				for _, r := range server.Took() {
					got[0] = r.Login
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got)\n%s", by.option, diff)
				}
			}
		})
	}
}

// TestMissingSecretFile: the points stay queued.
func TestMissingSecretFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing")
	out, _ := newOutput(t, withToken("http://127.0.0.1:1", path))
	want := fmt.Sprintf("token_file: open %s: no such file or directory", path)
	if err := send(t, out, "m v=1i 1"); fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
		t.Errorf("error %v, want %s", err, want)
	}
}

// TestReplacedSecretIsPickedUp: one token is refused, the next accepted.
func TestReplacedSecretIsPickedUp(t *testing.T) {
	server := pushtest.NewServer(t)
	server.Does(checkLogin("Bearer new"))
	path := filepath.Join(t.TempDir(), "token")
	write(t, path, "old\n")
	out, _ := newOutput(t, withToken(server.URL, path))
	want := server.URL + `: 401 Unauthorized: I do not know "Bearer [secret]": check token`
	if err := send(t, out, "m v=1i 1"); fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
		t.Fatalf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
	}
	write(t, path+".new", "new\n")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if err := send(t, out, "m v=1i 1"); err != nil {
		t.Errorf("after the file was replaced: %v", err)
	}

	server.Does(checkLogin("Basic dTpuZXc=")) // u:new
	o := to(server.URL)
	o.Username, o.PasswordFile = "u", path
	write(t, path, "old")
	out, _ = newOutput(t, o)
	if err := send(t, out, "m v=1i 1"); pushtest.Kind(err) != "kept" {
		t.Fatalf("error %v", err)
	}
	write(t, path, "new")
	if err := send(t, out, "m v=1i 1"); err != nil {
		t.Errorf("after the password was replaced: %v", err)
	}
}

// TestSecretsAreNotPrinted looks for secrets in errors, logs, and the output formatted with
// %v.
func TestSecretsAreNotPrinted(t *testing.T) {
	server := pushtest.NewServer(t)
	server.Does(checkLogin("nobody"))
	redirect := pushtest.NewServer(t)
	redirect.Answers(302, "", "Location: http://u:s3cret@elsewhere/?t=s3cret")
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	write(t, file, "s3cret\n")
	password, token := to(server.URL), withToken(server.URL, "")
	password.Username, password.Password = "u", "s3cret"
	token.Token = "s3cret"
	across := withToken("http://sockwatch.invalid", file)
	for _, o := range []options{password, token, withToken(server.URL, file), withToken(redirect.URL, file), across} {
		out, log := newOutput(t, o)
		err := send(t, out, "m v=1i 1")
		if err == nil {
			t.Error("no error")
		}
		for _, text := range append(log.Lines(), err.Error()) {
			if strings.Contains(text, "s3cret") || strings.Contains(text, "dTpzM2NyZXQ=") {
				t.Errorf("a secret is in %q", text)
			}
		}
	}
}

// TestSecretFileThatEveryoneCanRead causes one warning, not one for each request.
func TestSecretFileThatEveryoneCanRead(t *testing.T) {
	server := pushtest.NewServer(t)
	path := filepath.Join(t.TempDir(), "token")
	write(t, path, "t0k")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	out, log := newOutput(t, withToken(server.URL, path))
	for range 3 {
		if err := send(t, out, "m v=1i 1"); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{`level=WARN msg="every user of this host can read the secret file" token_file=` + path + " mode=-rw-r--r--"}
	if diff := cmp.Diff(want, log.Lines()); diff != "" {
		t.Errorf("log (-want +got)\n%s", diff)
	}
}

// TestCredentialsOverHTTP warns once of credentials over http:// to another host.
func TestCredentialsOverHTTP(t *testing.T) {
	warning := func(url string) []string {
		return []string{`level=WARN msg="sending credentials unencrypted: use https" url=` + url}
	}
	for _, tt := range []struct {
		url, token string
		headers    map[string]string
		want       []string
	}{
		{url: "http://server.invalid:8086", token: "t0k", want: warning("http://server.invalid:8086")},
		{url: "http://192.0.2.1:8086", token: "t0k", want: warning("http://192.0.2.1:8086")},
		{url: "http://192.0.2.1:8086", headers: map[string]string{"X-Key": "k"}, want: warning("http://192.0.2.1:8086")},
		{url: "http://192.0.2.1:8086", headers: map[string]string{"content-type": "text/plain", "User-Agent": "x"}},
		{url: "https://server.invalid:8086", token: "t0k"},
		{url: "http://server.invalid:8086"},
		{url: "http://localhost:8086", token: "t0k"},
		{url: "http://127.3.2.1:8086", token: "t0k"},
		{url: "http://[::1]:8086", token: "t0k"},
	} {
		o := to(tt.url)
		o.Token, o.Headers = tt.token, tt.headers
		out, log := newOutput(t, o)
		for range 2 {
			out.client.credentials.warnOfPlaintext(out.client.servers)
		}
		if diff := cmp.Diff(tt.want, log.Lines()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.url, diff)
		}
	}
}

// TestHeadersOfTheOptions: they are sent with each request, including Host.
func TestHeadersOfTheOptions(t *testing.T) {
	server := pushtest.NewServer(t)
	got := make(chan []string, 2)
	server.Does(func(w http.ResponseWriter, r *http.Request) {
		got <- []string{r.Host, r.Header.Get("Authorization"), r.Header.Get("X-Scope-Orgid"), r.Header.Get("User-Agent"), r.Header.Get("Content-Encoding")}
		w.WriteHeader(http.StatusNoContent)
	})
	o := to(server.URL)
	o.Headers = map[string]string{"Host": "server.example", "authorization": "Bearer t0k", "X-Scope-OrgID": "7", "User-Agent": "mine"}
	out, _ := newOutput(t, o)
	for range 2 {
		if err := send(t, out, "m v=1i 1"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"server.example", "Bearer t0k", "7", "mine", "gzip"}, <-got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}
