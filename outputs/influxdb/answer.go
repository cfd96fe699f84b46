package influxdb

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"sockwatch/agent/plugin"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 10

// judge tells what an answer to so many records means. That they are stored is
// said by 204 and by nothing else: a 200 comes from a proxy, a portal or another
// server.
func (o *output) judge(resp *http.Response, records int) error {
	if resp.StatusCode == http.StatusNoContent {
		return nil
	}
	said, err := readAnswer(resp)
	if err != nil { // what the status says alone holds all the same
		said.text = fmt.Sprintf("the answer breaks off: %v", err)
	}
	said.text = o.secret.redact(said.text)
	text := said.String()
	status := resp.StatusCode
	switch {
	case status < 300:
		return fmt.Errorf("%s: no InfluxDB answers a write so: check urls", text)
	case status < 400:
		return fmt.Errorf("%s: redirects to %s, which is not followed: check urls", text, target(resp))
	case status == http.StatusRequestEntityTooLarge || said.has("max request size"): // 3.x says 500
		return fmt.Errorf("%s (%w)", text, plugin.ErrTooLarge)
	case said.ofPoints():
		return said.rejection(text, records)
	case status == http.StatusTooManyRequests || status >= 500:
		if wait := retryAfter(resp.Header); wait > 0 {
			return &plugin.RetryAfterError{Wait: wait, Err: errors.New(text)}
		}
		return errors.New(text)
	}
	if advice := o.advice(status); advice != "" && err == nil {
		text += ": " + advice
	}
	return errors.New(text)
}

// advice says what to do about an answer that other points would not change.
func (o *output) advice(status int) string {
	place, login := fmt.Sprintf("database %q", o.options.Database), "token"
	switch o.options.api() {
	case "v1":
		login = "username and password"
	case "v2":
		place = fmt.Sprintf("bucket %q of organization %q", o.options.Bucket, o.options.Organization)
	}
	switch status {
	case http.StatusUnauthorized:
		return "check " + login
	case http.StatusForbidden:
		return "allow to write to " + place
	case http.StatusNotFound:
		return "create " + place + ", or check urls"
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return "check the options"
	default:
		return ""
	}
}

// An answer is what a server said beside its status.
type answer struct {
	code  int
	text  string
	lines int // rejected, where the server lists them
}

// readAnswer reads an answer's text: the message of a JSON object in the form of
// one of the APIs, or plain text. A web page says nothing.
func readAnswer(resp *http.Response) (answer, error) {
	a := answer{code: resp.StatusCode}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return a, err
	}
	if strings.Contains(resp.Header.Get("Content-Type"), "html") {
		a.text = "a web page"
		return a, nil
	}
	var said struct {
		Error   string          // 1.x, 3.x
		Message string          // 2.x
		Data    json.RawMessage // 3.x: the rejected lines, or the first of them
	}
	if json.Unmarshal(body, &said) != nil || said.Error == "" && said.Message == "" {
		a.text = string(body)
		return a, nil
	}
	a.text = said.Error
	if said.Message != "" {
		a.text = said.Message
	}
	type rejectedLine struct {
		Number int    `json:"line_number"`
		Error  string `json:"error_message"`
	}
	var lines []rejectedLine
	if json.Unmarshal(said.Data, &lines) != nil {
		var line rejectedLine
		if json.Unmarshal(said.Data, &line) == nil && line.Error != "" {
			lines = []rejectedLine{line}
		}
	}
	if a.lines = len(lines); a.lines > 0 {
		a.text += fmt.Sprintf(": line %d: %s", lines[0].Number, lines[0].Error)
	}
	return a, nil
}

// status returns the status in HTTP's own words: those of the server may be anything.
func (a *answer) status() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", a.code, http.StatusText(a.code)))
}

// String returns the status and the text on one line of bounded length.
func (a *answer) String() string {
	const limit = 500
	text := strings.Join(strings.FieldsFunc(a.text, func(r rune) bool { return unicode.IsControl(r) }), " ")
	if text = strings.TrimSpace(text); text == "" {
		return a.status()
	}
	if r := []rune(text); len(r) > limit {
		text = string(r[:limit]) + "..."
	}
	return a.status() + ": " + strings.ToValidUTF8(text, "?")
}

func (a *answer) has(words string) bool { return strings.Contains(a.text, words) }

// ofPoints reports whether the server speaks of points, not of the request.
func (a *answer) ofPoints() bool {
	if a.code != http.StatusBadRequest && a.code != http.StatusUnprocessableEntity {
		return false
	}
	return a.lines > 0 || a.has("partial write") || a.has("unable to parse") || a.has("field type conflict") ||
		a.has("beyond retention policy") || a.has("parsing failed for write_lp") || a.has("failed to parse line protocol")
}

// rejection returns the error of a server that speaks of points.
func (a *answer) rejection(text string, records int) error {
	switch {
	case records == 1 || a.lines >= records || a.dropped() >= records:
		return plugin.RejectAll(records, errors.New(text))
	case a.has("partial write"):
		return fmt.Errorf("%s (%w)", text, &plugin.RejectedError{OthersStored: true})
	default:
		return fmt.Errorf("%s (%w)", text, plugin.ErrRejected)
	}
}

// dropped returns N of "dropped=N", with which 1.x and 2.x end what they say of a
// partial write.
func (a *answer) dropped() int {
	i := strings.LastIndex(a.text, "dropped=")
	if i < 0 {
		return 0
	}
	digits := a.text[i+len("dropped="):]
	if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		digits = digits[:end]
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

// target returns where a redirect leads, without what may be secret in it.
func target(resp *http.Response) string {
	u, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || u.Host == "" {
		return "another place"
	}
	return u.Scheme + "://" + u.Host
}

// maxRetryAfter is what a server may ask for at most.
const maxRetryAfter = 10 * time.Minute

// retryAfter returns how long the header Retry-After asks to wait: a number of
// seconds, or a date in any of HTTP's three forms, which counts from the date that
// the server says it is. It returns 0 where the header asks for nothing.
func retryAfter(h http.Header) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseInt(value, 10, 32)
		if err != nil { // more than an int32 holds
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
