package influxdb

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
)

// credentials authenticate a request: with the password or token, from the configuration
// or from a file, and with the headers from the options.
type credentials struct {
	scheme   string // of Authorization: Basic, Token or Bearer
	username string // Basic only
	secret   string // the password or token as of the last refresh; "": none
	file     *file  // the file with the secret; nil: it is in the configuration
	headers  map[string]string
	log      *slog.Logger

	echoes           echoes // of the credentials in use
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

// maxSecret is the maximum size of a secret file.
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
		c.log.Warn("every user of this host can read the secret file", c.file.option, c.file.path, "mode", content.mode.Perm().String())
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

// parseSecret returns the secret in the text of a file. It removes a byte order mark and
// line ends at the end. It also removes blanks around a token, but not around a password,
// which may begin or end with blanks.
func parseSecret(text string, isToken bool) (string, error) {
	secret := strings.TrimRight(strings.TrimPrefix(text, "\ufeff"), "\r\n")
	if isToken {
		secret = strings.TrimSpace(secret)
	}
	switch {
	case secret == "":
		return "", errors.New("is empty")
	case strings.ContainsFunc(secret, isControl):
		return "", errors.New("contains more than one line, or another control character")
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

// apply sets the headers of a request. The ones from the options take precedence.
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

// warnOfPlaintext warns once if credentials are sent to another host over http://.
func (c *credentials) warnOfPlaintext(servers []*server) {
	if c.warnedOfNetworks || c.authorization() == "" && len(c.headers) == 0 {
		return
	}
	for _, s := range servers {
		if s.plaintext {
			c.log.Warn("sending credentials unencrypted: use https", "url", s.name)
			c.warnedOfNetworks = true
			return
		}
	}
}

// listEchoes returns the forms in which a server may quote the credentials of a request.
func (c *credentials) listEchoes() echoes {
	var e echoes
	e.addAuthorization(c.authorization())
	if c.username != "" {
		e.add(c.username+":", c.secret)
	}
	for name, value := range c.headers {
		e.add(name+": ", value)
		e.addAuthorization(value)
	}
	e.sort()
	return e
}

// hide replaces the credentials in use in a text that is to be shown.
func (c *credentials) hide(text string) string { return c.echoes.hide(text) }

// hideInError does the same in an error of the transport, which may quote what a server
// sent.
func (c *credentials) hideInError(err error) error {
	if text := c.hide(err.Error()); text != err.Error() {
		return errors.New(text)
	}
	return err
}
