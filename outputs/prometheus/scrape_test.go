package prometheus

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/encoding/protodelim"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

const (
	acceptText        = "text/plain;version=0.0.4"
	acceptOpenMetrics = "application/openmetrics-text;version=1.0.0"
	acceptProtobuf    = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)

// decoded returns an answer's body without its encoding.
func decoded(t testing.TB, r *http.Response) string {
	t.Helper()
	body := bodyOf(t, r)
	switch enc := r.Header.Get("Content-Encoding"); enc {
	case "":
		return body
	case "gzip":
		z, err := gzip.NewReader(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		z.Multistream(false)
		plain, err := io.ReadAll(z) // to the checksum
		if err != nil {
			t.Fatalf("gunzip: %v", err)
		}
		return string(plain)
	case "zstd":
		z, err := zstd.NewReader(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		plain, err := io.ReadAll(z)
		if err != nil {
			t.Fatalf("zstd: %v", err)
		}
		return string(plain)
	default:
		t.Fatalf("Content-Encoding %q", enc)
		return ""
	}
}

// TestFormatsAndEncodingsSayTheSame: all formats in all encodings show the same series.
func TestFormatsAndEncodingsSayTheSame(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", append(listeners(50), point("custom_port_exporter", 7, "app", "a"))...))
	for _, format := range []struct{ accept, contentType string }{
		{"", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"},
		{"*/*", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"},
		{"text/html,application/xhtml+xml,*/*;q=0.8", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"},
		{acceptText, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"},
		{"text/plain;version=1.0.0;escaping=allow-utf-8", "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"},
		{acceptOpenMetrics, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"},
		{acceptOpenMetrics + ";escaping=allow-utf-8", "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"},
		{"application/openmetrics-text;version=0.0.1", "application/openmetrics-text; version=0.0.1; charset=utf-8; escaping=underscores"},
		{prometheusAccept, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"},
		{acceptProtobuf, "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=underscores"},
	} {
		for _, enc := range []string{"", "gzip", "zstd"} {
			t.Run(format.accept+" "+enc, func(t *testing.T) {
				r := get(t, e, board, "/metrics", "Accept", format.accept, "Accept-Encoding", enc)
				if r.StatusCode != 200 || r.Header.Get("Content-Encoding") != enc || r.Header.Get("Content-Type") != format.contentType {
					t.Errorf("status %d, headers %v", r.StatusCode, r.Header)
				}
				page := decoded(t, r)
				switch {
				case strings.HasPrefix(format.contentType, "text"):
					checkFamilies(t, families(t, page))
				case strings.HasPrefix(format.contentType, "application/openmetrics"):
					if !strings.HasSuffix(page, "\n# EOF\n") || strings.Count(page, "# EOF") != 1 {
						t.Errorf("an OpenMetrics page ends with %q", page[max(0, len(page)-100):])
					}
					if n := strings.Count(page, "\ntcp_listen_sockets{"); n != 50 {
						t.Errorf("%d sockets, want 50", n)
					}
				default:
					checkFamilies(t, protobufFamilies(t, page))
				}
			})
		}
	}
}

// prometheusAccept is what Debian's Prometheus 2.42 sends.
const prometheusAccept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"

func checkFamilies(t *testing.T, f map[string]*dto.MetricFamily) {
	t.Helper()
	for name, n := range map[string]int{"tcp_listen_sockets": 50, "tcp_listen_backlog": 50, "custom_port_exporter": 1, "go_goroutines": 1, "process_open_fds": 1, ownName + "_series": 1} {
		if got := len(f[name].GetMetric()); got != n {
			t.Errorf("%s has %d series, want %d", name, got, n)
		}
	}
	if got := f["tcp_listen_sockets"].GetType(); got != dto.MetricType_GAUGE {
		t.Errorf("tcp_listen_sockets is a %v", got)
	}
}

func protobufFamilies(t *testing.T, page string) map[string]*dto.MetricFamily {
	t.Helper()
	families, r := map[string]*dto.MetricFamily{}, bytes.NewReader([]byte(page))
	for {
		f := &dto.MetricFamily{}
		err := protodelim.UnmarshalOptions{MaxSize: -1}.UnmarshalFrom(r, f)
		if errors.Is(err, io.EOF) {
			return families
		}
		if err != nil {
			t.Fatal(err)
		}
		if families[f.GetName()] != nil {
			t.Errorf("%s is there twice", f.GetName())
		}
		families[f.GetName()] = f
	}
}

// TestBodiesAreMadeOncePerBoard: until a source publishes, scrapes get the same bytes.
func TestBodiesAreMadeOncePerBoard(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("a", point("m", 1)), batch("b", point("n", 1)))
	body := func(enc encoding) []byte {
		t.Helper()
		b, err := e.cache.page(board.Latest(), e).body(expfmt.FmtText, enc)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, accept := range []string{acceptText, acceptOpenMetrics, acceptProtobuf} {
				for _, enc := range []string{"gzip", "zstd", "identity"} {
					if r := get(t, e, board, "/metrics", "Accept", accept, "Accept-Encoding", enc); r.StatusCode != 200 {
						t.Errorf("status %d", r.StatusCode)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, enc := range []encoding{identity, gzipped, zstandard} {
		if a, b := body(enc), body(enc); &a[0] != &b[0] {
			t.Errorf("%q: an unchanged board is encoded twice", enc)
		}
	}
	before := body(identity)
	same := *board.Latest()[1]
	board.publish(board.Latest()[0], &same)
	if after := body(identity); &before[0] == &after[0] {
		t.Error("a source has published, and the program's own metrics are those of before")
	}
	board.publish(board.Latest()[:1]...)
	if strings.Contains(string(body(identity)), "\nn 1\n") {
		t.Error("a source that is gone is on the page")
	}
}

// TestFamiliesAreRebuiltOnlyIfPointsChange: equal points, in the same slice or in
// another one, keep their families.
func TestFamiliesAreRebuiltOnlyIfPointsChange(t *testing.T) {
	steady := batch("steady", listeners(3)...)
	first := newPage([]*metric.Batch{batch("moving", point("m", 1)), steady}, usualSize, nil)
	documented := batch("steady", listeners(3)...)
	documented.Descs = []metric.Desc{{Name: "tcp_listen", Field: "sockets", Help: "Another help"}}
	later := batch("steady", listeners(3)...)
	later.Time = later.Time.Add(time.Minute)
	changed := batch("steady", listeners(3)...)
	changed.Points[2].Fields[0].Value = metric.Int(7)
	for _, test := range []struct {
		name  string
		batch *metric.Batch
		kept  bool
	}{
		{name: "the same batch", batch: steady, kept: true},
		{name: "the same points in a new batch", batch: batch("steady", steady.Points...), kept: true},
		{name: "equal points", batch: later, kept: true},
		{name: "another value", batch: changed},
		{name: "a point less", batch: batch("steady", steady.Points[:2]...)},
		{name: "another Desc", batch: documented},
	} {
		t.Run(test.name, func(t *testing.T) {
			next := newPage([]*metric.Batch{batch("moving", point("m", 2)), test.batch}, usualSize, first)
			if kept := next.byName["tcp_listen_sockets"][0] == first.byName["tcp_listen_sockets"][0]; kept != test.kept {
				t.Errorf("families kept: %v, want %v", kept, test.kept)
			}
			fresh := newPage(next.board, usualSize, nil)
			if diff := cmp.Diff(encoded(t, fresh, expfmt.FmtText), encoded(t, next, expfmt.FmtText)); diff != "" {
				t.Errorf("page (-made afresh +made from the one before):\n%s", diff)
			}
		})
	}
}

// TestOwnMetricsAreThoseOfTheLastGather: the program's own metrics are built
// with the page, after every gather.
func TestOwnMetricsAreThoseOfTheLastGather(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	for want := range 3 {
		board := boardOf(batch("a", point("m", 1)))
		for _, enc := range []string{"identity", "gzip", "zstd"} {
			page := decoded(t, get(t, e, board, "/metrics", "Accept-Encoding", enc))
			if line := ownName + "_refused_requests_total " + strconv.Itoa(want) + "\n"; !strings.Contains(page, "\n"+line) {
				t.Errorf("%s: no line %q", enc, line)
			}
		}
		e.own.refused.Inc()
	}
}

func TestEncodeErrorIsLogged(t *testing.T) {
	e, book := newTestEndpoint(t, nil)
	board := boardOf(batch("a", point("m", 1)))
	e.cache.page(board.Latest(), e).families[0].Name = new("") // which no point can have
	for _, enc := range []string{"identity", "gzip", "zstd"} {
		r := get(t, e, board, "/metrics", "Accept-Encoding", enc)
		if want := "the metrics could not be encoded; the log of sockwatch has the reason\n"; r.StatusCode != 500 || bodyOf(t, r) != want {
			t.Errorf("%s: status %d", enc, r.StatusCode)
		}
	}
	if lines := book.all(); len(lines) != 3 || !strings.Contains(lines[0], "MetricFamily has no name") {
		t.Errorf("logged %q", lines)
	}
}

func TestPanicIsLogged(t *testing.T) {
	e, book := newTestEndpoint(t, nil)
	board := boardOf(batch("a", point("m", 1)))
	e.cache.page(board.Latest(), e).families[0] = nil
	for range maxRequests + 1 { // a slot that a panic kept would be missing
		if r := get(t, e, board, "/metrics"); r.StatusCode != 500 || bodyOf(t, r) != "internal error; the log of sockwatch has the reason\n" {
			t.Errorf("status %d", r.StatusCode)
		}
	}
	if lines := book.all(); len(lines) != maxRequests+1 || !strings.Contains(lines[0], "panic while answering") {
		t.Errorf("logged %q", lines)
	}
}

// TestCurlReadsItAll: like browsers, curl reads only one gzip member.
func TestCurlReadsItAll(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip(err)
	}
	e, _ := newTestEndpoint(t, nil)
	addr := serve(t, e, boardOf(batch("tcp_listen", listeners(100)...)))[0]
	for _, enc := range []string{"identity", "gzip", "zstd"} {
		page, err := exec.Command(curl, "-sS", "--max-time", "60", "--noproxy", "*", "--compressed", "-H", "Accept-Encoding: "+enc, "http://"+addr.String()+"/metrics").CombinedOutput()
		if err != nil {
			t.Errorf("%s: curl: %v: %s", enc, err, page)
			continue
		}
		if f := families(t, string(page)); len(f["tcp_listen_sockets"].GetMetric()) != 100 || f["process_open_fds"] == nil {
			t.Errorf("%s: curl reads %d bytes", enc, len(page))
		}
	}
}

// TestCachedScrapeAllocates checks the promise of the README: a scrape of an
// unchanged board of 5,000 listeners allocates less than 64 KiB.
func TestCachedScrapeAllocates(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	h := testHandler(e, boardOf(batch("tcp_listen", listeners(benchListeners)...)))
	r := scrapeRequest(t, "gzip")
	w := &discard{header: http.Header{}}
	h.ServeHTTP(w, r)
	h.ServeHTTP(w, r)
	if w.status != 0 || w.n < 100000 {
		t.Fatalf("status %d, %d bytes", w.status, w.n)
	}
	const scrapes = 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range scrapes {
		h.ServeHTTP(w, r)
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / scrapes; each >= 64<<10 {
		t.Errorf("a cached scrape allocates %d bytes", each)
	}
}

func TestGatherOnScrape(t *testing.T) {
	for _, test := range []struct {
		header string
		want   time.Duration
	}{
		{"", 9500 * time.Millisecond},
		{"10", 9500 * time.Millisecond},
		{"30.5", 30 * time.Second},
		{"0.5", 250 * time.Millisecond},
		{"100000", maxGather - 500*time.Millisecond},
		{"1e300", maxGather - 500*time.Millisecond},
		{"+Inf", maxGather - 500*time.Millisecond},
		{"NaN", 9500 * time.Millisecond},
		{"-1", 9500 * time.Millisecond},
		{"soon", 9500 * time.Millisecond},
	} {
		t.Run(test.header, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, _ := newTestEndpoint(t, func(o *Options) {
					o.GatherOnScrape, o.MinAge = true, plugin.Duration(3*time.Second)
				})
				board := boardOf(batch("a", point("m", 1)))
				board.refresh = func(ctx context.Context, maxAge time.Duration) error {
					if maxAge != 3*time.Second {
						t.Errorf("Refresh with %v, want min_age", maxAge)
					}
					<-ctx.Done()
					return ctx.Err()
				}
				start := time.Now()
				page := bodyOf(t, get(t, e, board, "/metrics", "X-Prometheus-Scrape-Timeout-Seconds", test.header))
				if took := time.Since(start); took != test.want {
					t.Errorf("answered after %v, want %v", took, test.want)
				}
				if gatheredPart(page) != "# TYPE m untyped\nm 1\n" {
					t.Errorf("a late gather leaves %q", gatheredPart(page))
				}
			})
		})
	}
}

func TestGatherOnScrapeShowsTheMoment(t *testing.T) {
	e, _ := newTestEndpoint(t, func(o *Options) { o.GatherOnScrape = true })
	board := boardOf()
	gathers := 0.0
	board.refresh = func(context.Context, time.Duration) error {
		gathers++
		board.publish(batch("a", point("m", gathers)))
		return nil
	}
	for _, want := range []string{"m 1\n", "m 2\n"} { // also at the first, of an empty board
		if page := gatheredPart(bodyOf(t, get(t, e, board, "/metrics"))); page != "# TYPE m untyped\n"+want {
			t.Errorf("page %q, want %q", page, want)
		}
	}
	bodyOf(t, get(t, e, board, "/sd/listeners"))
	bodyOf(t, get(t, e, board, "/"))
	if gathers != 2 {
		t.Errorf("%v gathers, want 2", gathers)
	}
}
