package influxdb

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"sockwatch/agent/plugin"
)

// Options are the options of [[outputs.influxdb]].
type Options struct {
	// The servers, of which one gets each request: the one that worked last, and
	// the others in turn where it fails. A path before the API's own is kept.
	URLs []string `toml:"urls"`
	// InfluxDB 1.x and 3.x: the database to write to. It has to exist in 1.x.
	Database string `toml:"database"`
	// InfluxDB 1.x: the retention policy to write to; empty: the default one.
	RetentionPolicy string `toml:"retention_policy"`
	// InfluxDB 1.x: the user who writes, where the server asks for one.
	Username string `toml:"username"`
	// InfluxDB 1.x: the user's password.
	Password string `toml:"password" secret:""`
	// InfluxDB 1.x: a file that holds the password; read again when it is replaced.
	PasswordFile string `toml:"password_file"`
	// InfluxDB 2.x: the organization that the bucket belongs to.
	Organization string `toml:"organization"`
	// InfluxDB 2.x: the bucket to write to. It has to exist.
	Bucket string `toml:"bucket"`
	// InfluxDB 2.x and 3.x: the token that allows to write.
	Token string `toml:"token" secret:""`
	// InfluxDB 2.x and 3.x: a file that holds the token; read again when it is
	// replaced.
	TokenFile string `toml:"token_file"`
	// Which write API: "v1", "v2", "v3", or "auto": v2 where a bucket is set, v3
	// where a database and a token are, else v1.
	API string `toml:"api"`
	// "gzip" or "identity" (uncompressed).
	ContentEncoding string `toml:"content_encoding"`
	// How much line protocol one request carries at most, before compression.
	MaxBody plugin.Size `toml:"max_body"`
	// A file of certificates (PEM) that servers' are verified by; empty: the
	// system's. It and the next two are read again when they are replaced.
	TLSCA string `toml:"tls_ca"`
	// A file with the client's certificate (PEM), where the server asks for one.
	TLSCert string `toml:"tls_cert"`
	// A file with the key of that certificate (PEM).
	TLSKey string `toml:"tls_key"`
	// The name that the server's certificate is to be for; empty: the URL's host.
	TLSServerName string `toml:"tls_server_name"`
	// Take any certificate: whoever stands between reads and changes all, and gets
	// the token.
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
	return o
}

// Validate returns every error of the options, joined. No secret is in them.
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
		invalid("password", "must not be set beside password_file")
	}
	if o.Token != "" && o.TokenFile != "" {
		invalid("token", "must not be set beside token_file")
	}
	if (o.Password != "" || o.PasswordFile != "") && o.Username == "" {
		invalid("username", "must be set for the password")
	}
	for _, s := range []struct{ option, value string }{
		{"database", o.Database}, {"retention_policy", o.RetentionPolicy}, {"organization", o.Organization}, {"bucket", o.Bucket},
		{"username", o.Username}, {"password", o.Password}, {"token", o.Token},
	} {
		if strings.ContainsFunc(s.value, isControl) {
			invalid(s.option, "holds a control character, such as a line end")
		}
	}
	if strings.Contains(o.Username, ":") {
		invalid("username", `holds ":", which basic authentication cannot carry`)
	}
	if o.ContentEncoding != "gzip" && o.ContentEncoding != "identity" {
		invalid("content_encoding", "unknown value %q (known: gzip, identity)", o.ContentEncoding)
	}
	if o.MaxBody <= 0 || o.MaxBody > maxMaxBody {
		invalid("max_body", "must be more than 0B, and at most %v", plugin.Size(maxMaxBody))
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		invalid("tls_cert", "must be set together with tls_key")
	}
	return errors.Join(errs...)
}

// maxMaxBody is more than any server takes by default, and less than an int holds.
const maxMaxBody = 1 << 30

// validateAPI holds the options of the three APIs against the one in use.
func (o *Options) validateAPI() error {
	type setting struct{ name, value string }
	database := []setting{{"database", o.Database}}
	v1 := []setting{{"retention_policy", o.RetentionPolicy}, {"username", o.Username}, {"password", o.Password}, {"password_file", o.PasswordFile}}
	v2 := []setting{{"organization", o.Organization}, {"bucket", o.Bucket}}
	token := []setting{{"token", o.Token}, {"token_file", o.TokenFile}}

	var required, foreign []setting
	api, chosen := o.api(), ""
	switch api {
	case "v1":
		required, foreign = database, slices.Concat(v2, token)
	case "v2":
		required, foreign = v2, slices.Concat(database, v1)
		chosen = ", which organization and bucket choose"
	case "v3":
		required, foreign = database, slices.Concat(v2, v1)
		chosen = ", which the token chooses"
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
			errs = append(errs, plugin.Invalid(s.name, "is no option of the write API %s%s", api, chosen))
		}
	}
	return errors.Join(errs...)
}

// api returns the API in use: "auto" is by the options set.
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

// parseURL parses the URL of a server. Its errors show no password, nor what may
// be a piece of one.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case strings.Contains(s, "@"):
		return nil, errors.New(`a URL holds "@", as one with user and password does: these are options of their own`)
	case err != nil:
		return nil, fmt.Errorf("%q is no URL", s)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%q does not begin with http:// or https://", s)
	case u.Hostname() == "":
		return nil, fmt.Errorf("%q names no host", s)
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return nil, fmt.Errorf(`%q has a part behind "?" or "#", which the options say`, s)
	}
	return u, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
