package remotewrite

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/push/pushtest"
)

// newTestOutput returns an output that pushes to url, and its log.
func newTestOutput(t testing.TB, url string, set func(*Options)) (*output, *pushtest.Log) {
	t.Helper()
	o := Defaults()
	o.URLs = []string{url}
	if set != nil {
		set(&o)
	}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	log := &pushtest.Log{}
	out, err := New(o, plugin.Env{Log: log.Logger(), Name: "remote_write"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.(*output).Close() })
	return out.(*output), log
}

func useVersion(version string) func(*Options) {
	return func(o *Options) { o.ProtocolVersion = version }
}

// understands answers as a server that understands both versions and stores everything.
func understands(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set(writtenHeader, "1000000")
	w.WriteHeader(http.StatusNoContent)
}

func pushText(t testing.TB, out *output, records ...string) error {
	t.Helper()
	var all [][]byte
	for _, r := range records {
		all = append(all, []byte(r))
	}
	return out.Push(t.Context(), all)
}

func kind(err error) string {
	if partial, ok := errors.AsType[*plugin.PartialError](err); ok {
		return fmt.Sprintf("partial %d", partial.Rejected)
	}
	return pushtest.Kind(err)
}

// values returns the samples of a request as "name=value@time".
func values(t testing.TB, r pushtest.Request) []string {
	t.Helper()
	series := []decodedSeries(nil)
	if strings.Contains(r.ContentType, "v2") {
		series = decodeV2(t, []byte(r.Body))
	} else {
		series, _ = decodeV1(t, []byte(r.Body))
	}
	var all []string
	for _, s := range series {
		name := s.Labels[0].value
		for _, x := range s.Samples {
			all = append(all, fmt.Sprintf("%s=%s@%d", name, x.Value, x.Time))
		}
	}
	return all
}

func TestRequests(t *testing.T) {
	for _, test := range []struct {
		version     string
		contentType string
		header      string
	}{
		{version: auto, contentType: "application/x-protobuf;proto=io.prometheus.write.v2.Request", header: "2.0.0"},
		{version: version2, contentType: "application/x-protobuf;proto=io.prometheus.write.v2.Request", header: "2.0.0"},
		{version: version1, contentType: "application/x-protobuf", header: "0.1.0"},
	} {
		t.Run(test.version, func(t *testing.T) {
			server := pushtest.NewServer(t)
			server.Does(understands)
			out, log := newTestOutput(t, server.URL+"/api/v1/write?x=y", func(o *Options) {
				o.ProtocolVersion, o.Token, o.Headers = test.version, "secret-token", map[string]string{"X-Scope-OrgID": "tenant"}
			})
			if err := pushText(t, out, `1 {} m=g1`); err != nil {
				t.Fatal(err)
			}
			r := server.Took()[0]
			got := []string{r.Method, r.URL, r.Encoding, r.ContentType, r.Login, r.Header.Get(versionHeader), r.Header.Get("X-Scope-OrgID"), r.Header.Get("User-Agent")}
			want := []string{"POST", "/api/v1/write?x=y", "snappy", test.contentType, "Bearer secret-token", test.header, "tenant", "sockwatch"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"m=1@1"}, values(t, r)); diff != "" {
				t.Errorf("samples (-want +got):\n%s", diff)
			}
			if lines := log.Lines(); len(lines) > 0 {
				t.Errorf("logged %q", lines)
			}
		})
	}
}

