package influxdb

import (
	"bytes"

	"github.com/klauspost/compress/gzip"
)

// A bodyEncoder encodes the bodies of requests.
type bodyEncoder struct {
	compressed bool
	writer     *gzip.Writer // nil until the first body
	lines      []byte       // a buffer for the lines to compress
}

// encoding returns the value of Content-Encoding, "" for none.
func (e *bodyEncoder) encoding() string {
	if e.compressed {
		return "gzip"
	}
	return ""
}

// encode returns the lines of the records, compressed if the options say so. The result is
// never reused, because the transport may still be sending the body of a request that was
// abandoned.
func (e *bodyEncoder) encode(records [][]byte) ([]byte, error) {
	if !e.compressed {
		return appendLines(nil, records), nil
	}
	e.lines = appendLines(e.lines[:0], records) // gzip is faster with one large write
	var body bytes.Buffer
	if e.writer == nil {
		var err error
		if e.writer, err = gzip.NewWriterLevel(&body, gzip.BestSpeed); err != nil {
			return nil, err
		}
	}
	e.writer.Reset(&body)
	e.writer.Write(e.lines) // Close returns its error
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
