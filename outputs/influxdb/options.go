package influxdb

import (
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sockwatch/agent/plugin"
)

// Options are the options of [[outputs.influxdb]].
type Options struct {
	// URLs of the servers. Each request goes to the server that worked last, or to the
	// next one if that fails. A path in the URL is prepended to the API's path.
	URLs []string `toml:"urls"`
	// InfluxDB 1.x and 3.x: database to write to.
	Database string `toml:"database"`
	// InfluxDB 1.x: retention policy to write to. If empty: the default one.
	RetentionPolicy string `toml:"retention_policy"`
	// InfluxDB 1.x: do not create a missing database.
	SkipDatabaseCreation bool `toml:"skip_database_creation"`
	// InfluxDB 1.x: user with write permission. If empty: no authentication.
	Username string `toml:"username"`
	// InfluxDB 1.x: password of the user. If a server quotes a password of less than 8
	// bytes, the log hides it only after its scheme or user.
	Password string `toml:"password" secret:""`
	// InfluxDB 1.x: absolute path of the file with the password. It is read again for each request.
	PasswordFile string `toml:"password_file"`
	// InfluxDB 2.x: organization of the bucket.
	Organization string `toml:"organization"`
	// InfluxDB 2.x: bucket to write to. It must exist.
	Bucket string `toml:"bucket"`
	// InfluxDB 2.x and 3.x: API token with write permission. If a server quotes a token of
	// less than 8 bytes, the log hides it only after its scheme.
	Token string `toml:"token" secret:""`
	// InfluxDB 2.x and 3.x: absolute path of the file with the token. It is read again for each request.
	TokenFile string `toml:"token_file"`
	// Write API: "v1", "v2", "v3", or "auto": v2 if a bucket is set, v3 if a database and
	// a token are set, else v1.
	API string `toml:"api"`
	// Additional HTTP headers of each request, such as Authorization = "Bearer ...". Their
	// values are treated as secrets. If a server quotes a value of less than 8 bytes, the
	// log hides it only after its scheme or header name.
	HTTPHeaders map[string]string `toml:"http_headers" secret:""`
	// Compression of request bodies: "gzip" or "identity" (none).
	ContentEncoding string `toml:"content_encoding"`
	// Maximum size of the line protocol in one request, before compression.
	MaxBody plugin.Size `toml:"max_body"`
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
}

// Defaults returns the options of an instance that sets none.
func Defaults() Options {
	return Options{
		URLs:            []string{"http://127.0.0.1:8086"},
		API:             "auto",
		ContentEncoding: "gzip",
		MaxBody:         1 << 20,
	}
}

// Example returns options for the example file.
func Example() Options {
	o := Defaults()
	o.URLs = []string{"https://influxdb.example.org:8086"}
	o.Organization = "example"
	o.Bucket = "sockwatch"
	o.TokenFile = "/etc/sockwatch/influxdb.token"
	o.HTTPHeaders = map[string]string{"X-Scope-OrgID": "example"}
	return o
}

