package prometheus

import (
	"net/http"
	"net/url"
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
			benchmarkScrape(b, testHandler(e, boardOf(batch("tcp_listen", listeners(benchListeners)...))), enc)
		})
	}
}

// BenchmarkScrapeGathered is the first scrape after a gather that found no change.
func BenchmarkScrapeGathered(b *testing.B) {
	for _, enc := range []string{"gzip", "zstd", "identity"} {
		b.Run(enc, func(b *testing.B) { benchmarkScrape(b, gathering(b, false), enc) })
	}
}

// BenchmarkScrapeChanged is the first scrape after a gather that found every point
// changed: families and page are built again.
func BenchmarkScrapeChanged(b *testing.B) {
	for _, enc := range []string{"gzip", "zstd", "identity"} {
		b.Run(enc, func(b *testing.B) { benchmarkScrape(b, gathering(b, true), enc) })
	}
}

// gathering returns the endpoint's handler, with a gather before each scrape.
func gathering(b *testing.B, changed bool) http.Handler {
	e, _ := newTestEndpoint(b, nil)
	board := boardOf()
	h := testHandler(e, board)
	gathers := [2][]metric.Point{listeners(benchListeners), listeners(benchListeners)}
	if changed {
		for i := range gathers[1] {
			gathers[1][i].Fields[3].Value = metric.Int(7)
		}
	}
	n := 0
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		board.publish(batch("tcp_listen", gathers[n%2]...))
		h.ServeHTTP(w, r)
	})
}

// BenchmarkAgainstPlainCollector reports the CPU time of each kind of scrape relative to
// the plain collector's, measured in turns in one run.
func BenchmarkAgainstPlainCollector(b *testing.B) {
	e, _ := newTestEndpoint(b, nil)
	plain := plainHandler(listeners(benchListeners))
	for _, test := range []struct {
		name string
		h    http.Handler
	}{
		{"unchanged", testHandler(e, boardOf(batch("tcp_listen", listeners(benchListeners)...)))},
		{"gathered", gathering(b, false)},
		{"changed", gathering(b, true)},
	} {
		b.Run(test.name, func(b *testing.B) {
			r := scrapeRequest(b, "gzip")
			var ours, theirs int64
			for b.Loop() {
				for cpu, h := range map[*int64]http.Handler{&ours: test.h, &theirs: plain} {
					runtime.GC()
					before := cpuTime(b)
					h.ServeHTTP(&discard{header: http.Header{}}, r)
					*cpu += cpuTime(b) - before
				}
			}
			b.ReportMetric(float64(ours)/float64(theirs), "of-plain")
		})
	}
}

// BenchmarkPageAgainstScrape reports the CPU time of the live page relative to that of a
// scrape of the same board, measured in turns in one run. Both are compressed.
func BenchmarkPageAgainstScrape(b *testing.B) {
	for _, test := range []struct {
		name    string
		publish func(gather int) []metric.Point // nil: the board does not change
	}{
		{"cached", nil},
		{"gathered", func(int) []metric.Point { return listeners(benchListeners) }},
		{"changed", func(gather int) []metric.Point {
			points := listeners(benchListeners)
			for i := range points {
				points[i].Fields[3].Value = metric.Int(int64(gather))
			}
			return points
		}},
	} {
		b.Run(test.name, func(b *testing.B) {
			e, _ := newTestEndpoint(b, nil)
			board := boardOf(batch("tcp_listen", listeners(benchListeners)...))
			h := testHandler(e, board)
			paths := []string{"/metrics", "/", "/?q=process:daemon-4*&sort=-queue", "/api/listeners"}
			spent := make([]int64, len(paths))
			requests := make([]*http.Request, len(paths))
			for i, path := range paths {
				requests[i] = scrapeRequest(b, "gzip")
				requests[i].URL, requests[i].Host = mustParse(b, path), "127.0.0.1"
				h.ServeHTTP(&discard{header: http.Header{}}, requests[i])
			}
			gather := 0
			for b.Loop() {
				for i := range paths {
					if gather++; test.publish != nil {
						board.publish(batch("tcp_listen", test.publish(gather)...))
					}
					w := &discard{header: http.Header{}}
					runtime.GC()
					before := cpuTime(b)
					h.ServeHTTP(w, requests[i])
					spent[i] += cpuTime(b) - before
					if w.status != 0 && w.status != http.StatusOK || w.n < 1000 {
						b.Fatalf("%s: status %d, %d bytes", paths[i], w.status, w.n)
					}
				}
			}
			b.ReportMetric(0, "ns/op")
			for i, name := range []string{"scrape", "page", "search", "api"} {
				b.ReportMetric(float64(spent[i])/float64(b.N)/1e6, name+"-ms")
			}
			b.ReportMetric(float64(spent[1])/float64(spent[0]), "page/scrape")
		})
	}
}

func mustParse(b *testing.B, path string) *url.URL {
	b.Helper()
	u, err := url.Parse(path)
	if err != nil {
		b.Fatal(err)
	}
	return u
}

// BenchmarkScrapePlainCollector is the reference: a collector
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

// benchmarkScrape reports the CPU time of a scrape in addition to its duration.
func benchmarkScrape(b *testing.B, h http.Handler, enc string) {
	r := scrapeRequest(b, enc)
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

func scrapeRequest(t testing.TB, enc string) *http.Request {
	t.Helper()
	r, err := http.NewRequest("GET", "/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", enc)
	return r
}

// cpuTime returns the user and system time of this process in nanoseconds.
func cpuTime(b *testing.B) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// A discard accepts an answer and counts its bytes.
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

// A plainCollector sends points as const metrics, as a usual exporter does, with Descs
// created once.
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
