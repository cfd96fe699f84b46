package influxdb

import (
	"net/netip"
	"net/url"
	"strings"
)

// A server is one of the URLs.
type server struct {
	name     string // scheme and host, for messages
	base     *url.URL
	writeURL string
	// plaintext reports that others on the network path can read what is sent.
	plaintext bool
	// refusesExpect reports that it answered "Expect: 100-continue" with 417.
	refusesExpect bool
	// creationAsked reports that it has answered the request to create the database,
	// and creationRefusal is that answer if it did not create it.
	creationAsked   bool
	creationRefusal string
}

// newServer returns the server of a URL.
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

// identifierEscapes are those of InfluxQL's quoted identifiers.
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
