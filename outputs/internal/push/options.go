package push

import (
	"slices"
	"strings"

	"sockwatch/agent/plugin"
)

// Options are the options of every output that pushes over HTTP, for embedding. The
// output itself has the URLs, content_encoding (see ValidateEncoding) and max_body (see
// ValidateMaxBody), because their values and defaults differ.
type Options struct {
	Login
	// Additional HTTP headers of each request. Their values are treated as secrets. If a
	// server quotes a value of less than 8 bytes, the log hides it only after its header
	// name.
	Headers map[string]string `toml:"headers" secret:""`
	Transport
}

// Validate returns every error of the options, joined. They contain no secrets.
func (o *Options) Validate() error { return nil }

// A Login is a user with a password, or a token.
type Login struct {
	// User for basic authentication.
	Username string `toml:"username"`
	// Password of the user. If a server quotes a password of less than 8 bytes, the log
	// hides it only after its scheme or user.
	Password string `toml:"password" secret:""`
	// Absolute path of the file with the password. It is read again for each request.
	PasswordFile string `toml:"password_file"`
	// Token that is sent as "Authorization: Bearer ...". If a server quotes a token of less
	// than 8 bytes, the log hides it only after its scheme.
	Token string `toml:"token" secret:""`
	// Absolute path of the file with the token. It is read again for each request.
	TokenFile string `toml:"token_file"`
}

// A Transport is how to connect.
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
	// HTTP proxy to use for all URLs: "http://proxy.example.org:3128". If empty: that of
	// HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment, but none for loopback.
	HTTPProxyURL string `toml:"http_proxy_url" secret:""`
}

// ValidateURL returns the error of one URL in an option, or nil. Errors show no part that
// may be a secret. A query is refused unless allowQuery.
func ValidateURL(option, value string, allowQuery bool) error { return nil }

// ValidateEncoding returns the error of content_encoding, or nil.
func ValidateEncoding(value string, known ...string) error {
	if !slices.Contains(known, value) {
		return plugin.Invalid("content_encoding", "unknown value %q (known: %s)", value, strings.Join(known, ", "))
	}
	return nil
}

// ValidateMaxBody returns the error of max_body, or nil.
func ValidateMaxBody(value plugin.Size) error { return nil }
