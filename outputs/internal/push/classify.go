package push

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"sockwatch/agent/plugin"
)

// Classify returns nil if a server's answer says that it has stored the records of a
// request, else the error for the agent. The error names the server and says what to do.
// The status decides, even if the body is incomplete.
//
//	2xx                        nil; for a web page an error, if Config.Receiver is set
//	3xx, 5xx                   see Failure
//	401 to 405, 407, 408, 411, 413, 414, 415, 421, 425, 426, 429, 431, and 400 about the URL
//	                           see Failure: these are not about records
//	other 4xx                  plugin.RejectedError for one record; plugin.ErrRejected for
//	                           several, which the agent bisects
func (c *Client) Classify(s *Server, resp *Response, records int) error {
	switch {
	case resp.Status >= 200 && resp.Status < 300 && c.config.Receiver != "" && resp.IsHTML() && len(resp.Body) > 0:
		return fmt.Errorf("%s: %s: this is not how %s answers: check %s", s.Name, c.Describe(resp), c.config.Receiver, c.config.URLOption)
	case resp.Status >= 200 && resp.Status < 300:
		return nil
	case resp.Status >= 400 && resp.Status < 500 && !keepsRecords(resp):
		return c.Rejection(s, resp, records)
	default:
		return c.Failure(s, resp)
	}
}

// keepsRecords reports whether an answer with a status of 4xx is about the server, the URL,
// the headers or the login: the same records can be stored when that has changed.
func keepsRecords(resp *Response) bool {
	switch resp.Status {
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusLengthRequired, http.StatusRequestEntityTooLarge,
		http.StatusRequestURITooLong, http.StatusUnsupportedMediaType, http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusUpgradeRequired,
		http.StatusTooManyRequests, http.StatusRequestHeaderFieldsTooLarge:
		return true
	default:
		return resp.isUnknownPath() || resp.wantsHTTPS()
	}
}

// isUnknownPath reports whether a server says in its own way that it has no such path.
func (r *Response) isUnknownPath() bool {
	return r.Status == http.StatusNotFound || r.Status == http.StatusBadRequest && unknownPath.Match(r.Body)
}

// unknownPath matches how VictoriaMetrics and its relatives say so. Many versions precede it
// by the client's address and the path.
var unknownPath = regexp.MustCompile(`^(remoteAddr: [^;]*; requestURI: [^;]*; )?unsupported path requested`)

// wantsHTTPS reports whether a server for https says that the request came over http. The
// words are those of Go, nginx and Apache.
func (r *Response) wantsHTTPS() bool {
	return r.Status == http.StatusBadRequest && slices.ContainsFunc([]string{
		"Client sent an HTTP request to an HTTPS server", "plain HTTP request was sent to HTTPS port", "speaking plain HTTP to an SSL-enabled server port",
	}, func(words string) bool { return bytes.Contains(r.Body, []byte(words)) })
}

// Rejection returns the error for an answer by which a server rejects the records of a
// request and does not say which: a plugin.RejectedError for one record, else
// plugin.ErrRejected.
func (c *Client) Rejection(s *Server, resp *Response, records int) error {
	text := s.Name + ": " + c.Describe(resp)
	if records == 1 {
		return plugin.RejectAll(1, errors.New(text))
	}
	return fmt.Errorf("%s (%w)", text, plugin.ErrRejected)
}

// Failure returns the error for an answer that is not about single records. All records
// stay queued:
//
//	413                           plugin.ErrTooLarge: fewer records may fit
//	429 and 5xx with Retry-After  plugin.RetryAfterError
//	any other                     an error with advice
func (c *Client) Failure(s *Server, resp *Response) error {
	text := s.Name + ": " + c.Describe(resp)
	switch {
	case resp.Status == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%s (%w)", text, plugin.ErrTooLarge)
	case resp.Status >= 300 && resp.Status < 400:
		return fmt.Errorf("%s: redirects to %s, and redirects are not followed: check %s", text, redirectTarget(resp), c.config.URLOption)
	case resp.Status == http.StatusTooManyRequests || resp.Status >= 500:
		if wait := retryAfter(resp.Header); wait > 0 {
			return &plugin.RetryAfterError{Wait: wait, Err: errors.New(text)}
		}
		return errors.New(text)
	}
	if resp.Err == nil {
		if advice := c.advice(s, resp); advice != "" {
			text += ": " + advice
		}
	}
	return errors.New(text)
}

// advice returns what to do about an answer, or "".
func (c *Client) advice(s *Server, resp *Response) string {
	if resp.wantsHTTPS() {
		return "write https:// in " + c.config.URLOption
	}
	if c.config.Advice != nil {
		if advice := c.config.Advice(s, resp); advice != "" {
			return advice
		}
	}
	if resp.isUnknownPath() {
		return "check " + c.config.URLOption
	}
	switch resp.Status {
	case http.StatusUnauthorized:
		return c.credentials.advice()
	case http.StatusForbidden:
		return "allow the login to write, or check " + c.config.URLOption
	case http.StatusMethodNotAllowed, http.StatusMisdirectedRequest:
		return "check " + c.config.URLOption
	case http.StatusUnsupportedMediaType:
		return "check " + c.config.URLOption + " and content_encoding"
	case http.StatusProxyAuthRequired:
		return "check the user and password of the proxy"
	default:
		return ""
	}
}

// Describe returns the status and the message of an answer as one line to show.
func (c *Client) Describe(resp *Response) string {
	switch {
	case resp.Err != nil:
		return c.Line(resp.Status, fmt.Sprintf("the answer is incomplete: %v", resp.Err))
	case c.config.Text != nil:
		return c.Line(resp.Status, c.config.Text(resp))
	default:
		return c.Line(resp.Status, resp.Text())
	}
}

// maxShown is how many characters of a server's text are shown.
const maxShown = 500

// Line returns a status, with its name in HTTP, and a server's text as one line to show: of
// bounded length and without secrets.
func (c *Client) Line(status int, text string) string {
	text = strings.Join(strings.FieldsFunc(c.credentials.hide(text), unicode.IsControl), " ")
	if text = strings.TrimSpace(text); text == "" {
		return statusLine(status)
	}
	if r := []rune(text); len(r) > maxShown {
		text = string(r[:maxShown]) + "..."
	}
	return statusLine(status) + ": " + strings.ToValidUTF8(text, "?")
}

// statusLine returns a status with its name in HTTP: "404 Not Found".
func statusLine(status int) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
}

// redirectTarget returns where a redirect leads, without the parts of the URL that may be
// secret.
func redirectTarget(resp *Response) string {
	u, err := url.Parse(resp.Header.Get("Location"))
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
