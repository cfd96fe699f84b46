package influxdb

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"sockwatch/outputs/internal/push"
)

// writeTarget returns the path and query that points are posted to.
func (o *Options) writeTarget() (path, query string) {
	q := url.Values{}
	switch o.api() {
	case "v1":
		path = "write"
		q.Set("db", o.Database)
		if o.RetentionPolicy != "" {
			q.Set("rp", o.RetentionPolicy)
		}
		q.Set("precision", "ns")
	case "v2":
		path = "api/v2/write"
		q.Set("org", o.Organization)
		q.Set("bucket", o.Bucket)
		q.Set("precision", "ns")
	default:
		path = "api/v3/write_lp"
		q.Set("db", o.Database)
		q.Set("precision", "nanosecond")
	}
	return path, q.Encode()
}

// databases are the servers that have answered the request to create the database, with
// the answer of each that did not create it, or "".
type databases map[*push.Server]string

// mayCreateDatabase reports whether InfluxDB 1.x answered that the database is missing and
// has not been asked to create it before.
func (o *output) mayCreateDatabase(s *push.Server, resp *push.Response) bool {
	_, asked := o.databases[s]
	return o.options.api() == "v1" && !o.options.SkipDatabaseCreation && !asked &&
		resp.Status == http.StatusNotFound && parseAnswer(resp).says("database not found")
}

// identifierEscapes escapes a quoted identifier of InfluxQL.
var identifierEscapes = strings.NewReplacer("\n", `\n`, `\`, `\\`, `"`, `\"`)

// creation returns the request that creates a database in InfluxDB 1.x.
func creation(name string) *push.Request {
	q := url.Values{"q": {`CREATE DATABASE "` + identifierEscapes.Replace(name) + `"`}}
	return &push.Request{Path: "query", ContentType: "application/x-www-form-urlencoded", Body: []byte(q.Encode())}
}

// createDatabase asks a server, once, to create the database. A refusal is not an error
// here: the server's answer becomes part of the error of the write, which keeps the
// points.
func (o *output) createDatabase(ctx context.Context, s *push.Server) error {
	resp, err := o.client.Post(ctx, s, creation(o.options.Database))
	if err != nil {
		return fmt.Errorf("create database %q: %w", o.options.Database, err)
	}
	if resp.Status == http.StatusTooManyRequests || resp.Status >= 500 { // about the server's state, so it may be asked again
		return fmt.Errorf("%s: create database %q: %s", s.Name, o.options.Database, o.client.Describe(resp))
	}
	o.databases[s] = ""
	if resp.Status >= 300 || resp.Err != nil || strings.Contains(parseAnswer(resp).text, `"error"`) { // an error in the statement has status 200
		o.databases[s] = o.client.Describe(resp)
	} else {
		o.log.Info("database created", "database", o.options.Database, "url", s.Name)
	}
	return nil
}
