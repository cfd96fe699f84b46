package prometheus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// A format is one of those in which expfmt encodes.
type format int

const (
	text format = iota
	openMetrics
	protobuf
	formats // how many there are
)

// encoder returns expfmt's encoder. All names are classic ones, which no escaping
// scheme but "dots" would change: it is told to leave them alone, which spares it
// a copy of everything.
func (f format) encoder(w io.Writer) expfmt.Encoder {
	is := [...]expfmt.Format{text: expfmt.FmtText, openMetrics: expfmt.FmtOpenMetrics_1_0_0, protobuf: expfmt.FmtProtoDelim}[f]
	return expfmt.NewEncoder(w, is.WithEscapingScheme(model.NoEscaping))
}

// An encoding is one of HTTP's content encodings.
type encoding int

const (
	identity encoding = iota
	gzipped
	zstandard
	encodings // how many there are
)

func (e encoding) String() string {
	return [...]string{identity: "identity", gzipped: "gzip", zstandard: "zstd"}[e]
}

// A body is a page's bytes in one format and encoding, to which others can be
// joined: text and OpenMetrics (without its end, "# EOF") by their lines, protobuf
// by its delimited messages; of gzip it is a header and deflate blocks without a
// last one, so that the whole is one member for clients that read no second;
// zstd's frames may follow each other.
type body struct {
	once  sync.Once
	bytes []byte
	crc   uint32 // of what gzip has compressed, with its size
	size  uint32
	err   error
}

var errHalfMade = errors.New("an earlier attempt did not end")

// body returns the page's bytes, made at the first call.
func (p *page) body(f format, e encoding, s *scratch) *body {
	b := &p.bodies[f][e]
	b.once.Do(func() {
		b.err = errHalfMade // in case of a panic
		b.err = b.make(p, f, e, s)
	})
	return b
}

func (b *body) make(p *page, f format, e encoding, s *scratch) error {
	var buf bytes.Buffer
	var err error
	switch e {
	case gzipped:
		err = b.begin(&buf, func(w io.Writer) error { return p.encode(w, f) }, s)
	case zstandard:
		err = compressZstd(&buf, func(w io.Writer) error { return p.encode(w, f) })
	default:
		err = p.encode(&buf, f)
	}
	b.bytes = bytes.Clone(buf.Bytes()) // without the room to grow
	return err
}

var gzipHeader = [10]byte{0x1f, 0x8b, 8, 9: 255} // RFC 1952: deflate, no time, no name, system unknown

// begin writes a gzip member up to where another block can begin.
func (b *body) begin(buf *bytes.Buffer, encode func(io.Writer) error, s *scratch) error {
	buf.Write(gzipHeader[:])
	z, err := s.deflate(buf)
	if err != nil {
		return err
	}
	if err := encode(io.MultiWriter(z, (*checksum)(b))); err != nil {
		return err
	}
	return z.Flush()
}

// end writes the rest of a gzip member that begin has begun: what is joined, and
// the trailer, which is of all that is compressed.
func (b *body) end(buf *bytes.Buffer, joined []byte, s *scratch) error {
	z, err := s.deflate(buf)
	if err != nil {
		return err
	}
	if _, err := z.Write(joined); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	var trailer [8]byte // RFC 1952
	binary.LittleEndian.PutUint32(trailer[:], crc32.Update(b.crc, crc32.IEEETable, joined))
	binary.LittleEndian.PutUint32(trailer[4:], b.size+uint32(len(joined)))
	_, err = buf.Write(trailer[:])
	return err
}

// A checksum sums up what gzip's trailer says of the uncompressed bytes.
type checksum body

func (c *checksum) Write(p []byte) (int, error) {
	c.crc = crc32.Update(c.crc, crc32.IEEETable, p)
	c.size += uint32(len(p))
	return len(p), nil
}

func compressZstd(buf *bytes.Buffer, encode func(io.Writer) error) error {
	z, err := zstd.NewWriter(buf, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return err
	}
	if err := encode(z); err != nil {
		z.Close()
		return err
	}
	return z.Close()
}

// encode writes the page's families.
func (p *page) encode(w io.Writer, f format) error {
	most := 0
	for _, fam := range p.families {
		most = max(most, len(fam.samples))
	}
	m := messages{metrics: make([]dto.Metric, most), pointers: make([]*dto.Metric, most)}
	for i := range m.metrics {
		m.pointers[i] = &m.metrics[i]
	}
	enc := f.encoder(w)
	for _, fam := range p.families {
		if err := enc.Encode(m.of(p, fam)); err != nil {
			return fmt.Errorf("encode %s: %w", fam.name, err)
		}
	}
	return nil
}

// messages are used for one family after the other.
type messages struct {
	metrics  []dto.Metric
	pointers []*dto.Metric
	gauges   []dto.Gauge
	counters []dto.Counter
	untyped  []dto.Untyped
}

// of returns the family as a message, valid until the next call.
func (m *messages) of(p *page, f *family) *dto.MetricFamily {
	for i := range f.samples {
		s, out := &f.samples[i], &m.metrics[i]
		out.Label, out.Gauge, out.Counter, out.Untyped = p.labels[s.labels], nil, nil, nil
		switch f.kind {
		case dto.MetricType_GAUGE:
			m.gauges = atLeast(m.gauges, len(m.metrics))
			out.Gauge, m.gauges[i].Value = &m.gauges[i], &s.value
		case dto.MetricType_COUNTER:
			m.counters = atLeast(m.counters, len(m.metrics))
			out.Counter, m.counters[i].Value = &m.counters[i], &s.value
		default:
			m.untyped = atLeast(m.untyped, len(m.metrics))
			out.Untyped, m.untyped[i].Value = &m.untyped[i], &s.value
		}
	}
	family := &dto.MetricFamily{Name: &f.name, Type: &f.kind, Metric: m.pointers[:len(f.samples)]}
	if f.known {
		family.Help = &f.help
	}
	return family
}

func atLeast[T any](s []T, n int) []T {
	if s == nil {
		return make([]T, n)
	}
	return s
}
