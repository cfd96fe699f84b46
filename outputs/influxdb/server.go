package influxdb

import (
	"net/netip"
	"net/url"
	"strings"
)

// A server is the server of one URL.
type server struct {
	name     string // scheme and host, for messages
	base     *url.URL
	writeURL string
	// plaintext reports that requests cross a network unencrypted.
	plaintext bool
	// refusesExpect reports that the server answered "Expect: 100-continue" with 417.
	refusesExpect bool
	// creationAsked reports that the server has answered the request to create the
	// database. creationRefusal is that answer if it did not create it, else "".
	creationAsked   bool
	creationRefusal string
}

// newServer returns the server at a URL.
func newServer(address string, o *Options) (*server, error) {
	u, err := parseURL(address)
	if err != nil {
		return nil, err
	}
	return &server{
		name:      u.Scheme + "://" + u.Host,
		base:      u,
		writeURL:  writeURL(u, o),
		plaintext: u.Scheme == "http" && !isLoopback(u.Hostname()),
	}, nil
}

// writeURL returns the URL that points are posted to.
func writeURL(base *url.URL, o *Options) string {
	q := url.Values{}
	var u *url.URL
	switch o.api() {
	case "v1":
		u = base.JoinPath("write")
		q.Set("db", o.Database)
		if o.RetentionPolicy != "" {
			q.Set("rp", o.RetentionPolicy)
		}
		q.Set("precision", "ns")
	case "v2":
		u = base.JoinPath("api/v2/write")
		q.Set("org", o.Organization)
		q.Set("bucket", o.Bucket)
		q.Set("precision", "ns")
	default:
		u = base.JoinPath("api/v3/write_lp")
		q.Set("db", o.Database)
		q.Set("precision", "nanosecond")
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// identifierEscapes escapes a quoted identifier of InfluxQL.
var identifierEscapes = strings.NewReplacer("\n", `\n`, `\`, `\\`, `"`, `\"`)

// createDatabase returns the request that creates a database in InfluxDB 1.x.
func (s *server) createDatabase(name string) request {
	q := url.Values{"q": {`CREATE DATABASE "` + identifierEscapes.Replace(name) + `"`}}
	return request{url: s.base.JoinPath("query").String(), contentType: "application/x-www-form-urlencoded", body: []byte(q.Encode())}
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
