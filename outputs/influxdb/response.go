package influxdb

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"sockwatch/outputs/internal/push"
)

// An answer is a server's answer, parsed.
type answer struct {
	*push.Response
	// text is the message in the JSON object of one of the APIs, or else the whole body.
	// It is empty if the answer is incomplete.
	text string
	// lines are the rejected lines that InfluxDB 3.x lists beside its message.
	lines []rejectedLine
}

// A rejectedLine is an element of data in an answer of InfluxDB 3.x.
type rejectedLine struct {
	Number int    `json:"line_number"` // from 1
	Reason string `json:"error_message"`
}

// parseAnswer parses an answer of any of the APIs.
func parseAnswer(raw *push.Response) *answer {
	a := &answer{Response: raw, text: string(raw.Body)}
	if raw.IsHTML() {
		a.text = "a web page" // its text would not help
		return a
	}
	var object struct {
		Error   string          // 1.x, 3.x
		Message string          // 2.x
		Data    json.RawMessage // 3.x: a list of rejected lines, or the first of them
	}
	for _, candidate := range completions(raw.Body, raw.Cut) {
		if json.Unmarshal(candidate, &object) == nil {
			break
		}
	}
	a.text = cmp.Or(object.Message, object.Error, a.text)
	var first rejectedLine
	if json.Unmarshal(object.Data, &a.lines) != nil {
		a.lines = nil
		if json.Unmarshal(object.Data, &first) == nil && first.Reason != "" {
			a.lines = []rejectedLine{first}
		}
	}
	return a
}

// message returns the message in an answer, to show.
func message(raw *push.Response) string {
	a := parseAnswer(raw)
	if len(a.lines) > 0 {
		return fmt.Sprintf("%s: line %d: %s", a.text, a.lines[0].Number, a.lines[0].Reason)
	}
	return a.text
}

// completions returns the candidates for the JSON of a body: the body itself and, if it is
// cut, the body completed as a message or as a list of lines.
func completions(body []byte, cut bool) [][]byte {
	all := [][]byte{body}
	if !cut {
		return all
	}
	const longestEscape = len(`\uD800\uDC0`)
	for i := range min(longestEscape, len(body)) + 1 {
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
