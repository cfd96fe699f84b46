//go:build unix

package http

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/servertest"
	"sockwatch/outputs/internal/push/pushtest"
)

// jsonline is the path of VictoriaLogs for JSON lines, with the names of our keys.
const jsonline = "/insert/jsonline?_time_field=timestamp&_msg_field=tags.event&_stream_fields=name,tags.host"

// query returns the values of a field of all rows that VictoriaLogs has for a LogsQL query,
// sorted, when there are at least n.
func query(t *testing.T, server *servertest.Server, logsQL, field string, n int) []string {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		values := rows(t, server, logsQL, field)
		if len(values) >= n {
			return values
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d rows of %q, want %d", len(values), logsQL, n)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func rows(t *testing.T, server *servertest.Server, logsQL, field string) []string {
	t.Helper()
	resp, err := http.PostForm(server.URL+"/select/logsql/query", url.Values{"query": {logsQL}, "start": {"2026-01-01T00:00:00Z"}, "end": {"2027-01-01T00:00:00Z"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("query %q: %s: %s", logsQL, resp.Status, body)
	}
	var values []string
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		var row map[string]string
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		values = append(values, row[field])
	}
	slices.Sort(values)
	return values
}

// TestVictoriaLogsGetsEachEventOnce pushes events in every encoding, over a stop and a start of
// the server: each is there exactly once, by its identity.
func TestVictoriaLogsGetsEachEventOnce(t *testing.T) {
	server := servertest.VictoriaLogs(t)
	const each = 20
	var want []string
	pushed := 0
	for _, encoding := range []string{"identity", "gzip", "zstd", "snappy"} {
		o := to(server.URL + jsonline)
		o.ContentEncoding = encoding
		out, _ := newOutput(t, o)
		records := encode(t, out, pushed+each)[pushed:]
		if encoding == "zstd" {
			server.Shutdown() // it confirms events before they are on its disk
			err := send(t, out, records)
			if text := server.URL + ": dial tcp " + strings.TrimPrefix(server.URL, "http://") + ": connect: connection refused"; pushtest.Kind(err) != "kept" || fmt.Sprint(err) != text {
				t.Fatalf("without the server: %s: %v", pushtest.Kind(err), err)
			}
			server.Start()
		}
		if err := send(t, out, records); err != nil {
			t.Fatalf("%s: %v", encoding, err)
		}
		pushed += each
	}
	for i := range pushed {
		want = append(want, fmt.Sprint(i+1))
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, query(t, server, "name:tcp_listen_event", "fields.sequence", pushed)); diff != "" {
		t.Errorf("sequences (-want +got)\n%s", diff)
	}
	got := query(t, server, `fields.sequence:"7"`, "_time", 1)
	got = append(got, rows(t, server, `fields.sequence:"7"`, "_msg")...)
	got = append(got, rows(t, server, `fields.sequence:"7"`, "tags.port")...)
	if diff := cmp.Diff([]string{"2026-11-22T10:00:00.000000007Z", "opened", "4444"}, got); diff != "" {
		t.Errorf("time, message and port of one event (-want +got)\n%s", diff)
	}
}

// TestVictoriaLogsRefusesAWrongURL: the events stay queued, and the error says what to
// change.
func TestVictoriaLogsRefusesAWrongURL(t *testing.T) {
	server := servertest.VictoriaLogs(t)
	out, _ := newOutput(t, to(server.URL+"/insert/jsonlines"))
	err := send(t, out, encode(t, out, 1))
	want := server.URL + `: 400 Bad Request: unsupported path requested: "/insert/jsonlines": check url`
	if pushtest.Kind(err) != "kept" || fmt.Sprint(err) != want {
		t.Errorf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
	}
}
