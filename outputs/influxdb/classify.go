package influxdb

import (
	"errors"
	"fmt"
	"net/http"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/push"
)

// A classifier turns answers into errors, by the server's own words.
type classifier struct {
	options   Options
	client    *push.Client
	databases databases
}

// classify returns nil if a server's answer says that it has stored the records, else an
// error. Only 204 says so. A 200 comes from a proxy, a login portal or another kind of
// server.
func (c *classifier) classify(s *push.Server, a *answer, records [][]byte) error {
	switch {
	case a.Status == http.StatusNoContent:
		return nil
	case a.Status < 300:
		return fmt.Errorf("%s: %s: this is not how InfluxDB answers a write: check urls", s.Name, c.client.Describe(a.Response))
	case a.says("max request size"): // 3.x: status 500
		return fmt.Errorf("%s: %s (%w)", s.Name, c.client.Describe(a.Response), plugin.ErrTooLarge)
	case c.rejectsPoints(a) && len(records) > 0:
		return c.rejection(s, a, records)
	default:
		return c.client.Failure(s, a.Response)
	}
}

// rejectsPoints reports whether the answer is about points, and not about the request or
// the server.
func (c *classifier) rejectsPoints(a *answer) bool {
	switch a.Status {
	case http.StatusBadRequest:
		return len(a.lines) > 0 || a.saysAny("partial write", "unable to parse", "field type conflict",
			"beyond retention policy", "failed to parse line protocol", "line protocol parsing error", "parsing failed for write_lp")
	case http.StatusUnprocessableEntity: // 2.x; in 3.x this is a limit that an operator can raise
		return c.options.api() != "v3" && a.saysAny("partial write", "unable to parse", "field type conflict", "beyond retention policy")
	case http.StatusInternalServerError: // 2.x
		return a.saysAny("partial write", "field type conflict")
	default:
		return false
	}
}

// rejection returns the error for an answer that is about points. The error names the
// rejected records if they are known. A partial write stores all others.
func (c *classifier) rejection(s *push.Server, a *answer, records [][]byte) error {
	text := s.Name + ": " + c.client.Describe(a.Response)
	if len(records) == 1 || a.dropped() >= len(records) {
		return plugin.RejectAll(len(records), errors.New(text))
	}
	partial := a.says("partial write") && a.Status < 500 // with 500, 2.x may have stored nothing
	reasons, all := a.rejectedRecords(records)
	switch {
	case len(reasons) == 0 && partial:
		return fmt.Errorf("%s (%w)", text, &plugin.RejectedError{OthersStored: true})
	case len(reasons) == 0:
		return fmt.Errorf("%s (%w)", text, plugin.ErrRejected)
	}
	rejected := &plugin.RejectedError{Records: make(map[int]error, len(reasons)), OthersStored: all && partial}
	for i, reason := range reasons {
		rejected.Records[i] = errors.New(s.Name + ": " + c.client.Line(a.Status, reason))
	}
	return rejected
}

// advice returns what to do about an answer that does not depend on the points.
func (c *classifier) advice(s *push.Server, resp *push.Response) string {
	api := c.options.api()
	target, login := fmt.Sprintf("database %q", c.options.Database), "token"
	switch api {
	case "v1":
		login = "username and password"
	case "v2":
		target = fmt.Sprintf("bucket %q of organization %q", c.options.Bucket, c.options.Organization)
	}
	guessed := c.options.API == "auto" && api == "v3"
	switch resp.Status {
	case http.StatusUnauthorized:
		return "check " + login
	case http.StatusForbidden:
		return "allow writing to " + target
	case http.StatusNotFound:
		if guessed {
			return `if the server is older than InfluxDB 3, set organization, bucket and api = "v2" instead of database; else create ` + target
		}
		advice := "create " + target + ", or check urls"
		if refusal := c.databases[s]; refusal != "" {
			advice = "CREATE DATABASE: " + refusal + ": " + advice
		}
		return advice
	case http.StatusMethodNotAllowed:
		if guessed {
			return `if the server is older than InfluxDB 3, set organization, bucket and api = "v2" instead of database; else check urls`
		}
		return "check urls and api"
	case http.StatusUnprocessableEntity:
		if api == "v3" || parseAnswer(resp).saysAny("limit", "exceed") {
			return "raise this limit on the server, or send it fewer series and fields"
		}
		return "check the options"
	case http.StatusBadRequest:
		return "check the options"
	default:
		return ""
	}
}
