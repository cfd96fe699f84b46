package prometheus

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// scrape answers with the metrics: the page of the board as it is now, made once,
// and behind it what the program says of itself, made now.
func (e *endpoint) scrape(w http.ResponseWriter, r *http.Request, board plugin.Board) {
	if e.opts.GatherOnScrape {
		ctx, cancel := context.WithTimeout(r.Context(), gatherTimeout(r.Header))
		// Its error is that the time is over: what there is now is shown then.
		_ = board.Refresh(ctx, time.Duration(e.opts.MinAge))
		cancel()
	}
	if !gathered(w, board) {
		return
	}
	p := e.page.of(board.Latest(), e)
	f, contentType := negotiateFormat(r.Header)
	enc := negotiateEncoding(r.Header)
	s := e.borrow()
	defer e.giveBack(s)
	parts, err := e.answer(p, f, enc, s)
	if err != nil {
		e.env.Log.Error("the metrics could not be encoded", "error", err)
		http.Error(w, "the metrics could not be encoded; the log of sockwatch has the reason", http.StatusInternalServerError)
		return
	}
	length := 0
	for _, part := range parts {
		length += len(part)
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(length))
	h.Set("Vary", "Accept, Accept-Encoding")
	if enc != identity {
		h.Set("Content-Encoding", enc.String())
	}
	patient(w)
	for _, part := range parts {
		if _, err := w.Write(part); err != nil {
			return // the client has gone
		}
	}
}

// patient gives the client writeTimeout to read the answer. Where that cannot be
// set, the server's own, longer timeout holds.
func patient(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
}

// A pageCache holds the page of the latest board.
type pageCache struct {
	mu       sync.Mutex
	page     *page
	reporter reporter
}

// of returns the page of the board, made anew where a source has published since.
func (c *pageCache) of(board []*metric.Batch, e *endpoint) *page {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.page == nil || !slices.Equal(c.page.board, board) {
		c.page = newPage(board, size{e.opts.MaxSeries, maxPageBytes})
		c.reporter.report(c.page.leftOut, e.own, e.env.Log)
		e.own.series.Set(float64(c.page.series))
	}
	return c.page
}

// A scratch holds the own metrics of one answer, a few KiB, as text and as sent,
// and gzip's compressor, which is most of a MiB.
type scratch struct {
	plain, sent bytes.Buffer
	deflater    *flate.Writer
}

// borrow returns the scratch of the endpoint, or a new one for a second scrape at
// the same time. (A sync.Pool would often be empty: scrapes are seldom.)
func (e *endpoint) borrow() *scratch {
	select {
	case s := <-e.spare:
		return s
	default:
		return &scratch{}
	}
}

func (e *endpoint) giveBack(s *scratch) {
	select {
	case e.spare <- s:
	default:
	}
}

// deflate returns the compressor, which begins anew and writes to w.
func (s *scratch) deflate(w io.Writer) (*flate.Writer, error) {
	if s.deflater == nil {
		z, err := flate.NewWriter(w, flate.BestSpeed)
		s.deflater = z
		return z, err
	}
	s.deflater.Reset(w)
	return s.deflater, nil
}

// answer returns the page's bytes and, joined to them, those of the own metrics,
// which are valid as long as the scratch is borrowed.
func (e *endpoint) answer(p *page, f format, enc encoding, s *scratch) ([][]byte, error) {
	b := p.body(f, enc, s)
	if b.err != nil {
		return nil, b.err
	}
	s.plain.Reset()
	s.sent.Reset()
	if err := e.encodeOwn(&s.plain, p, f); err != nil {
		return nil, err
	}
	plain := s.plain.Bytes()
	switch enc {
	case gzipped:
		if err := b.end(&s.sent, plain, s); err != nil {
			return nil, err
		}
	case zstandard:
		z, err := e.zstd()
		if err != nil {
			return nil, err
		}
		s.sent.Write(z.EncodeAll(plain, s.sent.AvailableBuffer()))
	default:
		return [][]byte{b.bytes, plain}, nil
	}
	return [][]byte{b.bytes, s.sent.Bytes()}, nil
}

// newZstd returns the encoder of the own metrics, a few KiB at a time.
func newZstd() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(64<<10), zstd.WithLowerEncoderMem(true))
}

// encodeOwn writes the own metrics but those whose names are on the page: a name
// must not come twice. It ends an OpenMetrics text.
func (e *endpoint) encodeOwn(w *bytes.Buffer, p *page, f format) error {
	enc := f.encoder(w)
	err := e.own.gather(func(fam *dto.MetricFamily) error {
		if p.has(fam.GetName()) {
			return nil
		}
		if err := enc.Encode(fam); err != nil {
			return fmt.Errorf("encode %s: %w", fam.GetName(), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return enc.(expfmt.Closer).Close()
}

// negotiateFormat returns the format that the client wants most, text where it
// does not care, and its Content-Type.
func negotiateFormat(h http.Header) (format, string) {
	chosen := expfmt.NegotiateAccept(h, expfmt.FmtText, expfmt.FmtOpenMetrics_1_0_0, expfmt.FmtOpenMetrics_0_0_1, expfmt.FmtProtoDelim)
	contentType := string(chosen.WithEscapingScheme(model.UnderscoreEscaping))
	switch chosen.FormatType() {
	case expfmt.TypeOpenMetrics:
		return openMetrics, contentType
	case expfmt.TypeProtoDelim:
		return protobuf, contentType
	default:
		return text, contentType
	}
}

// negotiateEncoding returns the encoding that the client wants most; of those that
// it wants equally the one that is smallest; of one that takes anything, gzip.
func negotiateEncoding(h http.Header) encoding {
	wanted := [encodings]float64{gzipped: -1} // -1: not mentioned
	anything := 0.0
	for _, clause := range strings.Split(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		name, q := parseClause(clause)
		switch name {
		case "identity":
			wanted[identity] = q
		case "gzip", "x-gzip":
			wanted[gzipped] = q
		case "zstd":
			wanted[zstandard] = q
		case "*":
			anything = q
		}
	}
	if wanted[gzipped] < 0 {
		wanted[gzipped] = anything
	}
	best := identity
	for _, e := range []encoding{gzipped, zstandard} {
		if wanted[e] > 0 && wanted[e] >= wanted[best] {
			best = e
		}
	}
	return best
}

// parseClause returns the name and the weight of a clause such as "gzip;q=0.5"; 0
// where the weight is none.
func parseClause(clause string) (name string, q float64) {
	name, params, _ := strings.Cut(clause, ";")
	name, q = strings.ToLower(strings.TrimSpace(name)), 1
	for _, p := range strings.Split(params, ";") {
		if v, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(p)), "q="); ok {
			n, err := strconv.ParseFloat(v, 64)
			if err != nil || !(n >= 0 && n <= 1) {
				n = 0
			}
			q = n
		}
	}
	return name, q
}

// gatherTimeout returns how long a scrape may wait for a gather, by what the
// scraper says of its own patience: a little less than that.
func gatherTimeout(h http.Header) time.Duration {
	const usual, margin = 10 * time.Second, 500 * time.Millisecond
	patience := usual
	if s, err := strconv.ParseFloat(h.Get("X-Prometheus-Scrape-Timeout-Seconds"), 64); err == nil && s > 0 {
		patience = time.Duration(min(s, maxGather.Seconds()) * float64(time.Second))
	}
	return max(patience-margin, patience/2)
}
