package influxdb

import (
	"errors"
	"slices"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/push"
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
	// InfluxDB 2.x: organization of the bucket.
	Organization string `toml:"organization"`
	// InfluxDB 2.x: bucket to write to. It must exist.
	Bucket string `toml:"bucket"`
	push.Login
	// Write API: "v1" (login by username and password), "v2" or "v3" (by token), or "auto":
	// v2 if a bucket is set, v3 if a database and a token are set, else v1.
	API string `toml:"api"`
	// Additional HTTP headers of each request, such as Authorization = "Bearer ...". Their
	// values are treated as secrets. If a server quotes a value of less than 8 bytes, the
	// log hides it only after its scheme or header name.
	HTTPHeaders map[string]string `toml:"http_headers" secret:""`
	// Compression of request bodies: "gzip" or "identity" (none).
	ContentEncoding string `toml:"content_encoding"`
	// Maximum size of the line protocol in one request, before compression.
	MaxBody plugin.Size `toml:"max_body"`
	push.Transport
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
	return errors.Join(
		push.ValidateURLs("urls", o.URLs, false), o.validateAPI(),
		push.ValidateName("database", o.Database), push.ValidateName("retention_policy", o.RetentionPolicy),
		push.ValidateName("organization", o.Organization), push.ValidateName("bucket", o.Bucket),
		o.Login.Validate(), push.ValidateHeaders("http_headers", o.HTTPHeaders, &o.Login, "Content-Type"),
		push.ValidateEncoding(o.ContentEncoding, "gzip", "identity"), push.ValidateMaxBody(o.MaxBody), o.Transport.Validate(),
	)
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
		chosen = ", which is selected if neither organization, bucket nor a token is set"
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
