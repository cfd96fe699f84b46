package push

import (
	"errors"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"sockwatch/agent/plugin"
)

// Options are the options of every output that pushes over HTTP, for embedding. The
// output itself has its URLs, content_encoding and max_body, because their values and
// defaults differ: see ValidateURL, ValidateEncoding and ValidateMaxBody.
type Options struct {
	Login
	// Additional HTTP headers of each request. Their values are treated as secrets. If a
	// server quotes a value of less than 8 bytes, the log hides it only after its scheme
	// or header name.
	Headers map[string]string `toml:"headers" secret:""`
	Transport
}

// Validate returns every error of the options, joined. Errors contain no secrets. own are
// the headers that the output itself sets in a Request, in their canonical form.
func (o *Options) Validate(own ...string) error {
	var both error
	if o.Username != "" && o.hasToken() {
		both = plugin.Invalid("token", "must not be set together with username")
	}
	return errors.Join(o.Login.Validate(), both, ValidateHeaders("headers", o.Headers, &o.Login, own...), o.Transport.Validate())
}

// A Login is a user with a password, or a token. Without either there is no
// authentication.
type Login struct {
	// User for basic authentication. If empty: none.
	Username string `toml:"username"`
	// Password of the user. If a server quotes a password of less than 8 bytes, the log
	// hides it only after its scheme or user.
	Password string `toml:"password" secret:""`
	// Absolute path of the file with the password. It is read again for each request.
	PasswordFile string `toml:"password_file"`
	// API token, sent in the header Authorization. If a server quotes a token of less than
	// 8 bytes, the log hides it only after its scheme.
	Token string `toml:"token" secret:""`
	// Absolute path of the file with the token. It is read again for each request.
	TokenFile string `toml:"token_file"`
}

// Validate returns every error of the options, joined. They contain no secrets.
func (l *Login) Validate() error {
	var errs []error
	invalid := func(option, format string, args ...any) {
		errs = append(errs, plugin.Invalid(option, format, args...))
	}
	if l.Password != "" && l.PasswordFile != "" {
		invalid("password", "must not be set together with password_file")
	}
	if l.Token != "" && l.TokenFile != "" {
		invalid("token", "must not be set together with token_file")
	}
	if (l.Password != "" || l.PasswordFile != "") && l.Username == "" {
		invalid("username", "must be set if a password is set")
	}
	if strings.Contains(l.Username, ":") {
		invalid("username", `contains ":", which basic authentication does not allow`)
	}
	errs = append(errs, ValidateName("username", l.Username), ValidateName("token", l.Token))
	if strings.ContainsFunc(l.Password, isControl) {
		invalid("password", "contains a control character, such as a line end")
	}
	return errors.Join(append(errs, validatePath("password_file", l.PasswordFile), validatePath("token_file", l.TokenFile))...)
}

// hasToken reports whether the login has a token.
func (l *Login) hasToken() bool { return l.Token != "" || l.TokenFile != "" }

// A Transport has the options of a connection.
type Transport struct {
	// Absolute path of a file with the CA certificates (PEM) to verify servers with. If
	// empty: the system's. This file and the next two are read again for each request.
	TLSCA string `toml:"tls_ca"`
	// Absolute path of the file with the client certificate (PEM), for servers that require one.
	TLSCert string `toml:"tls_cert"`
	// Absolute path of the file with the key of the client certificate (PEM).
	TLSKey string `toml:"tls_key"`
	// Name that the server's certificate must be valid for. If empty: the URL's host.
	TLSServerName string `toml:"tls_server_name"`
	// Skip TLS certificate verification. Anyone on the network path can then read and
	// alter the data, and steal the token.
	InsecureSkipVerify bool `toml:"insecure_skip_verify"`
	// Proxy for all requests, such as "http://proxy.example.org:3128". If empty: that of the
	// environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY), which is not used for loopback.
	HTTPProxyURL string `toml:"http_proxy_url" secret:""`
}

