//go:build unix

package influxdb

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/servertest"
	"sockwatch/agent/plugin/plugintest/soak"
	"sockwatch/outputs/internal/push/pushtest"
)

// The write API of InfluxDB 2.x in a real server, whose own query language reads
// back what was written.

const (
	v2Bucket = "sockwatch/autogen"
	v2Token  = "w:s3cret"
)

// newV2Server starts a server with the bucket and a user whose token may write to
// it and read it.
func newV2Server(t *testing.T) *servertest.Server {
	t.Helper()
	server := servertest.Influxd18(t, "auth-enabled = true")
	do(t, http.MethodPost, server.URL+"/query?q="+url.QueryEscape(`CREATE USER root WITH PASSWORD 'r00t' WITH ALL PRIVILEGES`), http.StatusOK)
	for _, q := range []string{"CREATE DATABASE sockwatch", "CREATE USER w WITH PASSWORD 's3cret'", "GRANT ALL ON sockwatch TO w",
		"CREATE USER r WITH PASSWORD 's3cret'", "GRANT READ ON sockwatch TO r"} {
		do(t, http.MethodPost, server.URL+"/query?u=root&p=r00t&q="+url.QueryEscape(q), http.StatusOK)
	}
	return server
}

func v2(url, token string) Options {
	o := Defaults()
	o.URLs, o.Organization, o.Bucket, o.Token = []string{url}, "any", v2Bucket, token
	return o
}

