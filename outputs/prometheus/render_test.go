package prometheus

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/encoding/protodelim"
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

// TestO22FormatsAndEncodings: every format in every encoding says the same.
func TestO22FormatsAndEncodings(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", append(listeners(50), point("custom_port_exporter", 7, "app", "a"))...))
	for _, format := range []struct{ accept, contentType string }{
		{"", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"},
		{"*/*", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"},
		{"text/html,application/xhtml+xml,*/*;q=0.8", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"},
		{acceptText, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"},
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

func TestRenderedOncePerBoard(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("a", point("m", 1)), batch("b", point("n", 1)))
	first := e.page.of(board.Latest(), e)
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
	if e.page.of(board.Latest(), e) != first {
		t.Error("an unchanged board is another page")
	}
	a, b := first.body(text, gzipped, &scratch{}), first.body(text, gzipped, &scratch{})
	if &a.bytes[0] != &b.bytes[0] {
		t.Error("the same page is compressed twice")
	}
	same := *board.Latest()[1]
	board.publish(board.Latest()[0], &same)
	if e.page.of(board.Latest(), e) == first {
		t.Error("a board with another batch is the same page")
	}
	board.publish(board.Latest()[:1]...)
	if p := e.page.of(board.Latest(), e); p.has("n") {
		t.Error("a source that is gone is on the page")
	}
}

// TestOwnMetricsAreFresh: the page is from the cache, what the program says of
// itself is not.
func TestOwnMetricsAreFresh(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("a", point("m", 1)))
	for _, enc := range []string{"identity", "gzip", "zstd"} {
		for want := range 3 {
			page := decoded(t, get(t, e, board, "/metrics", "Accept-Encoding", enc))
			if line := ownName + "_refused_requests_total " + string(rune('0'+want)) + "\n"; !strings.Contains(page, "\n"+line) {
				t.Errorf("%s: no line %q", enc, line)
			}
			e.own.refused.Inc()
		}
		e.own = newOwnMetrics()
	}
}

func TestEncodeErrorIsSaid(t *testing.T) {
	e, book := newTestEndpoint(t, nil)
	board := boardOf(batch("a", point("m", 1)))
	e.page.of(board.Latest(), e).families[0].name = "" // which no point can have
	r := get(t, e, board, "/metrics")
	if want := "the metrics could not be encoded; the log of sockwatch has the reason\n"; r.StatusCode != 500 || bodyOf(t, r) != want {
		t.Errorf("status %d", r.StatusCode)
	}
	if lines := book.all(); len(lines) != 1 || !strings.Contains(lines[0], "MetricFamily has no name") {
		t.Errorf("logged %q", lines)
	}
}

func TestPanicIsSaid(t *testing.T) {
	e, book := newTestEndpoint(t, nil)
	board := boardOf(batch("a", point("m", 1)))
	e.page.of(board.Latest(), e).families[0] = nil
	for range 2 {
		if r := get(t, e, board, "/metrics"); r.StatusCode != 500 {
			t.Errorf("status %d", r.StatusCode)
		}
	}
	if lines := book.all(); len(lines) != 2 || !strings.Contains(lines[0], "panic while answering") || !strings.Contains(lines[1], errHalfMade.Error()) {
		t.Errorf("logged %q", lines)
	}
}

// TestCurlReadsItAll: curl, as browsers, reads one gzip member only.
func TestCurlReadsItAll(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip(err)
	}
	e, _ := newTestEndpoint(t, nil)
	addr := serve(t, e, boardOf(batch("tcp_listen", listeners(100)...)))[0]
	for _, enc := range []string{"identity", "gzip", "zstd"} {
		page, err := exec.Command(curl, "-sS", "--noproxy", "*", "--compressed", "-H", "Accept-Encoding: "+enc, "http://"+addr.String()+"/metrics").CombinedOutput()
		if err != nil {
			t.Errorf("%s: curl: %v: %s", enc, err, page)
			continue
		}
		if f := families(t, string(page)); len(f["tcp_listen_sockets"].GetMetric()) != 100 || f["process_open_fds"] == nil {
			t.Errorf("%s: curl reads %d bytes", enc, len(page))
		}
	}
}

// TestCachedScrapeAllocates keeps the promise of the README: a scrape of an
// unchanged board of 5,000 listeners allocates less than 64 KiB.
func TestCachedScrapeAllocates(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	h := e.handler(boardOf(batch("tcp_listen", listeners(benchListeners)...)))
	r, err := http.NewRequest("GET", "/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", "gzip")
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

func TestNegotiateEncoding(t *testing.T) {
	for _, test := range []struct {
		header []string
		want   encoding
	}{
		{nil, identity},
		{[]string{""}, identity},
		{[]string{"gzip"}, gzipped},
		{[]string{"x-gzip"}, gzipped},
		{[]string{"GZIP"}, gzipped},
		{[]string{"gzip, deflate, br, zstd"}, zstandard},
		{[]string{"gzip;q=1.0, zstd;q=0.5"}, gzipped},
		{[]string{"gzip;q=0"}, identity},
		{[]string{"gzip;q=0, *"}, identity},
		{[]string{"*"}, gzipped},
		{[]string{"*;q=0"}, identity},
		{[]string{"identity, gzip;q=0.5"}, identity},
		{[]string{"identity;q=0.5, gzip;q=0.5"}, gzipped},
		{[]string{"br", "zstd ; q=0.1"}, zstandard},
		{[]string{"gzip;q=2"}, identity},
		{[]string{"gzip;q=NaN"}, identity},
		{[]string{"gzip;q=x, ,;;,zstd;q=-1"}, identity},
	} {
		if got := negotiateEncoding(http.Header{"Accept-Encoding": test.header}); got != test.want {
			t.Errorf("%q: %v, want %v", test.header, got, test.want)
		}
	}
}

func FuzzNegotiate(f *testing.F) {
	f.Add("gzip;q=0.5, *", prometheusAccept)
	f.Add(";q=,;", "a/b;version=x,*/*;q=z;escaping=allow-utf-8")
	f.Fuzz(func(t *testing.T, encodings, accept string) {
		h := http.Header{"Accept-Encoding": {encodings}, "Accept": {accept}}
		enc := negotiateEncoding(h)
		if enc != identity && !strings.Contains(strings.ToLower(encodings), enc.String()) && !strings.Contains(encodings, "*") {
			t.Errorf("%q gives %v", encodings, enc)
		}
		format, contentType := negotiateFormat(h)
		if expfmt.Format(contentType).FormatType() == expfmt.TypeUnknown || format < 0 || format >= formats {
			t.Errorf("%q gives %q", accept, contentType)
		}
	})
}