// Validate returns every error of the options, joined. They contain no secrets.
func (t *Transport) Validate() error {
	errs := []error{validatePath("tls_ca", t.TLSCA), validatePath("tls_cert", t.TLSCert), validatePath("tls_key", t.TLSKey)}
	if (t.TLSCert == "") != (t.TLSKey == "") {
		errs = append(errs, plugin.Invalid("tls_cert", "must be set together with tls_key"))
	}
	if t.TLSServerName != "" && !isHost(t.TLSServerName) {
		errs = append(errs, plugin.Invalid("tls_server_name", "%q is not a host name or an IP address", t.TLSServerName))
	}
	if t.HTTPProxyURL != "" {
		if _, err := parseProxyURL(t.HTTPProxyURL); err != nil {
			errs = append(errs, plugin.Invalid("http_proxy_url", "%w", err))
		}
	}
	return errors.Join(errs...)
}

// ownHeaders are the headers that a Client sets.
var ownHeaders = []string{"Connection", "Content-Encoding", "Content-Length", "Expect", "Trailer", "Transfer-Encoding", "Upgrade"}

// ValidateHeaders checks an option with additional headers. Its errors contain the names of
// headers, but not their values. own are further headers that the output itself sets.
func ValidateHeaders(option string, headers map[string]string, login *Login, own ...string) error {
	var errs []error
	seen := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		canonical := http.CanonicalHeaderKey(name)
		value := headers[name]
		problem := ""
		switch {
		case name == "" || strings.ContainsFunc(name, isNotToken):
			problem = "is not the name of an HTTP header"
		case slices.Contains(ownHeaders, canonical) || slices.Contains(own, canonical):
			problem = "is set by the output itself"
		case seen[canonical]:
			problem = "is set twice"
		case canonical == "Authorization" && login.Username != "":
			problem = "must not be set together with username"
		case canonical == "Authorization" && login.hasToken():
			problem = "must not be set together with token or token_file"
		case strings.ContainsFunc(value, isControl):
			problem = "contains a control character, such as a line end"
		case strings.TrimSpace(value) == "":
			problem = "is empty"
		}
		seen[canonical] = true
		if problem != "" {
			errs = append(errs, plugin.Invalid(option, "%q %s", name, problem))
		}
	}
	return errors.Join(errs...)
}

// isNotToken reports whether r is not allowed in a header's name (RFC 9110, section
// 5.6.2).
func isNotToken(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}

// ValidateName returns the error of an option whose value must be empty or one line that is
// not blank.
func ValidateName(option, value string) error {
	switch {
	case strings.ContainsFunc(value, isControl):
		return plugin.Invalid(option, "contains a control character, such as a line end")
	case value != "" && strings.TrimSpace(value) == "":
		return plugin.Invalid(option, "contains only blanks")
	default:
		return nil
	}
}

// validatePath returns the error of an option with a path, which may be empty. The error
// does not show the path: it may be a misplaced secret.
func validatePath(option, path string) error {
	if path != "" && !filepath.IsAbs(path) {
		return plugin.Invalid(option, "must be an absolute path")
	}
	return nil
}

// ValidateEncoding returns the error of content_encoding. known are the values that a
// Compressor supports and that servers of the output accept.
func ValidateEncoding(value string, known ...string) error {
	if !slices.Contains(known, value) {
		return plugin.Invalid("content_encoding", "unknown value %q (known: %s)", value, strings.Join(known, ", "))
	}
	return nil
}

// maxMaxBody is more than any server accepts by default, and fits into an int.
const maxMaxBody = 1 << 30

// ValidateMaxBody returns the error of max_body.
func ValidateMaxBody(value plugin.Size) error {
	if value <= 0 || value > maxMaxBody {
		return plugin.Invalid("max_body", "must be more than 0B and at most %v", plugin.Size(maxMaxBody))
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
