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

// An answer is what a server said to a request, as it said it: only classifier
// makes text of it that is shown.
type answer struct {
	status int
	header http.Header
	// text is the message of a JSON object in the form of one of the APIs, or plain
	// text. It is empty if the answer breaks off.
	text string
	// lines are the rejected lines that InfluxDB 3.x lists beside its message.
	lines []rejectedLine
	// cut reports that more was said than is read.
	cut bool
	// err is why the answer breaks off; status and header hold all the same.
	err error
}

// A rejectedLine is an element of the data of InfluxDB 3.x's answer.
type rejectedLine struct {
	Number int    `json:"line_number"` // from 1
	Reason string `json:"error_message"`
}

// maxAnswer bounds what is read of an answer, compressed and uncompressed.
const maxAnswer = 64 << 10

// readAnswer reads the answer of a response.
func readAnswer(resp *http.Response) answer {
	a := answer{status: resp.StatusCode, header: resp.Header}
	body, err := a.readBody(resp.Body)
	switch {
	case err != nil:
		a.err = err
	case strings.Contains(resp.Header.Get("Content-Type"), "html"):
		a.text = "a web page" // it says nothing
	default:
		a.parse(body)
	}
	return a
}

// readBody reads as much of the body as is bounded, and decompresses it: some
// proxies compress unasked.
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

// readUpTo reads at most maxAnswer bytes, and notes if there are more.
func readUpTo(r io.Reader, cut *bool) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if len(data) > maxAnswer {
		*cut = true
		return data[:maxAnswer], nil
	}
	return data, err
}

// parse takes the body apart.
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

// completions returns the JSON that a body may be: the body itself; if it is cut,
// also what stands in front of the cut in a message, or in a list of lines.
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

// says reports whether the server uses these words of its own: names that it quotes
// may hold any words.
func (a *answer) says(words string) bool {
	own := a.text
	if i := strings.IndexAny(own, "'\"`"); i >= 0 {
		own = own[:i]
	}
	return strings.Contains(own, words)
}

// saysAny reports whether the server uses one of these phrases of its own.
func (a *answer) saysAny(phrases ...string) bool {
	for _, p := range phrases {
		if a.says(p) {
			return true
		}
	}
	return false
}
