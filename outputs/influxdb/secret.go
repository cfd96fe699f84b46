package influxdb

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
)

// A secret is the password or the token, from the configuration or from a file.
type secret struct {
	option string // the file's
	path   string // "": value is the secret
	value  string // as of the last request
	sent   string // how that request carried it
	log    *slog.Logger
	warned bool // that others can read the file
}

func newSecret(o *Options, log *slog.Logger) secret {
	if o.api() == "v1" {
		return secret{option: "password_file", path: o.PasswordFile, value: o.Password, log: log}
	}
	return secret{option: "token_file", path: o.TokenFile, value: o.Token, log: log}
}

// maxSecret bounds what is read of a secret file.
const maxSecret = 64 << 10

// refresh reads the file again: it may have been replaced since.
func (s *secret) refresh() error {
	if s.path == "" {
		return nil
	}
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("%s: %w", s.option, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().Perm()&0o004 != 0 && !s.warned {
		s.log.Warn("everyone can read the secret file", s.option, s.path, "mode", info.Mode().Perm().String())
		s.warned = true
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return fmt.Errorf("%s: %w", s.option, err)
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	switch {
	case len(text) > maxSecret:
		err = fmt.Errorf("is larger than %d bytes", maxSecret)
	case value == "":
		err = errors.New("is empty")
	case strings.ContainsFunc(value, isControl):
		err = errors.New("holds more than one line, or another control character")
	}
	if err != nil {
		return fmt.Errorf("%s: %q %w", s.option, s.path, err)
	}
	s.value = value
	return nil
}

// login returns the header Authorization of the next request, "" for none.
func (o *output) login() (string, error) {
	if err := o.secret.refresh(); err != nil {
		return "", err
	}
	s, login := &o.secret, ""
	s.sent = s.value
	switch api := o.options.api(); {
	case api == "v1" && o.options.Username != "":
		s.sent = base64.StdEncoding.EncodeToString([]byte(o.options.Username + ":" + s.value))
		login = "Basic " + s.sent
	case api == "v2" && s.value != "":
		login = "Token " + s.sent
	case api == "v3" && s.value != "":
		login = "Bearer " + s.sent
	}
	for _, server := range o.servers {
		if login != "" && server.plain && !o.warned {
			o.log.Warn("the secret travels in the clear: use https", "url", server.name)
			o.warned = true
		}
	}
	return login, nil
}

// redact takes the secret out of what a server said.
func (s *secret) redact(text string) string {
	for _, secret := range []string{s.sent, s.value} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[secret]")
		}
	}
	return text
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