// Validate returns every error of the options, joined. They contain no secrets.
func (o *Options) Validate() error {
	var errs []error
	invalid := func(option, format string, args ...any) {
		errs = append(errs, plugin.Invalid(option, format, args...))
	}
	if len(o.URLs) == 0 {
		invalid("urls", "must name a server")
	}
	for _, u := range o.URLs {
		parsed, err := parseURL(u)
		if err == nil {
			err = checkAddress(parsed)
		}
		if err != nil {
			invalid("urls", "%w", err)
		}
	}
	errs = append(errs, o.validateAPI())
	if o.Password != "" && o.PasswordFile != "" {
		invalid("password", "must not be set together with password_file")
	}
	if o.Token != "" && o.TokenFile != "" {
		invalid("token", "must not be set together with token_file")
	}
	if (o.Password != "" || o.PasswordFile != "") && o.Username == "" {
		invalid("username", "must be set if a password is set")
	}
	for _, s := range []struct{ option, value string }{
		{"database", o.Database}, {"retention_policy", o.RetentionPolicy}, {"organization", o.Organization}, {"bucket", o.Bucket},
		{"username", o.Username}, {"password", o.Password}, {"token", o.Token},
	} {
		if strings.ContainsFunc(s.value, isControl) {
			invalid(s.option, "contains a control character, such as a line end")
		}
	}
	for _, s := range []struct{ option, value string }{
		{"database", o.Database}, {"retention_policy", o.RetentionPolicy}, {"organization", o.Organization}, {"bucket", o.Bucket},
		{"username", o.Username}, {"token", o.Token},
	} {
		if s.value != "" && strings.TrimSpace(s.value) == "" {
			invalid(s.option, "contains only blanks")
		}
	}
	for _, s := range []struct{ option, path string }{ // errors do not show the path: it may be a misplaced secret
		{"password_file", o.PasswordFile}, {"token_file", o.TokenFile}, {"tls_ca", o.TLSCA}, {"tls_cert", o.TLSCert}, {"tls_key", o.TLSKey},
	} {
		if s.path != "" && !filepath.IsAbs(s.path) {
			invalid(s.option, "must be an absolute path")
		}
	}
	if o.TLSServerName != "" && !isHost(o.TLSServerName) {
		invalid("tls_server_name", "%q is not a host name or an IP address", o.TLSServerName)
	}
	errs = append(errs, o.validateHeaders())
	if strings.Contains(o.Username, ":") {
		invalid("username", `contains ":", which basic authentication does not allow`)
	}
	if o.ContentEncoding != "gzip" && o.ContentEncoding != "identity" {
		invalid("content_encoding", "unknown value %q (known: gzip, identity)", o.ContentEncoding)
	}
	if o.MaxBody <= 0 || o.MaxBody > maxMaxBody {
		invalid("max_body", "must be more than 0B and at most %v", plugin.Size(maxMaxBody))
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		invalid("tls_cert", "must be set together with tls_key")
	}
	return errors.Join(errs...)
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}$`)

// isHost reports whether a certificate can be valid for the name.
func isHost(name string) bool {
	_, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"))
	return err == nil || hostName.MatchString(name)
}

// maxMaxBody is more than any server accepts by default, and fits into an int.
const maxMaxBody = 1 << 30

// ownHeaders are the headers that the output itself sets.
var ownHeaders = []string{"Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Trailer", "Transfer-Encoding", "Upgrade"}

// validateHeaders checks http_headers. Its errors contain the names of headers, but not
// their values.
func (o *Options) validateHeaders() error {
	var errs []error
	seen := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(o.HTTPHeaders)) {
		canonical := http.CanonicalHeaderKey(name)
		value := o.HTTPHeaders[name]
		problem := ""
		switch {
		case name == "" || strings.ContainsFunc(name, isNotToken):
			problem = "is not the name of an HTTP header"
		case slices.Contains(ownHeaders, canonical):
			problem = "is set by the output itself"
		case seen[canonical]:
			problem = "is set twice"
		case canonical == "Authorization" && o.Username != "":
			problem = "must not be set together with username"
		case canonical == "Authorization" && (o.Token != "" || o.TokenFile != ""):
			problem = "must not be set together with token or token_file"
		case strings.ContainsFunc(value, isControl):
			problem = "contains a control character, such as a line end"
		case strings.TrimSpace(value) == "":
			problem = "is empty"
		}
		seen[canonical] = true
		if problem != "" {
			errs = append(errs, plugin.Invalid("http_headers", "%q %s", name, problem))
		}
	}
	return errors.Join(errs...)
}

// isNotToken reports whether r is not allowed in a header's name (RFC 9110, section
// 5.6.2).
func isNotToken(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}

// validateAPI checks that the options fit the API in use.
func (o *Options) validateAPI() error {
	type setting struct{ name, value string }
	database := []setting{{"database", o.Database}}
	skip := ""
	if o.SkipDatabaseCreation {
		skip = "true"
	}
	v1 := []setting{{"retention_policy", o.RetentionPolicy}, {"skip_database_creation", skip}, {"username", o.Username}, {"password", o.Password}, {"password_file", o.PasswordFile}}
	v2 := []setting{{"organization", o.Organization}, {"bucket", o.Bucket}}
	token := []setting{{"token", o.Token}, {"token_file", o.TokenFile}}

	var required, foreign []setting
	api, chosen := o.api(), ""
	switch api {
	case "v1":
		required, foreign = database, slices.Concat(v2, token)
	case "v2":
		required, foreign = v2, slices.Concat(database, v1)
		chosen = ", which is selected by organization and bucket"
	case "v3":
		required, foreign = database, slices.Concat(v2, v1)
		chosen = ", which is selected by the token"
	default:
		return plugin.Invalid("api", "unknown value %q (known: auto, v1, v2, v3)", api)
	}
	if o.API != "auto" {
		chosen = ""
	}
	var errs []error
	for _, s := range required {
		if s.value == "" {
			errs = append(errs, plugin.Invalid(s.name, "must be set for the write API %s%s", api, chosen))
		}
	}
	for _, s := range foreign {
		if s.value != "" {
			errs = append(errs, plugin.Invalid(s.name, "is not an option of the write API %s%s", api, chosen))
		}
	}
	return errors.Join(errs...)
}

// api returns the API in use. With "auto", it follows from the options that are set.
func (o *Options) api() string {
	switch {
	case o.API != "auto":
		return o.API
	case o.Organization != "" || o.Bucket != "":
		return "v2"
	case o.Token != "" || o.TokenFile != "":
		return "v3"
	default:
		return "v1"
	}
}

// parseURL parses the URL of a server. Its errors show no part that may be a password or a
// token. Those of net/url would show the whole URL.
func parseURL(s string) (*url.URL, error) {
	shown, _, hasQuery := strings.Cut(s, "?")
	shown, _, hasFragment := strings.Cut(shown, "#")
	u, err := url.Parse(s)
	switch {
	case strings.Contains(s, "@"):
		return nil, errors.New(`a URL contains "@", as in user:password@host: set username and password instead`)
	case hasQuery || hasFragment:
		return nil, plugin.Errorf(`%q is followed by "?" or "#", which is not allowed: set the options instead`, shown)
	case err != nil:
		return nil, plugin.Errorf("%q is not a URL", shown)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, plugin.Errorf("%q does not begin with http:// or https://", shown)
	case u.Hostname() == "":
		return nil, plugin.Errorf("%q has no host", shown)
	}
	return u, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
