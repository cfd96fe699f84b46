package influxdb

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
)

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// v3 returns options for InfluxDB 3.x with a token in a file.
func v3(url, tokenFile string) Options {
	o := Defaults()
	o.URLs, o.Database, o.TokenFile = []string{url}, "d", tokenFile
	return o
}

// TestC8TokenFile trims one line end, and no more.
func TestC8TokenFile(t *testing.T) {
	server := newFake(t)
	path := filepath.Join(t.TempDir(), "token")
	for _, tt := range []struct{ text, login, err string }{
		{"t0k", "Bearer t0k", "<nil>"},
		{"t0k\n", "Bearer t0k", "<nil>"},
		{"t0k\r\n", "Bearer t0k", "<nil>"},
		{" t0k ", "Bearer  t0k ", "<nil>"},
		{"", "", fmt.Sprintf("token_file: %q is empty", path)},
		{"\n", "", fmt.Sprintf("token_file: %q is empty", path)},
		{"t0k\n\n", "", fmt.Sprintf("token_file: %q holds more than one line, or another control character", path)},
		{"t0k\x00", "", fmt.Sprintf("token_file: %q holds more than one line, or another control character", path)},
		{strings.Repeat("x", maxSecret+1), "", fmt.Sprintf("token_file: %q is larger than 65536 bytes", path)},
	} {
		write(t, path, tt.text)
		out, _ := newOutput(t, v3(server.URL, path))
		err := push(t, out, "m v=1i 1")
		if fmt.Sprint(err) != tt.err {
			t.Errorf("%.20q: error %v, want %s", tt.text, err, tt.err)
		}
		var login string
		for _, r := range server.took() {
			login = r.login
		}
		if login != strings.TrimRight(tt.login, " ") {
			t.Errorf("%.20q: login %q, want %q", tt.text, login, tt.login)
		}
	}
	out, _ := newOutput(t, v3(server.URL, path+".missing"))
	want := fmt.Sprintf("token_file: open %s.missing: no such file or directory", path)
	if err := push(t, out, "m v=1i 1"); fmt.Sprint(err) != want || kind(err) != "kept" {
		t.Errorf("error %v, want %s", err, want)
	}
}

// TestO7ReplacedSecretIsPickedUp refuses one token and takes the next.
func TestO7ReplacedSecretIsPickedUp(t *testing.T) {
	server := newFake(t)
	server.does(checkLogin("Bearer new"))
	path := filepath.Join(t.TempDir(), "token")
	write(t, path, "old\n")
	out, _ := newOutput(t, v3(server.URL, path))
	want := server.URL + `: 401 Unauthorized: I do not know "Bearer [secret]": check token`
	if err := push(t, out, "m v=1i 1"); fmt.Sprint(err) != want || kind(err) != "kept" {
		t.Fatalf("%s: error\n%v, want\n%s", kind(err), err, want)
	}
	write(t, path+".new", "new\n")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if err := push(t, out, "m v=1i 1"); err != nil {
		t.Errorf("after the file was replaced: %v", err)
	}

	server.does(checkLogin("Basic dTpuZXc=")) // u:new
	o := v1(server.URL)
	o.Username, o.PasswordFile = "u", path
	write(t, path, "old")
	out, _ = newOutput(t, o)
	if err := push(t, out, "m v=1i 1"); kind(err) != "kept" {
		t.Fatalf("error %v", err)
	}
	write(t, path, "new")
	if err := push(t, out, "m v=1i 1"); err != nil {
		t.Errorf("after the password was replaced: %v", err)
	}
}

// TestC9SecretsAreNotPrinted looks for them in errors, logs and what stands for
// the output in a %v.
func TestC9SecretsAreNotPrinted(t *testing.T) {
	server := newFake(t)
	server.does(checkLogin("nobody"))
	redirect := newFake(t)
	redirect.answers(302, "", "Location: http://u:s3cret@elsewhere/?t=s3cret")
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	write(t, file, "s3cret\n")
	password, token := v1(server.URL), v3(server.URL, "")
	password.Username, password.Password = "u", "s3cret"
	token.Token = "s3cret"
	across := v3("http://sockwatch.invalid", file)
	for _, o := range []Options{password, token, v3(server.URL, file), v3(redirect.URL, file), across} {
		out, log := newOutput(t, o)
		err := push(t, out, "m v=1i 1")
		if err == nil {
			t.Error("no error")
		}
		for _, text := range append(log.lines(), err.Error()) {
			if strings.Contains(text, "s3cret") || strings.Contains(text, "dTpzM2NyZXQ=") {
				t.Errorf("a secret is in %q", text)
			}
		}
	}
}

// TestC9SecretFileForEveryone is one warning, not one each request.
func TestC9SecretFileForEveryone(t *testing.T) {
	server := newFake(t)
	path := filepath.Join(t.TempDir(), "token")
	write(t, path, "t0k")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	out, log := newOutput(t, v3(server.URL, path))
	for range 3 {
		if err := push(t, out, "m v=1i 1"); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{`level=WARN msg="everyone can read the secret file" token_file=` + path + " mode=-rw-r--r--"}
	if diff := cmp.Diff(want, log.lines()); diff != "" {
		t.Errorf("log (-want +got)\n%s", diff)
	}
}

// TestN10SecretInTheClear warns once of a token over http:// to another host.
func TestN10SecretInTheClear(t *testing.T) {
	for _, tt := range []struct {
		url, token string
		want       []string
	}{
		{"http://influxdb.invalid:8086", "t0k", []string{`level=WARN msg="the secret travels in the clear: use https" url=http://influxdb.invalid:8086`}},
		{"http://192.0.2.1:8086", "t0k", []string{`level=WARN msg="the secret travels in the clear: use https" url=http://192.0.2.1:8086`}},
		{"https://influxdb.invalid:8086", "t0k", nil},
		{"http://influxdb.invalid:8086", "", nil},
		{"http://localhost:8086", "t0k", nil},
		{"http://127.3.2.1:8086", "t0k", nil},
		{"http://[::1]:8086", "t0k", nil},
	} {
		o := Defaults()
		o.API, o.URLs, o.Database, o.Token = "v3", []string{tt.url}, "d", tt.token
		log := &logBook{}
		p, err := New(o, plugin.Env{Log: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := p.(*output).login(); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(tt.want, log.lines()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.url, diff)
		}
	}
}