// TestServersWithoutVersion2GetVersion1 has servers that refuse 2.0, and servers that take it
// for an empty request.
func TestServersWithoutVersion2GetVersion1(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int
	}{
		{"415", http.StatusUnsupportedMediaType}, {"200 without a count", http.StatusOK}, {"204 without a count", http.StatusNoContent},
		{"400 without a count", http.StatusBadRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := pushtest.NewServer(t)
			server.Does(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.Header.Get("Content-Type"), "v2") {
					w.WriteHeader(test.status)
					return
				}
				w.WriteHeader(http.StatusNoContent)
			})
			out, log := newTestOutput(t, server.URL, nil)
			versions := func(record string) (all []string) {
				t.Helper()
				if err := pushText(t, out, record); err != nil {
					t.Fatal(err)
				}
				for _, r := range server.Took() {
					all = append(all, r.Header.Get(versionHeader)+" "+values(t, r)[0])
				}
				return all
			}
			var got [][]string
			got = append(got, versions(`1 {} m=g1`), versions(`2 {} m=g2`))
			for s := range out.speaks1 {
				out.speaks1[s] = time.Now().Add(-time.Second) // an hour later
			}
			got = append(got, versions(`3 {} m=g3`), versions(`4 {} m=g4`))
			want := [][]string{{"2.0.0 m=1@1", "0.1.0 m=1@1"}, {"0.1.0 m=2@2"}, {"2.0.0 m=3@3", "0.1.0 m=3@3"}, {"0.1.0 m=4@4"}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			wantLog := []string{`level=INFO msg="server does not understand remote write 2.0, using 1.0" url=` + server.URL}
			if diff := cmp.Diff(wantLog, log.Lines()); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOldRecordsAreRejectedBeforeTheyAreSent(t *testing.T) {
	server := pushtest.NewServer(t)
	server.Does(understands)
	out, _ := newTestOutput(t, server.URL, func(o *Options) { o.SampleAgeLimit = plugin.Duration(time.Hour) })
	now := time.Now().UnixMilli()
	old := fmt.Sprintf(`%d {} m=g1`, now-3600_500)
	err := pushText(t, out, old, fmt.Sprintf(`%d {} m=g2`, now-3590_000))
	if kind(err) != "rejected [0]" || !strings.HasPrefix(err.Error(), "older than sample_age_limit: 20") {
		t.Errorf("%s: %v", kind(err), err)
	}
	if requests := server.Took(); len(requests) > 0 {
		t.Errorf("sent %d requests", len(requests))
	}
	if err := pushText(t, out, fmt.Sprintf(`%d {} m=g2`, now-3590_000)); err != nil { // as the agent does next
		t.Error(err)
	}
	if got := values(t, server.Took()[0]); got[0] != fmt.Sprintf("m=2@%d", now-3590_000) {
		t.Errorf("sent %q", got)
	}
}

// TestOneSamplePerSeriesAndTime pushes samples that have the series and time of others: in
// one request, and after one that was stored or has failed.
func TestOneSamplePerSeriesAndTime(t *testing.T) {
	server := pushtest.NewServer(t)
	out, _ := newTestOutput(t, server.URL, useVersion(version1))
	for _, step := range []struct {
		name    string
		fails   bool
		records []string
		want    string
		sent    []string
	}{
		{
			name: "in one request", records: []string{`1 {} m=g1`, `1 {} m=g2 n=g1`, `1 {} m=g1`, `1 {a="b"} m=g3`, `2 {} m=g4`},
			want: "stored", sent: []string{"m=1@1", "m=4@2", "n=1@1", "m=3@1"},
		},
		{name: "equal to what was stored", records: []string{`2 {} m=g4`, `1 {} n=g1`}, want: "stored"},
		{name: "other than what was stored", records: []string{`2 {} m=g5`, `3 {} m=g6`}, want: "rejected [0]"},
		{name: "without it", fails: true, records: []string{`3 {} m=g6`}, want: "kept", sent: []string{"m=6@3"}},
		{name: "again", records: []string{`3 {} m=g6`}, want: "stored", sent: []string{"m=6@3"}},
		{name: "after the clock was set back", records: []string{`2 {} m=g7`}, want: "stored", sent: []string{"m=7@2"}},
	} {
		server.Answers(http.StatusNoContent, "")
		if step.fails {
			server.Answers(http.StatusServiceUnavailable, "")
		}
		err := pushText(t, out, step.records...)
		if got := kind(err); got != step.want {
			t.Errorf("%s: outcome %s, want %s: %v", step.name, got, step.want, err)
		}
		var sent []string
		for _, r := range server.Took() {
			sent = append(sent, values(t, r)...)
		}
		if diff := cmp.Diff(step.sent, sent); diff != "" {
			t.Errorf("%s: sent (-want +got):\n%s", step.name, diff)
		}
	}
}

// An atomicServer stores requests of version 1.0 as Prometheus does: nothing of a request
// that has a sample older than the latest of its series, or a different one at its time.
type atomicServer struct {
	t testing.TB

	mu     sync.Mutex
	latest map[string]decodedSample
	stored []string
	hangUp bool // store the next request, but do not answer
	limit  int  // refuse the rest after that many requests; 0: no limit
}

func (s *atomicServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := pushtest.ReadBody(r)
	if err != nil {
		s.t.Error(err)
	}
	latest := map[string]decodedSample{}
	for k, v := range s.latest {
		latest[k] = v
	}
	var stored []string
	series, _ := decodeV1(s.t, body)
	for _, ts := range series {
		key := fmt.Sprint(ts.Labels)
		for _, x := range ts.Samples {
			if before, ok := latest[key]; ok && (before.Time > x.Time || before.Time == x.Time && before != x) {
				http.Error(w, "out of order sample", http.StatusBadRequest)
				return
			} else if !ok || before.Time < x.Time {
				stored = append(stored, fmt.Sprintf("%s@%d", x.Value, x.Time))
			}
			latest[key] = x
		}
	}
	s.latest, s.stored = latest, append(s.stored, stored...)
	if s.hangUp {
		s.hangUp = false
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(http.StatusNoContent)
}

// TestNewRecordsSurviveARepeatedRequest repeats records that the server has stored already,
// together with new ones: after an answer was lost, and after a restart.
func TestNewRecordsSurviveARepeatedRequest(t *testing.T) {
	first := []string{`1 {} m=g1`, `2 {} m=g2`, `3 {} m=g3`}
	both := append(append([]string{}, first...), `4 {} m=g4`, `4 {a="b"} m=g5`, `5 {} m=g6`)
	t.Run("without an answer", func(t *testing.T) {
		store := &atomicServer{t: t, hangUp: true}
		server := pushtest.NewServer(t)
		server.Config.Handler = store
		out, _ := newTestOutput(t, server.URL, useVersion(version1))
		if err := pushText(t, out, first...); kind(err) != "kept" {
			t.Fatalf("%s: %v", kind(err), err)
		}
		// 1 and 2 count as rejected: the server does not say that it has them.
		if err := pushText(t, out, both...); kind(err) != "rejected [0 1], others stored" {
			t.Errorf("%s: %v", kind(err), err)
		}
		if diff := cmp.Diff([]string{"1@1", "2@2", "3@3", "4@4", "5@4", "6@5"}, store.stored); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
	})
	t.Run("after a restart", func(t *testing.T) {
		store := &atomicServer{t: t}
		server := pushtest.NewServer(t)
		server.Config.Handler = store
		before, _ := newTestOutput(t, server.URL, useVersion(version1))
		if err := pushText(t, before, first...); err != nil {
			t.Fatal(err)
		}
		out, _ := newTestOutput(t, server.URL, useVersion(version1))
		if err := pushText(t, out, both...); kind(err) != "rejected [0 1], others stored" {
			t.Errorf("%s: %v", kind(err), err)
		}
		if diff := cmp.Diff([]string{"1@1", "2@2", "3@3", "4@4", "5@4", "6@5"}, store.stored); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		if err := pushText(t, out, `2 {} m=g9`, `6 {} m=g7`); kind(err) != "rejected [0 1], others stored" { // as a whole: nothing is repeated now
			t.Errorf("%s: %v", kind(err), err)
		}
	})
}

// TestNewRecordsSurviveARepetitionInParts: the request that repeats the one without an answer
// is too large now, so that its parts repeat it.
func TestNewRecordsSurviveARepetitionInParts(t *testing.T) {
	store := &atomicServer{t: t, hangUp: true}
	server := pushtest.NewServer(t)
	var requests atomic.Int32
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 2 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		store.ServeHTTP(w, r)
	})
	out, _ := newTestOutput(t, server.URL, useVersion(version1))
	records := []string{`1 {} m=g1`, `2 {} m=g2`, `3 {} m=g3`, `4 {} m=g4`, `5 {} m=g5`, `6 {} m=g6`}
	if err := pushText(t, out, records[:5]...); kind(err) != "kept" {
		t.Fatalf("%s: %v", kind(err), err)
	}
	if err := pushText(t, out, records...); kind(err) != "too large" {
		t.Fatalf("%s: %v", kind(err), err)
	}
	if err := pushText(t, out, records[:3]...); kind(err) != "rejected [0 1 2], others stored" {
		t.Errorf("%s: %v", kind(err), err)
	}
	if err := pushText(t, out, records[3:]...); kind(err) != "rejected [0], others stored" {
		t.Errorf("%s: %v", kind(err), err)
	}
	if diff := cmp.Diff([]string{"1@1", "2@2", "3@3", "4@4", "5@5", "6@6"}, store.stored); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
}

