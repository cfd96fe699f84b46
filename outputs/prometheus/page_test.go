package prometheus

import (
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest"
)

// textOf returns the page of the batches as text, checked by expfmt's own parser.
func textOf(t testing.TB, most size, batches ...*metric.Batch) (string, *page) {
	t.Helper()
	p := newPage(batches, most, nil)
	text := encoded(t, p, expfmt.FmtText)
	families(t, text)
	return text, p
}

// encoded returns a page in a format, without the program's own metrics.
func encoded(t testing.TB, p *page, f expfmt.Format) string {
	t.Helper()
	var b strings.Builder
	if err := encode(&b, p.families, f); err != nil {
		t.Fatalf("encode as %s: %v", f, err)
	}
	return b.String()
}

// families parses a text page.
func families(t testing.TB, page string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatalf("the page cannot be parsed: %v\n%s", err, page)
	}
	return parsed
}

// usualSize is the default limits.
var usualSize = size{Defaults().MaxSeries, maxPageBytes}

func counts(d drops) map[dropReason]int {
	c := map[dropReason]int{}
	for kind, drop := range d {
		c[kind.reason] += drop.count
	}
	return c
}

func TestDuplicates(t *testing.T) {
	first, second := batch("a", point("m", 1, "x", "1"), point("m", 2, "x", "2")), batch("b", point("m", 3, "x", "1"), point("m", 4, "x", "3"))
	second.Descs = []metric.Desc{{Name: "m", Field: "value", Type: metric.Gauge, Help: "From the second"}}
	const want = `# HELP m From the second
# TYPE m gauge
m{x="1"} 1
m{x="2"} 2
m{x="3"} 4
`
	e, book := newTestEndpoint(t, nil)
	board := boardOf(first, second)
	page := bodyOf(t, get(t, e, board, "/metrics"))
	if diff := cmp.Diff(want, gatheredPart(page)); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
	if !strings.Contains(page, `sockwatch_prometheus_left_out_series_total{reason="duplicate"} 1`+"\n") {
		t.Errorf("not counted:\n%s", page)
	}
	again := *second
	board.publish(first, &again)
	page = bodyOf(t, get(t, e, board, "/metrics"))
	if !strings.Contains(page, `sockwatch_prometheus_left_out_series_total{reason="duplicate"} 2`+"\n") {
		t.Errorf("not counted again:\n%s", page)
	}
	wantLog := []string{`level=WARN msg="dropped series or tags from the page" reason=duplicate source=b name=m count=1 first="m{x=\"1\"}"`}
	if diff := cmp.Diff(wantLog, book.all()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// TestDuplicatesOfChangedNames: different points of the agent may be the same series for
// Prometheus.
func TestDuplicatesOfChangedNames(t *testing.T) {
	got, p := textOf(t, usualSize, batch("a",
		point("a.b", 1, "x", "1"), point("a-b", 2, "x", "1"), point("a_b", 3, "x", "2"),
		metric.Point{Name: "a", Tags: metric.NewTags("x", "1"), Fields: []metric.Field{{Key: "b", Value: metric.Int(4)}, {Key: "c", Value: metric.Int(5)}}},
		point("t", 1, "k.k", "1"), point("t", 2, "k-k", "1"),
	))
	const want = `# TYPE a_b untyped
a_b{x="1"} 1
a_b{x="2"} 3
# TYPE a_c untyped
a_c{x="1"} 5
# TYPE t untyped
t{k_k="1"} 1
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[dropReason]int{duplicate: 3}, counts(p.drops)); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
}

func TestLabelClashes(t *testing.T) {
	got, p := textOf(t, usualSize, batch("a",
		point("m", 1, "a-b", "changed", "a_b", "own"),
		point("m", 2, "a-b", "first", "a.b", "second"),
		point("m", 3, "a_b", "own", "Z", "z"),
		point("m", 4, "é", "1", "b", "2"), // sorted again
	))
	const want = `# TYPE m untyped
m{a_b="own"} 1
m{a_b="first"} 2
m{Z="z",a_b="own"} 3
m{_="1",b="2"} 4
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[dropReason]int{clash: 2}, counts(p.drops)); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
}

func TestUnusualValuesOnThePage(t *testing.T) {
	staleMarker := math.Float64frombits(0x7ff0000000000002)
	b := batch("a",
		point("inf", math.Inf(1)), point("minf", math.Inf(-1)), point("nan", math.NaN()), point("stale", staleMarker),
		metric.Point{Name: "n", Fields: []metric.Field{
			{Key: "big", Value: metric.Uint(math.MaxUint64)}, {Key: "small", Value: metric.Int(math.MinInt64)},
			{Key: "t", Value: metric.Bool(true)}, {Key: "f", Value: metric.Bool(false)}, {Key: "s", Value: metric.String("x")},
		}},
		metric.Point{Name: "sockwatch_input", Fields: []metric.Field{{Key: "gathers_total", Value: metric.Float(math.NaN())}}},
		point("backslash", 1, "t", `ends in \`),
	)
	got, p := textOf(t, usualSize, b)
	const want = `# TYPE backslash untyped
backslash{t="ends in \\"} 1
# TYPE inf untyped
inf +Inf
# TYPE minf untyped
minf -Inf
# TYPE n_big untyped
n_big 1.8446744073709552e+19
# TYPE n_f untyped
n_f 0
# TYPE n_small untyped
n_small -9.223372036854776e+18
# TYPE n_t untyped
n_t 1
# TYPE nan untyped
nan NaN
# TYPE stale untyped
stale NaN
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
	for _, f := range p.families {
		if f.GetName() == "stale" && math.Float64bits(f.Metric[0].GetUntyped().GetValue()) == math.Float64bits(staleMarker) {
			t.Error("a NaN of an input would be a staleness marker in protobuf")
		}
	}
	for _, f := range []expfmt.Format{expfmt.FmtOpenMetrics_1_0_0, expfmt.FmtProtoDelim} {
		encoded(t, p, f)
	}
}

func TestCounterAndItsBase(t *testing.T) {
	b := batch("a", metric.Point{Name: "sockwatch_input", Fields: []metric.Field{{Key: "gathers_total", Value: metric.Int(1)}, {Key: "gathers", Value: metric.Int(2)}}})
	p := newPage([]*metric.Batch{b}, usualSize, nil)
	const want = `# TYPE sockwatch_input_gathers unknown
sockwatch_input_gathers 2.0
# HELP sockwatch_input_gathers_total Gathers of the input that ended or timed out
# TYPE sockwatch_input_gathers_total unknown
sockwatch_input_gathers_total 1.0
# EOF
`
	if diff := cmp.Diff(want, encoded(t, p, expfmt.FmtOpenMetrics_1_0_0)); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
}

// TestMetricsOfSeveralSources: the type from the source that documents it applies to all.
func TestMetricsOfSeveralSources(t *testing.T) {
	undocumented := func(v float64, tags ...string) metric.Point {
		p := point("sockwatch_input", v, tags...)
		p.Fields[0].Key = "gathers_total"
		return p
	}
	plain := batch("a", undocumented(math.NaN(), "x", "1"), undocumented(0, "x", "2"), undocumented(2.5, "x", "3"))
	plain.Descs = nil
	documented := batch("b", undocumented(1, "x", "1"), undocumented(9, "x", "3"))
	got, p := textOf(t, usualSize, plain, documented)
	const want = `# HELP sockwatch_input_gathers_total Gathers of the input that ended or timed out
# TYPE sockwatch_input_gathers_total counter
sockwatch_input_gathers_total{x="2"} 0
sockwatch_input_gathers_total{x="3"} 2.5
sockwatch_input_gathers_total{x="1"} 1
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[dropReason]int{duplicate: 1}, counts(p.drops)); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
	alone := batch("a", undocumented(math.NaN(), "x", "1"))
	alone.Descs = nil
	if got, _ := textOf(t, usualSize, alone, batch("b", undocumented(1, "x", "1"))); !strings.HasSuffix(got, "\nsockwatch_input_gathers_total{x=\"1\"} 1\n") {
		t.Errorf("a NaN of another source leaves the page\n%s", got)
	}
}

func TestNamesThatHoldLinesAreOneSeries(t *testing.T) {
	got, _ := textOf(t, usualSize, batch("tcp_listen",
		point("m", 1, "process", "a\nb c=1 2"), point("m", 2, "process", `"} 7`+"\n# TYPE x counter"), point("m", 3, "process", "a\r\tb\x00")))
	const want = "# TYPE m untyped\n" +
		`m{process="a\nb c=1 2"} 1` + "\n" +
		`m{process="\"} 7\n# TYPE x counter"} 2` + "\n" +
		"m{process=\"a\r\tb\x00\"} 3\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
	if n := len(families(t, got)["m"].Metric); n != 3 {
		t.Errorf("%d series, want 3", n)
	}
}

func TestInvalidUTF8IsEscaped(t *testing.T) {
	bad := metric.Point{Name: "m", Tags: []metric.Tag{{Key: "process", Value: "\xff"}}, Fields: []metric.Field{{Key: "value", Value: metric.Int(9)}}}
	b := batch("other", point("m", 1, "process", `\xff`), bad, point("m", 2, "process", `\x5cxff`))
	e, book := newTestEndpoint(t, nil)
	got := gatheredPart(bodyOf(t, get(t, e, boardOf(b), "/metrics")))
	const want = "# TYPE m untyped\n" + `m{process="\\xff"} 1` + "\n" + `m{process="\\x5cxff"} 2` + "\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
	wantLog := []string{`level=WARN msg="dropped series or tags from the page" reason=invalid source=other name=m count=1 first="m: tag process is not UTF-8: \"\\xff\""`}
	if diff := cmp.Diff(wantLog, book.all()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestArgumentsAndPathsAreNotLabels(t *testing.T) {
	p := listener(80, "nginx", "root")
	p.Fields = append(p.Fields,
		metric.Field{Key: "cmdline", Value: metric.String("nginx --password=secret " + strings.Repeat("x", 1<<20))},
		metric.Field{Key: "path", Value: metric.String("/tmp/a\nb (deleted)")})
	got, _ := textOf(t, usualSize, batch("tcp_listen", p))
	for _, s := range []string{"secret", "deleted", "sbin", "cmdline", "exe"} {
		if strings.Contains(got, s) {
			t.Errorf("the page holds %q", s)
		}
	}
}

func TestListenersThatComeAndGoTakeNoMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("makes very many series")
	}
	e, _ := newTestEndpoint(t, nil)
	board := boardOf()
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	generation := func(i int) {
		points := make([]metric.Point, 50)
		for j := range points {
			points[j] = listener(j+1, "p"+strconv.Itoa(i*len(points)+j), "root")
		}
		board.publish(batch("tcp_listen", points...))
		for _, enc := range []string{"gzip", "identity"} {
			io.Copy(io.Discard, get(t, e, board, "/metrics", "Accept-Encoding", enc).Body)
		}
	}
	for i := range 10 {
		generation(i)
	}
	before := heap()
	for i := range 100 {
		generation(i + 10)
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes over 100 generations of 50 listeners", before, after)
	}
}

func TestRenamedProcessEndsTheOldSeries(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", listener(80, "old", "root")))
	bodyOf(t, get(t, e, board, "/metrics"))
	board.publish(batch("tcp_listen", listener(80, "new", "root")))
	page := bodyOf(t, get(t, e, board, "/metrics"))
	if strings.Contains(page, `process="old"`) || !strings.Contains(page, `process="new"`) {
		t.Errorf("page:\n%s", gatheredPart(page))
	}
}

func TestPartialBatchIsShownAsPartial(t *testing.T) {
	e, _ := newTestEndpoint(t, func(o *Options) { o.Page = false })
	b := batch("tcp_listen", listener(80, "nginx", "root"))
	b.Partial = "the deadline cut the search for owners"
	board := boardOf(b)
	if page := bodyOf(t, get(t, e, board, "/metrics")); !strings.Contains(page, "tcp_listen_sockets{") {
		t.Error("what a partial batch holds is not on the page")
	}
	if page := bodyOf(t, get(t, e, board, "/")); !strings.Contains(page, "<td>some data</td>") || strings.Contains(page, b.Partial) {
		t.Error("the landing page does not say that the batch is partial, or says why to everyone")
	}
}

// TestHostilePoints shows points that have broken encoders.
func TestHostilePoints(t *testing.T) {
	points := plugintest.Points()
	got, p := textOf(t, size{1 << 20, 1 << 30}, batch("a", points...))
	if p.series < len(points)/2 || !strings.Contains(got, `t="`+strings.Repeat("x", 70000)+`"`) {
		t.Errorf("%d series of %d points", p.series, len(points))
	}
	if n := p.drops.count(invalid); n > 0 {
		t.Errorf("%d series dropped as invalid", n)
	}
}

func TestEventsAreIgnored(t *testing.T) {
	b := batch("tcp_listen", point("m", 1))
	b.Events = []metric.Point{point("tcp_listen_event", 1)}
	b.Events[0].Time = time.Unix(1, 0)
	if got, _ := textOf(t, usualSize, b); got != "# TYPE m untyped\nm 1\n" {
		t.Errorf("page %q", got)
	}
}

func TestOwnMetricsGiveWay(t *testing.T) {
	e, _ := newTestEndpoint(t, nil)
	page := bodyOf(t, get(t, e, boardOf(batch("a", point("go_goroutines", -1))), "/metrics"))
	if n := strings.Count(page, "# TYPE go_goroutines "); n != 1 || !strings.Contains(page, "\ngo_goroutines -1\n") {
		t.Errorf("go_goroutines is there %d times", n)
	}
	families(t, page)
}

// FuzzPage compares the page with the result of expfmt's parser.
func FuzzPage(f *testing.F) {
	f.Add("tcp_listen", "sockets", "process", "a\nb", "user", "ro\"ot", 1.5)
	f.Add("", "", "", "", "", "", 0.0)
	f.Add("a.b", "value", "__name__", "x", "_name__", `\`, math.NaN())
	f.Add("9", "\xff", "é", "\xff", "-", "y", math.Inf(-1))
	f.Fuzz(func(t *testing.T, name, field, key1, value1, key2, value2 string, v float64) {
		points := []metric.Point{
			{Name: name, Tags: metric.NewTags(key1, value1, key2, value2), Fields: []metric.Field{{Key: field, Value: metric.Float(v)}}},
			{Name: name, Tags: metric.NewTags(key1, value2), Fields: []metric.Field{{Key: field, Value: metric.Float(v)}, {Key: key1, Value: metric.Int(1)}}},
			point(name+"_"+field, v, key2, value1, key1, value2),
		}
		p := newPage([]*metric.Batch{batch("a", points...)}, size{100, 1 << 20}, nil)
		encoded(t, p, expfmt.FmtOpenMetrics_1_0_0)
		encoded(t, p, expfmt.FmtProtoDelim)
		got := families(t, encoded(t, p, expfmt.FmtText))
		n := 0
		for _, f := range p.families {
			parsed := got[f.GetName()]
			if parsed == nil || len(parsed.Metric) != len(f.Metric) {
				t.Fatalf("%s has %d series, parsed: %v", f.GetName(), len(f.Metric), parsed)
			}
			n += len(f.Metric)
			for i := range f.Metric {
				want, have := labelMap(f.Metric[i]), labelMap(parsed.Metric[i])
				if !maps.Equal(want, have) {
					t.Fatalf("%s: labels %v, parsed %v", f.GetName(), want, have)
				}
			}
		}
		if n != p.series || len(got) != len(p.families) {
			t.Fatalf("%d series of %d families, parsed %d of %d", p.series, len(p.families), n, len(got))
		}
		valid := 0
		for i := range points {
			if points[i].Check() == nil {
				valid += len(points[i].Fields)
			}
		}
		if c := counts(p.drops); p.series+c[duplicate]+c[maxSeries] != valid {
			t.Fatalf("%d valid series, %d shown, dropped: %v", valid, p.series, c)
		}
	})
}

func labelMap(m *dto.Metric) map[string]string {
	labels := map[string]string{}
	for _, l := range m.Label {
		labels[l.GetName()] = l.GetValue()
	}
	return labels
}

// TestPageThatIsTooLarge: batches lose their last points, the largest first.
func TestPageThatIsTooLarge(t *testing.T) {
	some := func(name string, n int, fields ...string) []metric.Point {
		var points []metric.Point
		for i := range n {
			p := metric.Point{Name: name, Tags: metric.NewTags("host", "h", "i", strconv.Itoa(i))}
			for _, f := range fields {
				p.Fields = append(p.Fields, metric.Field{Key: f, Value: metric.Int(2)})
			}
			points = append(points, p)
		}
		return points
	}
	for _, test := range []struct {
		name    string
		most    size
		a, b    []metric.Point
		want    map[string]int // series by metric
		dropped map[string]int // series by first word of the name
	}{
		{
			name: "all fit", most: size{8, 1 << 20}, a: some("m", 3, "x", "y"), b: some("n", 2, "x"),
			want: map[string]int{"m_x": 3, "m_y": 3, "n_x": 2},
		}, {
			name: "the last points of a batch go, whole", most: size{5, 1 << 20}, a: some("m", 4, "x", "y"),
			want: map[string]int{"m_x": 2, "m_y": 2}, dropped: map[string]int{`m{host="h",i="2"}`: 4},
		}, {
			name: "what comes last is of another name", most: size{4, 1 << 20},
			a:    slices.Concat(some("tcp_listen", 3, "x"), some("custom_port_exporter", 3, "value")),
			want: map[string]int{"tcp_listen_x": 3, "custom_port_exporter": 1}, dropped: map[string]int{`custom_port_exporter{host="h",i="1"}`: 2},
		}, {
			name: "the largest batch goes first", most: size{6, 1 << 20}, a: some("m", 2, "x"), b: some("n", 50, "x"),
			want: map[string]int{"m_x": 2, "n_x": 4}, dropped: map[string]int{`n{host="h",i="4"}`: 46},
		}, {
			name: "until another one is as large", most: size{6, 1 << 20}, a: some("m", 4, "x"), b: some("n", 50, "x"),
			want: map[string]int{"m_x": 3, "n_x": 3}, dropped: map[string]int{`m{host="h",i="3"}`: 1, `n{host="h",i="3"}`: 47},
		}, {
			name: "by bytes", most: size{1000, 500}, a: some("m", 2, "x"), b: some("n", 50, "x"),
			want: map[string]int{"m_x": 2, "n_x": 8}, dropped: map[string]int{`n{host="h",i="8"}`: 42},
		}, {
			name: "a first point that does not fit", most: size{1, 1 << 20}, a: some("m", 1, "x", "y"),
			want: map[string]int{}, dropped: map[string]int{`m{host="h",i="0"}`: 2},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, p := textOf(t, test.most, batch("a", test.a...), batch("b", test.b...))
			series := map[string]int{}
			for name, f := range families(t, got) {
				series[name] = len(f.Metric)
			}
			if diff := cmp.Diff(test.want, series); diff != "" {
				t.Errorf("series (-want +got):\n%s", diff)
			}
			dropped := map[string]int{}
			for kind, drop := range p.drops {
				if kind.reason == maxSeries {
					dropped[drop.first] = drop.count
				}
			}
			if diff := cmp.Diff(test.dropped, dropped, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("dropped (-want +got):\n%s", diff)
			}
			if !(size{p.series, len(got)}).within(test.most) {
				t.Errorf("%d series, %d bytes are more than %v", p.series, len(got), test.most)
			}
		})
	}
}

func TestDroppedSeriesAreCountedAndNamed(t *testing.T) {
	e, book := newTestEndpoint(t, func(o *Options) { o.MaxSeries = 801 })
	page := bodyOf(t, get(t, e, boardOf(
		batch("sockwatch", point("sockwatch_input_up", 1)),
		batch("tcp_listen", append(listeners(100), point("custom_port_exporter", 1, "pid", "1"), point("custom_port_exporter", 2, "pid", "2"))...),
	), "/metrics"))
	for _, line := range []string{
		`sockwatch_input_up 1`,
		`sockwatch_prometheus_left_out_series_total{reason="max_series"} 2`,
		`sockwatch_prometheus_series 801`,
	} {
		if !strings.Contains(page, "\n"+line+"\n") {
			t.Errorf("the page has no line %s", line)
		}
	}
	if strings.Contains(page, "custom_port_exporter") {
		t.Error("points beyond max_series are on the page")
	}
	want := []string{`level=WARN msg="dropped series or tags from the page" reason=max_series source=tcp_listen name=custom_port_exporter count=2 first="custom_port_exporter{pid=\"1\"}"`}
	if diff := cmp.Diff(want, book.all()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestPageStaysBelowWhatScrapersTake(t *testing.T) {
	if testing.Short() {
		t.Skip("makes very large pages")
	}
	long := strings.Repeat("\\\"\n", 200) // each byte is two on the page
	var points []metric.Point
	for u := range 20 {
		for i := range 50 {
			p := listener(i+1, long, "user-"+strconv.Itoa(u))
			p.Tags = metric.NewTags("address", "10.0.0."+strconv.Itoa(u), "port", strconv.Itoa(i+1), "process", long, "container", long+strconv.Itoa(i), "user", "user-"+strconv.Itoa(u))
			points = append(points, p)
		}
	}
	e, book := newTestEndpoint(t, nil)
	board := boardOf(batch("tcp_listen", points...))
	const most = 16 << 20 // VictoriaMetrics' -promscrape.maxScrapeSize
	for _, accept := range []string{acceptText, acceptOpenMetrics, acceptProtobuf} {
		w := &discard{header: http.Header{}}
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept", accept)
		testHandler(e, board).ServeHTTP(w, r)
		if w.n >= most || accept != acceptProtobuf && w.n < most*3/4 {
			t.Errorf("%s: %d bytes; scrapers take %d", accept, w.n, most)
		}
	}
	page := bodyOf(t, get(t, e, board, "/metrics"))
	if !strings.Contains(page, "user-0") || strings.Contains(page, "user-19") {
		t.Error("it is not the last points that are dropped")
	}
	if len(book.all()) != 1 {
		t.Errorf("logged %q", book.all())
	}
}
