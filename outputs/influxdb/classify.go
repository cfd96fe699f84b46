package influxdb

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"sockwatch/agent/plugin"
)

// A classifier turns answers into errors. It classifies an answer by the server's own
// words. An error shows one line of bounded length, without secrets.
type classifier struct {
	options Options
	hide    func(string) string // removes secrets from a text that is to be shown
}

// classify returns nil if a server's answer says that it has stored the records, else an
// error. Only 204 says so. A 200 comes from a proxy, a login portal or another kind of
// server.
func (c *classifier) classify(s *server, a *answer, records [][]byte) error {
	text := s.name + ": " + c.describe(a)
	switch {
	case a.status == http.StatusNoContent:
		return nil
	case a.status < 300:
		return fmt.Errorf("%s: this is not how InfluxDB answers a write: check urls", text)
	case a.status < 400:
		return fmt.Errorf("%s: redirects to %s, and redirects are not followed: check urls", text, redirectTarget(a))
	case a.status == http.StatusRequestEntityTooLarge || a.says("max request size"): // 3.x: status 500
		return fmt.Errorf("%s (%w)", text, plugin.ErrTooLarge)
	case c.rejectsPoints(a) && len(records) > 0:
		return c.rejection(s, a, records)
	case a.status == http.StatusTooManyRequests || a.status >= 500:
		if wait := retryAfter(a.header); wait > 0 {
			return &plugin.RetryAfterError{Wait: wait, Err: errors.New(text)}
		}
		return errors.New(text)
	}
	if s.creationRefusal != "" && a.status == http.StatusNotFound {
		text += ": CREATE DATABASE: " + s.creationRefusal
	}
	if advice := c.advice(a); advice != "" && a.err == nil {
		text += ": " + advice
	}
	return errors.New(text)
}

// rejectsPoints reports whether the answer is about points, and not about the request or
// the server.
func (c *classifier) rejectsPoints(a *answer) bool {
	switch a.status {
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
func (c *classifier) rejection(s *server, a *answer, records [][]byte) error {
	if len(records) == 1 || a.dropped() >= len(records) {
		err := errors.New(s.name + ": " + c.describe(a))
		rejected := &plugin.RejectedError{Records: make(map[int]error, len(records)), OthersStored: true}
		for i := range records {
			rejected.Records[i] = err
		}
		return rejected
	}
	partial := a.says("partial write") && a.status < 500 // with 500, 2.x may have stored nothing
	reasons, all := a.rejectedRecords(records)
	switch {
	case len(reasons) == 0 && partial:
		return fmt.Errorf("%s: %s (%w)", s.name, c.describe(a), &plugin.RejectedError{OthersStored: true})
	case len(reasons) == 0:
		return fmt.Errorf("%s: %s (%w)", s.name, c.describe(a), plugin.ErrRejected)
	}
	rejected := &plugin.RejectedError{Records: make(map[int]error, len(reasons)), OthersStored: all && partial}
	for i, reason := range reasons {
		rejected.Records[i] = errors.New(s.name + ": " + c.line(a.status, reason))
	}
	return rejected
}

// advice returns what to do about an answer that does not depend on the points.
func (c *classifier) advice(a *answer) string {
	api := c.options.api()
	target, login := fmt.Sprintf("database %q", c.options.Database), "token"
	switch api {
	case "v1":
		login = "username and password"
	case "v2":
		target = fmt.Sprintf("bucket %q of organization %q", c.options.Bucket, c.options.Organization)
	}
	guessed := c.options.API == "auto" && api == "v3"
	switch a.status {
	case http.StatusUnauthorized:
		return "check " + login
	case http.StatusForbidden:
		return "allow writing to " + target
	case http.StatusNotFound:
		if guessed {
			return `if the server is older than InfluxDB 3, set organization, bucket and api = "v2" instead of database; else create ` + target
		}
		return "create " + target + ", or check urls"
	case http.StatusMethodNotAllowed:
		if guessed {
			return `if the server is older than InfluxDB 3, set organization, bucket and api = "v2" instead of database; else check urls`
		}
		return "check urls and api"
	case http.StatusUnprocessableEntity:
		if api == "v3" || a.saysAny("limit", "exceed") {
			return "raise this limit on the server, or send it fewer series and fields"
		}
		return "check the options"
	case http.StatusBadRequest:
		return "check the options"
	default:
		return ""
	}
}

// refusal returns why InfluxDB 1.x did not create a database, or "" if it did. An error in
// the statement comes with status 200.
func (c *classifier) refusal(a *answer) string {
	if a.status >= 300 || a.err != nil || strings.Contains(a.text, `"error"`) {
		return c.describe(a)
	}
	return ""
}

// describe returns the status and the server's message as one line.
func (c *classifier) describe(a *answer) string {
	switch {
	case a.err != nil:
		return c.line(a.status, fmt.Sprintf("the answer is incomplete: %v", a.err))
	case len(a.lines) > 0:
		return c.line(a.status, fmt.Sprintf("%s: line %d: %s", a.text, a.lines[0].Number, a.lines[0].Reason))
	default:
		return c.line(a.status, a.text)
	}
}

// maxShown is how many characters of a server's text are shown.
const maxShown = 500

// line returns a status, with its name in HTTP, and a text as one line to show.
func (c *classifier) line(status int, text string) string {
	title := strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
	text = strings.Join(strings.FieldsFunc(c.hide(text), unicode.IsControl), " ")
	if text = strings.TrimSpace(text); text == "" {
		return title
	}
	if r := []rune(text); len(r) > maxShown {
		text = string(r[:maxShown]) + "..."
	}
	return title + ": " + strings.ToValidUTF8(text, "?")
}

// redirectTarget returns where a redirect leads, without the parts of the URL that may be
// secret.
func redirectTarget(a *answer) string {
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil || u.Host == "" {
		return "another URL"
	}
	return u.Scheme + "://" + u.Host
}

// maxRetryAfter is the longest wait that a server can ask for.
const maxRetryAfter = 10 * time.Minute

// retryAfter returns how long the header Retry-After asks the client to wait, or 0 if it
// does not ask. The header is a number of seconds or a date in any of HTTP's three forms.
// A date counts from the server's own Date.
func retryAfter(h http.Header) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseInt(value, 10, 32)
		if err != nil { // does not fit into an int32
			return maxRetryAfter
		}
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