// TestEveryTimestampIsSentAfterOneIsStoredInPart goes on with the records of later times. The
// server does not say which records of a time it has stored, so all of them are named.
func TestEveryTimestampIsSentAfterOneIsStoredInPart(t *testing.T) {
	server := pushtest.NewServer(t)
	requests := 0
	server.Does(func(w http.ResponseWriter, r *http.Request) {
		switch requests++; requests {
		case 1:
			w.Header().Set(writtenHeader, "0")
			http.Error(w, "out of order sample", http.StatusBadRequest)
		case 2:
			w.Header().Set(writtenHeader, "1")
			w.WriteHeader(http.StatusNoContent)
		default:
			understands(w, r)
		}
	})
	out, _ := newTestOutput(t, server.URL, useVersion(version2))
	if err := pushText(t, out, `1 {} m=g1`, `1 {a="b"} m=g2`, `2 {} m=g3`, `3 {} m=g4`); kind(err) != "rejected [0 1], others stored" {
		t.Errorf("%s: %v", kind(err), err)
	}
	if requests != 4 {
		t.Errorf("%d requests, want one, and one for each time", requests)
	}
}

func TestEventsAreLeftOutByDefault(t *testing.T) {
	event := metric.Point{Name: "tcp_listen_event", Time: at, Fields: []metric.Field{{Key: "sequence", Value: metric.Int(7)}}}
	out, _ := newTestOutput(t, "http://127.0.0.1:1", nil)
	if got, err := out.EncodeEvent([]byte("x"), &event); string(got) != "x" || err != nil {
		t.Errorf("EncodeEvent() = %q, %v", got, err)
	}
	out, _ = newTestOutput(t, "http://127.0.0.1:1", func(o *Options) { o.Events = true })
	if got, err := out.EncodeEvent(nil, &event); string(got) != "1795341600123 {} tcp_listen_event_sequence=u7" || err != nil {
		t.Errorf("EncodeEvent() = %q, %v, with the option events", got, err)
	}
}