// flux returns the rows of a query over the bucket, each as the values of its columns
// by name, without those of Flux itself.
func flux(t *testing.T, server *servertest.Server, pipeline string) []map[string]string {
	t.Helper()
	query := fmt.Sprintf("from(bucket: %q) |> range(start: 2026-11-01T00:00:00Z, stop: 2026-12-31T00:00:00Z) %s", v2Bucket, pipeline)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/api/v2/query?org=any", strings.NewReader(query))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/vnd.flux")
	req.Header.Set("Accept", "application/csv")
	req.Header.Set("Authorization", "Token "+v2Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %s, %v", query, resp.Status, body, err)
	}
	var rows []map[string]string
	for table := range bytes.SplitSeq(bytes.TrimSpace(body), []byte("\r\n\r\n")) {
		r := csv.NewReader(bytes.NewReader(table))
		r.Comment = '#' // annotations
		lines, err := r.ReadAll()
		if err != nil || len(lines) == 0 {
			t.Fatalf("%s: %q, %v", query, body, err)
		}
		for _, line := range lines[1:] {
			row := map[string]string{}
			for i, column := range lines[0] {
				switch column {
				case "", "result", "table", "_start", "_stop":
				default:
					row[column] = line[i]
				}
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// TestInfluxDB2WriteAPI starts the server once: compiling Flux takes it ten seconds.
func TestInfluxDB2WriteAPI(t *testing.T) {
	soak.Only(t, "starts InfluxDB 1.8, which takes four seconds of CPU")
	t.Parallel()
	server := newV2Server(t)
	t.Run("Flux returns what was written", func(t *testing.T) { testFluxReturnsWhatWasWritten(t, server) })
	t.Run("rejected lines", func(t *testing.T) { testRejectedLinesByBucketAndToken(t, server) })
	t.Run("token and bucket", func(t *testing.T) { testTokenAndBucket(t, server) })
}

// testFluxReturnsWhatWasWritten writes hostile names by bucket and token: each is one
// series, with the values and the time that it was written with.
func testFluxReturnsWhatWasWritten(t *testing.T, server *servertest.Server) {
	out, log := newOutput(t, v2(server.URL, v2Token))
	names := map[string]string{ // process: as the server stores it
		"nginx": "nginx", "a b,c=d": "a b,c=d", `a\x0ab`: `a\x0ab`, "a\nb c=1 2": `a\X0Ab c=1 2`, `a\`: `a\X5C`, `a\\b`: `a\X5C\b`, `"q"`: `"q"`,
	}
	fields := map[string]string{"pid": "31337", "backlog": "9223372036854775807", "start": "0.5", "up": "true", "exe": `/bin/"x" \y`}
	var points []metric.Point
	var want []map[string]string
	for process, stored := range names {
		points = append(points, listener(process))
		for field, value := range fields {
			want = append(want, map[string]string{"_measurement": "tcp_listen", "_time": "2026-11-22T10:00:00.123456789Z",
				"_field": field, "_value": value, "address": "::", "port": "443", "process": stored})
		}
	}
	if err := out.Push(t.Context(), encode(t, out, points...)); err != nil {
		t.Fatal(err)
	}
	got := flux(t, server, `|> filter(fn: (r) => r._measurement == "tcp_listen")`)
	for _, rows := range [][]map[string]string{want, got} {
		slices.SortFunc(rows, func(a, b map[string]string) int {
			return strings.Compare(a["process"]+"\n"+a["_field"], b["process"]+"\n"+b["_field"])
		})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if lines := log.Lines(); len(lines) > 0 {
		t.Errorf("logged %q", lines)
	}
}

// testRejectedLinesByBucketAndToken: the server rejects some of 1,000 records.
func testRejectedLinesByBucketAndToken(t *testing.T, server *servertest.Server) {
	out, _ := newOutput(t, v2(server.URL, v2Token))
	records := numbered(t, out, "m", 1000)
	unparsable := []string{"m,t= v=1i 1795341600000000000", "m v=x 1795341600000000000"}
	conflict := "m v=0.5 1795341605000000000"
	records[10], records[617], records[900] = []byte(unparsable[0]), []byte(unparsable[1]), []byte(conflict)
	dead, _ := deliver(t, out, records)
	slices.SortFunc(dead, func(a, b deadLetter) int { return strings.Compare(a.Record, b.Record) })
	want := []deadLetter{
		{conflict, server.URL + `: 400 Bad Request: partial write: field type conflict: input field "v" on measurement "m" is type float, already exists as type integer dropped=1`},
		{unparsable[1], server.URL + ": 400 Bad Request: unable to parse '" + unparsable[1] + "': invalid boolean"},
		{unparsable[0], server.URL + ": 400 Bad Request: unable to parse '" + unparsable[0] + "': missing tag value"},
	}
	slices.SortFunc(want, func(a, b deadLetter) int { return strings.Compare(a.Record, b.Record) })
	if diff := cmp.Diff(want, dead); diff != "" {
		t.Errorf("dead letters (-want +got)\n%s", diff)
	}
	if got := flux(t, server, `|> filter(fn: (r) => r._measurement == "m") |> count()`); len(got) != 1 || got[0]["_value"] != "997" {
		t.Errorf("stored %v, want 997", got)
	}
}

// testTokenAndBucket: points stay queued while the server refuses the token or the bucket,
// and are delivered afterwards.
func testTokenAndBucket(t *testing.T, server *servertest.Server) {
	record := fmt.Sprintf("other v=1i %d", at.Add(time.Hour).UnixNano())
	for _, tt := range []struct {
		name, bucket, token string
		want                string
	}{
		{name: "a wrong token", bucket: v2Bucket, token: "w:wrong", want: "401 Unauthorized: authorization failed: check token"},
		{name: "a token that may only read", bucket: v2Bucket, token: "r:s3cret",
			want: `403 Forbidden: "r" user is not authorized to write to database "sockwatch": allow writing to bucket "sockwatch/autogen" of organization "any"`},
		{name: "a missing bucket", bucket: "other/autogen", token: v2Token,
			want: `404 Not Found: database not found: "other": create bucket "other/autogen" of organization "any", or check urls`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := v2(server.URL, tt.token)
			o.Bucket = tt.bucket
			out, _ := newOutput(t, o)
			if err, want := send(t, out, record), server.URL+": "+tt.want; fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
				t.Errorf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
			}
		})
	}
	guessed, _ := newOutput(t, guessedV3Options(server.URL))
	want := server.URL + `: 404 Not Found: 404 page not found: if the server is older than InfluxDB 3, set organization, bucket and api = "v2" instead of database; else create database "d"`
	if err := send(t, guessed, record); fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
		t.Errorf("by the API of 3.x: %s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
	}

	o := v2(server.URL, "")
	o.HTTPHeaders = map[string]string{"Authorization": "Token " + v2Token}
	out, _ := newOutput(t, o)
	if err := send(t, out, record); err != nil {
		t.Error(err)
	}
}
