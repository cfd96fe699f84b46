package influxdb

import (
	"bytes"

	"github.com/klauspost/compress/gzip"
)

// A bodyEncoder makes the bodies of requests.
type bodyEncoder struct {
	compressed bool
	writer     *gzip.Writer // nil until the first body
	lines      []byte       // what it compressed last, to use again
}

// encoding returns the value of Content-Encoding, "" for none.
func (e *bodyEncoder) encoding() string {
	if e.compressed {
		return "gzip"
	}
	return ""
}

// encode returns the lines of the records, compressed if the options say so. The
// result is not used again: the transport may go on sending the body of a request
// that was given up.
func (e *bodyEncoder) encode(records [][]byte) ([]byte, error) {
	if !e.compressed {
		return appendLines(nil, records), nil
	}
	e.lines = appendLines(e.lines[:0], records) // gzip is faster on one large piece
	var body bytes.Buffer
	if e.writer == nil {
		var err error
		if e.writer, err = gzip.NewWriterLevel(&body, gzip.BestSpeed); err != nil {
			return nil, err
		}
	}
	e.writer.Reset(&body)
	e.writer.Write(e.lines) // an error stays until Close
	if err := e.writer.Close(); err != nil {
		return nil, err
	}
	return body.Bytes(), nil
}

func appendLines(dst []byte, records [][]byte) []byte {
	for _, r := range records {
		dst = append(append(dst, r...), '\n')
	}
	return dst
}
