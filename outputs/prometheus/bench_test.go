package prometheus

import (
	"net/http"
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"sockwatch/agent/metric"
)

// benchListeners is the size of the benchmarks' page: max_listeners of tcp_listen.
const benchListeners = 5000

// BenchmarkScrapeCached is a scrape of a board that has not changed since the last.
func BenchmarkScrapeCached(b *testing.B) {
	for _, enc := range []string{"gzip", "zstd", "identity"} {
		b.Run(enc, func(b *testing.B) {
			e, _ := newTestEndpoint(b, nil)
			benchmarkScrape(b, e.handler(boardOf(batch("tcp_listen", listeners(benchListeners)...))), enc)
		})
	}
}

// BenchmarkScrapeRendered is the first scrape of a board: the page is made.
func BenchmarkScrapeRendered(b *testing.B) {
	for _, enc := range []string{"gzip", "zstd", "identity"} {
		b.Run(enc, func(b *testing.B) {
			e, _ := newTestEndpoint(b, nil)
			board := boardOf()
			h := e.handler(board)
			points := listeners(benchListeners)
			benchmarkScrape(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				board.publish(batch("tcp_listen", points...))
				h.ServeHTTP(w, r)
			}), enc)
		})
	}
}

// BenchmarkScrapePlainCollector is what the endpoint is held against: a collector
// that sends const metrics of the same points through promhttp.
func BenchmarkScrapePlainCollector(b *testing.B) {
	for _, enc := range []string{"gzip", "identity"} {
		b.Run(enc, func(b *testing.B) {
			benchmarkScrape(b, plainHandler(listeners(benchListeners)), enc)
		})
	}
}

func plainHandler(points []metric.Point) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newPlainCollector(points), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// benchmarkScrape reports the processor time of a scrape beside its duration.
func benchmarkScrape(b *testing.B, h http.Handler, enc string) {
	r, err := http.NewRequest("GET", "/metrics", nil)
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", enc)
	w := &discard{header: http.Header{}}
	h.ServeHTTP(w, r)
	if w.status != 0 || w.n < 1000 {
		b.Fatalf("status %d, %d bytes", w.status, w.n)
	}
	size := w.n
	runtime.GC()
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(size), "page-bytes")
}

// cpuTime returns the user and system time of this process in nanoseconds.
func cpuTime(b *testing.B) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// A discard takes an answer and counts its bytes.
type discard struct {
	header http.Header
	status int
	n      int
}

func (d *discard) Header() http.Header { return d.header }
func (d *discard) WriteHeader(s int)   { d.status = s }
func (d *discard) Write(p []byte) (int, error) {
	d.n += len(p)
	return len(p), nil
}

// A plainCollector sends points as const metrics, as a usual exporter does: with
// Descs that were made once.
type plainCollector struct {
	points []metric.Point
	descs  map[string]*prometheus.Desc
}

func newPlainCollector(points []metric.Point) *plainCollector {
	c := &plainCollector{points, map[string]*prometheus.Desc{}}
	for _, p := range points {
		var labels []string
		for _, t := range p.Tags {
			labels = append(labels, t.Key)
		}
		for _, f := range p.Fields {
			if _, ok := f.Value.Number(); ok && c.descs[f.Key] == nil {
				c.descs[f.Key] = prometheus.NewDesc(p.Name+"_"+f.Key, "help", labels, nil)
			}
		}
	}
	return c
}

func (c *plainCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

func (c *plainCollector) Collect(ch chan<- prometheus.Metric) {
	for _, p := range c.points {
		values := make([]string, len(p.Tags))
		for i, t := range p.Tags {
			values[i] = t.Value
		}
		for _, f := range p.Fields {
			if v, ok := f.Value.Number(); ok {
				ch <- prometheus.MustNewConstMetric(c.descs[f.Key], prometheus.GaugeValue, v, values...)
			}
		}
	}
}
