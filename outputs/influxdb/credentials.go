package influxdb

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
)

// credentials are what a request carries to be let in: the password or the token,
// from the configuration or from a file, and the headers of the options.
type credentials struct {
	scheme   string // of Authorization: Basic, Token or Bearer
	username string // Basic only
	secret   string // the password or token as of the last refresh; "": none
	file     *file  // that holds the secret; nil: the configuration does
	headers  map[string]string
	log      *slog.Logger

	echoes           []echo // of what is sent, by which server text is searched
	warnedOfReaders  bool
	warnedOfNetworks bool
}

func newCredentials(o *Options, log *slog.Logger) *credentials {
	c := &credentials{secret: o.Token, headers: o.HTTPHeaders, log: log}
	option, path := "token_file", o.TokenFile
	switch o.api() {
	case "v1":
		c.scheme, c.username, c.secret = "Basic", o.Username, o.Password
		option, path = "password_file", o.PasswordFile
	case "v2":
		c.scheme = "Token"
	default:
		c.scheme = "Bearer"
	}
	if path != "" {
		c.file = newFile(option, path, maxSecret)
	}
	c.echoes = c.listEchoes()
	return c
}

// maxSecret bounds what is read of a secret file.
const maxSecret = 64 << 10

// refresh reads the file of the secret again.
func (c *credentials) refresh(ctx context.Context) error {
	if c.file == nil {
		return nil
	}
	content, err := c.file.read(ctx)
	if err != nil {
		return err
	}
	if content.mode.Perm()&0o004 != 0 && !c.warnedOfReaders {
		c.log.Warn("everyone can read the secret file", c.file.option, c.file.path, "mode", content.mode.Perm().String())
		c.warnedOfReaders = true
	}
	secret, err := parseSecret(string(content.data), c.scheme != "Basic")
	if err != nil {
		return fmt.Errorf("%s: %q %w", c.file.option, c.file.path, err)
	}
	if secret != c.secret {
		c.secret = secret
		c.echoes = c.listEchoes()
	}
	return nil
}

// parseSecret returns the secret in the text of a file: without a byte order mark
// and the line ends behind it, and a token without any blanks around it. A password
// may begin or end with one.
func parseSecret(text string, isToken bool) (string, error) {
	secret := strings.TrimRight(strings.TrimPrefix(text, "\ufeff"), "\r\n")
	if isToken {
		secret = strings.TrimSpace(secret)
	}
	switch {
	case secret == "":
		return "", errors.New("is empty")
	case strings.ContainsFunc(secret, isControl):
		return "", errors.New("holds more than one line, or another control character")
	}
	return secret, nil
}

// authorization returns the value of the header Authorization, "" for none.
func (c *credentials) authorization() string {
	switch {
	case c.scheme == "Basic" && c.username != "":
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.username+":"+c.secret))
	case c.scheme != "Basic" && c.secret != "":
		return c.scheme + " " + c.secret
	default:
		return ""
	}
}

// apply sets the headers of a request. Those of the options come last.
func (c *credentials) apply(req *http.Request) {
	if a := c.authorization(); a != "" {
		req.Header.Set("Authorization", a)
	}
	for name, value := range c.headers {
		if strings.EqualFold(name, "Host") {
			req.Host = value
		} else {
			req.Header.Set(name, value)
		}
	}
}

// warnOfPlaintext warns once if a server gets credentials over http://.
func (c *credentials) warnOfPlaintext(servers []*server) {
	if c.warnedOfNetworks || c.authorization() == "" && len(c.headers) == 0 {
		return
	}
	for _, s := range servers {
		if s.plaintext {
			c.log.Warn("credentials are sent unencrypted: use https", "url", s.name)
			c.warnedOfNetworks = true
			return
		}
	}
}

// An echo is a form in which a server may quote what a request carried, and what is
// shown of it.
type echo struct{ text, shown string }

// minBareSecret is the length from which on a secret is hidden wherever it stands by
// itself. A shorter one may be a word of the server's own, which hiding would give
// away: it is hidden only behind the name that it was sent with.
const minBareSecret = 16

// listEchoes returns the echoes to hide, longest first.
func (c *credentials) listEchoes() []echo {
	var echoes []echo
	add := func(name, separator, secret string) {
		if secret == "" {
			return
		}
		echoes = append(echoes, echo{name + separator + secret, name + separator + hidden})
		if len(secret) >= minBareSecret {
			echoes = append(echoes, echo{secret, hidden})
		}
	}
	addAuthorization := func(value string) {
		if scheme, secret, ok := strings.Cut(value, " "); ok {
			add(scheme, " ", secret)
		}
	}
	addAuthorization(c.authorization())
	if c.username != "" {
		add(c.username, ":", c.secret)
	}
	for name, value := range c.headers {
		add(name, ": ", value)
		addAuthorization(value)
	}
	slices.SortFunc(echoes, func(a, b echo) int {
		return cmp.Or(cmp.Compare(len(b.text), len(a.text)), strings.Compare(a.text, b.text))
	})
	return echoes
}

const hidden = "[secret]"

// hide replaces the credentials that a server quotes in a text that is to be shown.
// It is no part of deciding what the text means.
func (c *credentials) hide(text string) string {
	for _, e := range c.echoes {
		text = replaceWhole(text, e.text, e.shown)
	}
	return text
}

// hideInError does the same for an error of the transport, which may quote what a
// server sent.
func (c *credentials) hideInError(err error) error {
	if text := c.hide(err.Error()); text != err.Error() {
		return errors.New(text)
	}
	return err
}

// replaceWhole replaces old in s, but not as a part of a longer word.
func replaceWhole(s, old, with string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, old)
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		end := i + len(old)
		if isWordByte(old[0]) && i > 0 && isWordByte(s[i-1]) ||
			isWordByte(old[len(old)-1]) && end < len(s) && isWordByte(s[end]) {
			b.WriteString(s[:i+1])
			s = s[i+1:]
			continue
		}
		b.WriteString(s[:i])
		b.WriteString(with)
		s = s[end:]
	}
}

func isWordByte(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || b == '_' || b >= 0x80
}
