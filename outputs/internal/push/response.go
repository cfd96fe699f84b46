package push

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// A Response is how a server has answered a request, unchanged. It may quote secrets: only
// Client.Describe and Client.Line make text from it that may be shown.
type Response struct {
	Status int
	Header http.Header
	// Body is the body after decompression. It is empty if Err is set.
	Body []byte
	// Cut reports that the body was longer than maxResponse, and that the rest was not read.
	Cut bool
	// Err is why the body is incomplete. Status and Header are still valid.
	Err error
}

// maxResponse is how much of a response is read, both before and after decompression.
const maxResponse = 64 << 10

// readResponse reads the rest of a response of net/http.
func readResponse(from *http.Response) *Response {
	resp := &Response{Status: from.StatusCode, Header: from.Header}
	resp.Body, resp.Err = resp.readBody(from.Body)
	return resp
}

// readBody reads the body, up to maxResponse, and decompresses it: some proxies compress
// without being asked.
func (r *Response) readBody(from io.Reader) ([]byte, error) {
	raw, err := readUpTo(from, &r.Cut)
	if err != nil {
		return nil, err
	}
	switch encoding := strings.ToLower(r.Header.Get("Content-Encoding")); encoding {
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
		rawCut := r.Cut
		body, err := readUpTo(z, &r.Cut)
		if err != nil && !rawCut {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return body, nil
	default:
		return nil, fmt.Errorf("unknown content encoding %.20q", encoding)
	}
}

// readUpTo reads at most maxResponse bytes, and sets cut if there are more.
func readUpTo(r io.Reader, cut *bool) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxResponse+1))
	if len(data) > maxResponse {
		*cut = true
		return data[:maxResponse], nil
	}
	return data, err
}

// IsHTML reports whether the body is a web page, whose text would not help.
func (r *Response) IsHTML() bool { return strings.Contains(r.Header.Get("Content-Type"), "html") }

// Text returns the message in a body that is a JSON object: its "message" or "error",
// which may itself be an object with a "message" or "reason". Otherwise it returns the
// body.
func (r *Response) Text() string {
	if r.IsHTML() {
		return "a web page"
	}
	var object struct{ Message, Error json.RawMessage }
	if json.Unmarshal(r.Body, &object) == nil {
		for _, value := range []json.RawMessage{object.Message, object.Error} {
			if text := messageIn(value); text != "" {
				return text
			}
		}
	}
	return string(r.Body)
}

// messageIn returns the text of a JSON value that is a string or an object with one.
func messageIn(value json.RawMessage) string {
	var text string
	var object struct{ Message, Reason string }
	if json.Unmarshal(value, &text) != nil && json.Unmarshal(value, &object) == nil {
		text = object.Message
		if text == "" {
			text = object.Reason
		}
	}
	return text
}
