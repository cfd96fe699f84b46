package prometheus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/respond"
)

// scrape answers with the metrics. Making them counts against the limit of concurrent
// requests; waiting for a gather and for the client does not.
func (e *endpoint) scrape(w http.ResponseWriter, r *http.Request, board plugin.Board) {
	if e.opts.GatherOnScrape {
		ctx, cancel := context.WithTimeout(r.Context(), gatherTimeout(r.Header))
		// Its only error is that the time is over: the page then shows the latest points.
		_ = board.Refresh(ctx, time.Duration(e.opts.MinAge))
		cancel()
	}
	e.responder.Respond(w, r, func() (*respond.Response, error) {
		latest := board.Latest()
		if len(latest) == 0 {
			return nil, errNothingGathered
		}
		format, contentType, err := negotiateFormat(r.Header)
		if err != nil {
			return nil, err
		}
		enc, err := negotiateEncoding(r.Header)
		if err != nil {
			return nil, err
		}
		body, err := e.cache.page(latest, e).body(format, enc)
		if err != nil {
			e.env.Log.Error("cannot encode the metrics, answering 500", "error", err)
			return nil, errEncode
		}
		header := map[string]string{"Content-Type": contentType, "Vary": "Accept, Accept-Encoding"}
		if enc != identity {
			header["Content-Encoding"] = string(enc)
		}
		return &respond.Response{Header: header, Body: body}, nil
	})
}

var (
	errNothingGathered = respond.Errorf(http.StatusServiceUnavailable, "nothing has been gathered yet")
	errNotAcceptable   = respond.Errorf(http.StatusNotAcceptable, "the client accepts no format or encoding of this page")
	errEncode          = respond.Errorf(http.StatusInternalServerError, "the metrics could not be encoded; the log of sockwatch has the reason")
)

// A cache holds the latest page and its encoded bodies.
type cache struct {
	mu      sync.Mutex
	encoded *encodedPage
	logged  map[dropKind]bool
}

// page returns the page of the board. It makes a new one if a source has published.
func (c *cache) page(board []*metric.Batch, e *endpoint) *encodedPage {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.encoded != nil && slices.Equal(c.encoded.board, board) {
		return c.encoded
	}
	var before *page
	if c.encoded != nil {
		before = c.encoded.page
	}
	p := newPage(board, size{e.opts.MaxSeries, maxPageBytes}, before)
	for _, why := range dropReasons {
		e.own.dropped.WithLabelValues(string(why)).Add(float64(p.drops.count(why)))
	}
	if c.logged == nil {
		c.logged = map[dropKind]bool{}
	}
	p.drops.log(e.env.Log, c.logged)
	e.own.series.Set(float64(p.series))
	c.encoded = &encodedPage{page: p, own: e.own, bodies: map[variant]func() ([]byte, error){}}
	return c.encoded
}

// An encodedPage is a page with the bodies that were requested. Each body is made once,
// and contains the program's own metrics as they were then.
type encodedPage struct {
	*page
	own prometheus.Gatherer

	mu     sync.Mutex
	bodies map[variant]func() ([]byte, error)
}

// A variant is a format of expfmt and an HTTP content encoding.
type variant struct {
	format   expfmt.Format
	encoding encoding
}

// body returns the page in a format and an encoding. It must not be changed.
func (p *encodedPage) body(f expfmt.Format, enc encoding) ([]byte, error) {
	v := variant{f, enc}
	p.mu.Lock()
	body, ok := p.bodies[v]
	if !ok {
		body = sync.OnceValues(func() ([]byte, error) { return p.encode(v) })
		p.bodies[v] = body
	}
	p.mu.Unlock()
	return body()
}

func (p *encodedPage) encode(v variant) ([]byte, error) {
	families, err := p.withOwn()
	if err != nil {
		return nil, err
	}
	var body bytes.Buffer
	w, err := v.encoding.writer(&body)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(encode(w, families, v.format), w.Close()); err != nil {
		return nil, err
	}
	return bytes.Clone(body.Bytes()), nil // without spare capacity
}

// withOwn returns the page's families, followed by the program's own families whose
// names the page does not have. prometheus.Gatherers could merge them too, but it checks
// every series again, which is half the cost of a scrape.
func (p *encodedPage) withOwn() ([]*dto.MetricFamily, error) {
	own, err := p.own.Gather()
	if err != nil {
		return nil, err
	}
	own = slices.DeleteFunc(own, func(f *dto.MetricFamily) bool { return p.byName[f.GetName()] != nil })
	return slices.Concat(p.families, own), nil
}

// encode writes families in one format, by promhttp. All names are classic ones, which
// only the escaping scheme "dots" would change. allow-utf-8 avoids a copy of everything.
func encode(w io.Writer, families []*dto.MetricFamily, f expfmt.Format) error {
	failed := &lastError{}
	promhttp.HandlerFor(
		prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, nil }),
		promhttp.HandlerOpts{AcceptedFormats: []expfmt.Format{f}, DisableCompression: true, ErrorLog: failed},
	).ServeHTTP(bodyWriter{w}, &http.Request{Header: http.Header{"Accept": {"*/*;escaping=allow-utf-8"}}})
	return failed.err
}

// A lastError is a promhttp.Logger that keeps the error that promhttp only logs.
type lastError struct{ err error }

func (l *lastError) Println(v ...any) { l.err = errors.New(fmt.Sprint(v...)) }

// A bodyWriter is a ResponseWriter that ignores the header and the status.
type bodyWriter struct{ io.Writer }

func (bodyWriter) Header() http.Header { return http.Header{} }
func (bodyWriter) WriteHeader(int)     {}

// writer returns a writer that encodes to w. It has to be closed.
func (enc encoding) writer(w io.Writer) (io.WriteCloser, error) {
	switch enc {
	case gzipped:
		return gzip.NewWriterLevel(w, gzip.BestSpeed)
	case zstandard:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	default:
		return nopCloser{w}, nil
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// gatherTimeout returns how long a scrape may wait for a gather: a little less than the
// timeout that the scraper announces.
func gatherTimeout(h http.Header) time.Duration {
	const usual, margin = 10 * time.Second, 500 * time.Millisecond
	timeout := usual
	if s, err := strconv.ParseFloat(h.Get("X-Prometheus-Scrape-Timeout-Seconds"), 64); err == nil && s > 0 {
		timeout = time.Duration(min(s, maxGather.Seconds()) * float64(time.Second))
	}
	return max(timeout-margin, timeout/2)
}
