package push

import (
	"bytes"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

// A Compressor compresses the bodies of requests. Its methods must not be called
// concurrently.
type Compressor struct {
	encoding string
	gzip     *gzip.Writer  // nil until the first body
	zstd     *zstd.Encoder // likewise
	joined   []byte        // a buffer for the records to compress
}

// NewCompressor returns a compressor for a value of content_encoding: "gzip", "zstd",
// "snappy" (the block format) or "identity" (none).
func NewCompressor(contentEncoding string) *Compressor { return &Compressor{encoding: contentEncoding} }

// Encoding returns the value of Content-Encoding, "" for none.
func (c *Compressor) Encoding() string {
	if c.encoding == "identity" {
		return ""
	}
	return c.encoding
}

// A Framing is what a body has before, between and after its records.
type Framing struct{ Before, Between, After string }

// Framings of text.
var (
	Lines     = Framing{Between: "\n", After: "\n"}
	JSONArray = Framing{Before: "[", Between: ",", After: "]"}
)

// Join returns a body of records, compressed. It is new memory.
func (c *Compressor) Join(records [][]byte, f Framing) ([]byte, error) {
	if c.Encoding() == "" {
		return f.join(nil, records), nil
	}
	c.joined = f.join(c.joined[:0], records) // gzip is faster with one large write
	return c.Compress(c.joined)
}

// join appends the framed records to dst.
func (f Framing) join(dst []byte, records [][]byte) []byte {
	size := len(f.Before) + len(f.Between)*len(records) + len(f.After)
	for _, r := range records {
		size += len(r)
	}
	dst = append(slices.Grow(dst, size), f.Before...)
	for i, r := range records {
		if i > 0 {
			dst = append(dst, f.Between...)
		}
		dst = append(dst, r...)
	}
	return append(dst, f.After...)
}

// Compress returns raw, compressed. The result is new memory, except with "identity": then
// it is raw itself, which must not be reused either, because the transport may still be
// sending the body of a request that was abandoned.
func (c *Compressor) Compress(raw []byte) ([]byte, error) {
	switch c.encoding {
	case "gzip":
		return c.compressGzip(raw)
	case "zstd":
		if c.zstd == nil {
			var err error
			// One goroutine and a small window: bodies are small.
			if c.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20)); err != nil {
				return nil, err
			}
		}
		return c.zstd.EncodeAll(raw, nil), nil
	case "snappy":
		return snappy.Encode(nil, raw), nil
	default:
		return raw, nil
	}
}

func (c *Compressor) compressGzip(raw []byte) ([]byte, error) {
	var body bytes.Buffer
	if c.gzip == nil {
		var err error
		if c.gzip, err = gzip.NewWriterLevel(&body, gzip.BestSpeed); err != nil {
			return nil, err
		}
	}
	c.gzip.Reset(&body)
	c.gzip.Write(raw) // Close returns its error
	if err := c.gzip.Close(); err != nil {
		return nil, err
	}
	return body.Bytes(), nil
}
