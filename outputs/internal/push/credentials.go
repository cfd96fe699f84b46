package push

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

// credentials authenticate a request: with the password or token, from the configuration
// or from a file, and with the headers from the options.
type credentials struct {
	login   *Login
	headers map[string]string
	scheme  string // of Authorization: Basic, Token or Bearer
	secret  string // the password or token as of the last refresh; "": none
	file    *file  // the file with the secret; nil: it is in the configuration
	log     *slog.Logger

	fixed            echoes // of secrets in the URLs, which do not change
	echoes           echoes // of all secrets in use
	warnedOfReaders  bool
	warnedOfNetworks bool
}

func newCredentials(config *Config, servers []*Server) *credentials {
	c := &credentials{login: &config.Login, headers: config.Headers, log: config.Log}
	option, path := "token_file", c.login.TokenFile
	if c.login.Username != "" {
		c.scheme, c.secret = "Basic", c.login.Password
		option, path = "password_file", c.login.PasswordFile
	} else {
		c.scheme, c.secret = cmp.Or(config.TokenScheme, "Bearer"), c.login.Token
	}
	if path != "" {
		c.file = newFile(option, path, maxSecret)
	}
	for _, s := range servers {
		c.fixed.addURL(s.URL)
	}
	c.fixed.addProxy(config.Transport.HTTPProxyURL)
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
	case c.scheme == "Basic":
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.login.Username+":"+c.secret))
	case c.secret != "":
		return c.scheme + " " + c.secret
	default:
		return ""
	}
}

// advice returns what to do if the server refuses the login.
func (c *credentials) advice() string {
	switch {
	case c.scheme == "Basic":
		return "check username and password"
	case c.login.hasToken():
		return "check token"
	case len(c.headers) > 0:
		return "check the headers, or set username or token"
	default:
		return "set username or token"
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
func (c *credentials) warnOfPlaintext(servers []*Server) {
	if c.warnedOfNetworks || c.authorization() == "" && !c.headersHaveSecret() {
		return
	}
	for _, s := range servers {
		if s.URL.Scheme == "http" && !isLoopback(s.URL.Hostname()) {
			c.log.Warn("sending credentials unencrypted: use https", "url", s.Name)
			c.warnedOfNetworks = true
			return
		}
	}
}

// isPlain reports whether a header's value is not a secret.
func isPlain(name string) bool {
	return slices.Contains([]string{"Accept", "Content-Type", "Host", "User-Agent"}, http.CanonicalHeaderKey(name))
}

// headersHaveSecret reports whether the value of a header may be a secret.
func (c *credentials) headersHaveSecret() bool {
	for name := range c.headers {
		if !isPlain(name) {
			return true
		}
	}
	return false
}

// listEchoes returns the forms in which a server may quote the credentials of a request.
func (c *credentials) listEchoes() echoes {
	e := slices.Clone(c.fixed)
	e.addAuthorization(c.authorization())
	if c.scheme == "Basic" {
		e.add(c.login.Username+":", c.secret)
	}
	for name, value := range c.headers {
		if isPlain(name) {
			continue
		}
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