func TestEndedSeriesGetTheStaleMarker(t *testing.T) {
	server := pushtest.NewServer(t)
	server.Does(understands)
	out, _ := newTestOutput(t, server.URL, nil)
	out.UseDescs(testDescs)
	p := metric.Point{
		Name: "tcp_listen", Time: at, Tags: metric.NewTags("port", "80"),
		Fields: []metric.Field{{Key: "backlog", Value: metric.Int(3)}, {Key: "drops_total", Value: metric.Float(math.NaN())}, {Key: "exe", Value: metric.String("")}},
	}
	record, err := out.Encode(nil, &p)
	if err != nil {
		t.Fatal(err)
	}
	ended, err := out.EncodeEnded(nil, &p, at.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Push(t.Context(), [][]byte{record, ended}); err != nil {
		t.Fatal(err)
	}
	want := []string{"tcp_listen_backlog=3@1795341600123", "tcp_listen_backlog=stale@1795341601123", "tcp_listen_drops_total=stale@1795341601123"}
	if diff := cmp.Diff(want, values(t, server.Took()[0])); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
}

func TestAReloadKeepsWhatWasSent(t *testing.T) {
	server := pushtest.NewServer(t)
	before, _ := newTestOutput(t, server.URL, useVersion(version1))
	if err := pushText(t, before, `1 {} m=g1`); err != nil {
		t.Fatal(err)
	}
	out, _ := newTestOutput(t, server.URL, useVersion(version1))
	out.InheritFrom(before)
	before.Close()
	if err := pushText(t, out, `1 {} m=g2`); kind(err) != "rejected [0]" {
		t.Errorf("%s: %v", kind(err), err)
	}
}

// TestAReloadKeepsTheVersions: a server that understands only 1.0 is not asked again.
func TestAReloadKeepsTheVersions(t *testing.T) {
	server := pushtest.NewServer(t) // answers without saying what it has stored
	before, _ := newTestOutput(t, server.URL, nil)
	out, log := newTestOutput(t, server.URL, nil)
	if err := pushText(t, before, `1 {} m=g1`); err != nil {
		t.Fatal(err)
	}
	server.Took()
	out.InheritFrom(before)
	before.Close()
	if err := pushText(t, out, `2 {} m=g2`); err != nil {
		t.Fatal(err)
	}
	var versions []string
	for _, r := range server.Took() {
		versions = append(versions, r.Header.Get(versionHeader))
	}
	if diff := cmp.Diff([]string{"0.1.0"}, versions); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	if lines := log.Lines(); len(lines) > 0 {
		t.Errorf("log: %q", lines)
	}
}

// TestRepeatedNamesAreLoggedOnce has a tag and a field whose names become those of others.
func TestRepeatedNamesAreLoggedOnce(t *testing.T) {
	out, log := newTestOutput(t, "http://127.0.0.1:1", nil)
	p := metric.Point{Name: "m", Time: at, Tags: metric.NewTags("a-b", "1", "a_b", "2"), Fields: []metric.Field{{Key: "c-d", Value: metric.Int(1)}, {Key: "c_d", Value: metric.Int(1)}}}
	for range 2 {
		if _, err := out.Encode(nil, &p); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		`level=WARN msg="dropped a tag whose name in Prometheus is already taken" name=a-b series="m{a-b=\"1\",a_b=\"2\"}"`,
		`level=WARN msg="dropped a field whose name in Prometheus is already taken" name=c_d series="m{a-b=\"1\",a_b=\"2\"}"`,
	}
	if diff := cmp.Diff(want, log.Lines()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// TestDocumentationIsSentAgain has version 1.0, which sends it apart from the samples.
func TestDocumentationIsSentAgain(t *testing.T) {
	server := pushtest.NewServer(t)
	out, _ := newTestOutput(t, server.URL, useVersion(version1))
	out.UseDescs(testDescs)
	n := 0
	documented := func() int {
		t.Helper()
		n++
		if err := pushText(t, out, fmt.Sprintf(`%d {} m=g1`, n)); err != nil {
			t.Fatal(err)
		}
		_, docs := decodeV1(t, []byte(server.Took()[0].Body))
		return len(docs)
	}
	got := []int{documented(), documented()}
	out.docsSent = time.Now().Add(-resendDocs)
	got = append(got, documented(), documented())
	if diff := cmp.Diff([]int{3, 0, 3, 0}, got); diff != "" {
		t.Errorf("documented metrics (-want +got):\n%s", diff)
	}
}
