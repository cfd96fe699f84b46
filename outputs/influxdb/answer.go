package influxdb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// An answer is a server's answer to a request, unchanged. Only a classifier makes text
// from it that is shown.
type answer struct {
	status int
	header http.Header
	// text is the message in the JSON object of one of the APIs, or else the whole body.
	// It is empty if the answer is incomplete.
	text string
	// lines are the rejected lines that InfluxDB 3.x lists beside its message.
	lines []rejectedLine
	// cut reports that the body was longer than maxAnswer, and the rest was not read.
	cut bool
	// err is why the answer is incomplete. status and header are still valid.
	err error
}

// A rejectedLine is an element of data in an answer of InfluxDB 3.x.
type rejectedLine struct {
	Number int    `json:"line_number"` // from 1
	Reason string `json:"error_message"`
}

// maxAnswer is how much of an answer is read, both before and after decompression.
const maxAnswer = 64 << 10

// readAnswer reads the answer from a response.
func readAnswer(resp *http.Response) answer {
	a := answer{status: resp.StatusCode, header: resp.Header}
	body, err := a.readBody(resp.Body)
	switch {
	case err != nil:
		a.err = err
	case strings.Contains(resp.Header.Get("Content-Type"), "html"):
		a.text = "a web page" // its text would not help
	default:
		a.parse(body)
	}
	return a
}

// readBody reads the body, up to maxAnswer, and decompresses it: some proxies compress
// without being asked.
func (a *answer) readBody(from io.Reader) ([]byte, error) {
	raw, err := readUpTo(from, &a.cut)
	if err != nil {
		return nil, err
	}
	switch encoding := strings.ToLower(a.header.Get("Content-Encoding")); encoding {
	case "", "identity":
		return raw, nil
	case "gzip", "x-gzip":
		if len(raw) == 0 {
			return nil, nil
		}
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		rawCut := a.cut
		body, err := readUpTo(z, &a.cut)
		if err != nil && !rawCut {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return body, nil
	default:
		return nil, fmt.Errorf("unknown content encoding %.20q", encoding)
	}
}

// readUpTo reads at most maxAnswer bytes, and sets cut if there are more.
func readUpTo(r io.Reader, cut *bool) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if len(data) > maxAnswer {
		*cut = true
		return data[:maxAnswer], nil
	}
	return data, err
}

// parse sets text and lines from the body.
func (a *answer) parse(body []byte) {
	var object struct {
		Error   string          // 1.x, 3.x
		Message string          // 2.x
		Data    json.RawMessage // 3.x: a list of rejected lines, or the first of them
	}
	a.text = string(body)
	for _, candidate := range completions(body, a.cut) {
		if json.Unmarshal(candidate, &object) == nil {
			break
		}
	}
	switch {
	case object.Message != "":
		a.text = object.Message
	case object.Error != "":
		a.text = object.Error
	}
	var first rejectedLine
	if json.Unmarshal(object.Data, &a.lines) != nil {
		a.lines = nil
		if json.Unmarshal(object.Data, &first) == nil && first.Reason != "" {
			a.lines = []rejectedLine{first}
		}
	}
}

// completions returns the candidates for the JSON of a body: the body itself and, if it is
// cut, the body completed as a message or as a list of lines.
func completions(body []byte, cut bool) [][]byte {
	all := [][]byte{body}
	if !cut {
		return all
	}
	const longestEscape = len(`\uD800\uDC0`)
	for i := range longestEscape + 1 {
		all = append(all, append(bytes.Clone(body[:len(body)-i]), `"}`...))
	}
	if i := bytes.LastIndex(body, []byte("},")); i >= 0 {
		all = append(all, append(bytes.Clone(body[:i]), "}]}"...))
	}
	return all
}

// says reports whether the server's own words contain words. Text from the first quote on
// does not count, because a quoted name may contain any words.
func (a *answer) says(words string) bool {
	own := a.text
	if i := strings.IndexAny(own, "'\"`"); i >= 0 {
		own = own[:i]
	}
	return strings.Contains(own, words)
}

// saysAny reports whether the server's own words contain any of the phrases.
func (a *answer) saysAny(phrases ...string) bool {
	for _, p := range phrases {
		if a.says(p) {
			return true
		}
	}
	return false
}
