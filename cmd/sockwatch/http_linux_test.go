package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/servertest"
)

// An eventRow is an event in a store.
type eventRow struct{ Time, Kind, Host, History, Sequence string }

// kindsOnce returns the kinds of events in the order of their times, each event once by its
// identity. It fails the test if two rows of an event differ.
func kindsOnce(t *testing.T, rows []eventRow) []string {
	t.Helper()
	slices.SortStableFunc(rows, func(a, b eventRow) int { return strings.Compare(a.Time, b.Time) })
	seen := map[string]eventRow{}
	var kinds []string
	for _, row := range rows {
		id := row.Host + " " + row.History + " " + row.Sequence
		if first, ok := seen[id]; !ok {
			kinds = append(kinds, row.Kind)
			seen[id] = row
		} else if row != first {
			t.Errorf("event %s is %v, and then %v", id, first, row)
		}
	}
	return kinds
}

// storedEvents returns the events at a port that VictoriaLogs has.
func storedEvents(t *testing.T, server *servertest.Server, port string) (rows []eventRow) {
	t.Helper()
	q := url.Values{"query": {fmt.Sprintf(`name:tcp_listen_event tags.port:%q`, port)}}
	fetch(t, http.MethodGet, server.URL+"/select/logsql/query?"+q.Encode(), func(body io.Reader) error {
		lines := bufio.NewScanner(body)
		for lines.Scan() {
			var row map[string]string
			if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
				return fmt.Errorf("%q: %w", lines.Text(), err)
			}
			rows = append(rows, eventRow{row["_time"], row["_msg"], row["tags.host"], row["fields.history"], row["fields.sequence"]})
		}
		return lines.Err()
	})
	return rows
}

// loggedEvents returns the events at a port in a file of JSON lines.
func loggedEvents(t *testing.T, path, port string) (rows []eventRow) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var event struct {
			Tags   struct{ Event, Host, Port string }
			Fields struct {
				History  string
				Sequence json.Number
			}
			Timestamp string
		}
		if json.Unmarshal(line, &event) == nil && event.Tags.Port == port { // the last line may be torn
			rows = append(rows, eventRow{event.Timestamp, event.Tags.Event, event.Tags.Host, event.Fields.History, event.Fields.Sequence.String()})
		}
	}
	return rows
}

// TestEventsReachVictoriaLogs opens and closes a listener while the server is up, while it is
// down, and around a kill of the program during the outage: by its identity, each event is
// there exactly once.
func TestEventsReachVictoriaLogs(t *testing.T) {
	t.Parallel()
	server := servertest.VictoriaLogs(t)
	address, port := ownAddress(2)
	dir := t.TempDir()
	state, events := filepath.Join(dir, "state"), filepath.Join(dir, "events.jsonl")
	file := writeFile(t, dir, "sockwatch.toml", fmt.Sprintf(`
[agent]
  interval = "200ms"
  hostname = "h"
  state_directory = %q
[[inputs.tcp_listen]]
  settle = "0s"
  timeout = "20s"
[[outputs.http]]
  url = "%s/insert/jsonline?_time_field=timestamp&_msg_field=tags.event&_stream_fields=name,tags.host"
  content_encoding = "zstd"
  namepass = ["tcp_listen_event"]
  timeout = "2s"
[[outputs.file]]
  path = %q
  namepass = ["tcp_listen_event"]
`, state, server.URL, events))
	run := func() *process { return start(t, "sockwatch", nil, "run", "--config", file) }
	p := &testedPort{number: fmt.Sprint(port)}
	arrived := func() bool { return slices.Equal(kindsOnce(t, storedEvents(t, server, p.number)), p.want) }
	published := func() bool { return slices.Equal(kindsOnce(t, loggedEvents(t, events, p.number)), p.want) }

	d := run()
	eventually(t, "a history", func() bool {
		_, err := os.Stat(filepath.Join(state, "tcp_listen.history.jsonl"))
		return err == nil
	})
	p.change(t, address)
	eventually(t, "the first event in the file", published)
	eventually(t, "the first event", arrived)

	server.Shutdown()
	for range 2 {
		p.change(t, address)
		eventually(t, "the event of the outage in the file", published)
	}
	d.Process.Kill()
	<-d.exited
	d = run()
	p.change(t, address)
	eventually(t, "the event after the kill in the file", published)
	server.Start()
	eventually(t, "all events", arrived)
	d.Process.Signal(syscall.SIGTERM)
	if code := d.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}

	stored := storedEvents(t, server, p.number)
	if diff := cmp.Diff([]string{"opened", "closed", "returned", "closed"}, kindsOnce(t, stored)); diff != "" {
		t.Errorf("events (-want +got)\n%s", diff)
	}
	t.Logf("%d events in %d rows", len(p.want), len(stored))
}
