package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sockwatch/agent/plugin/plugintest/soak"
)

const idsPerBatch = 40

// idValue is the value of the point with an id.
func idValue(id string) int64 {
	h := fnv.New32a()
	io.WriteString(h, id)
	return int64(h.Sum32())
}

// badID reports whether the destination always rejects the point with an id.
func badID(id string) bool { return idValue(id)%997 == 0 }

// Every point that the agent counted as queued reaches the destination or, if it is
// rejected, the dead-letter file, whatever the destination answers and whenever the program
// is killed.
func TestNothingQueuedIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("kills the program many times")
	}
	t.Parallel()
	kills := soak.Times(7)
	server := newFickleServer(t)
	state := fastDir(t)
	file := filepath.Join(t.TempDir(), "sockwatch.toml")
	text := fmt.Sprintf(`
[agent]
  interval = "100ms"
  hostname = "h"
  log_level = "debug"
  log_format = "json"
  state_directory = %q
[[inputs.serial]]
[[outputs.influxdb]]
  urls = [%q]
  database = "db"
  timeout = "2s"
  flush_interval = "0s"
  buffer = "disk"
  max_body = "64KiB"
  namepass = ["ids"]
`, state, server.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	queued := map[string]bool{}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	collect := func(d *daemon) {
		for _, id := range d.queued("outputs.influxdb") {
			queued[id] = true
		}
	}
	for n := 0; n < kills && !t.Failed(); n++ {
		d := startDaemonOn(t, file)
		d.awaitQueued(t, 1)
		time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
		d.Process.Kill()
		<-d.exited
		collect(d)
	}
	server.healthy.Store(true)
	d := startDaemonOn(t, file)
	d.awaitQueued(t, 3*idsPerBatch)
	var missing []string
	eventually(t, "all but the points queued a moment ago delivered", func() bool {
		collect(d)
		missing = server.missing(queued, deadLetterIDs(t, state))
		return len(missing) <= 20*idsPerBatch
	})
	d.stop(t)
	collect(d)
	missing = server.missing(queued, deadLetterIDs(t, state))
	server.mu.Lock()
	defer server.mu.Unlock()
	t.Logf("%d kills, %d points queued, %d requests, %d points delivered again, %d missing, %d foreign, %d out of order",
		kills, len(queued), server.requests, server.again, len(missing), server.foreign, server.disorder)
	if len(missing) > 0 || server.foreign > 0 || server.disorder > 0 || len(queued) == 0 {
		t.Errorf("missing (first ten): %v", missing[:min(10, len(missing))])
	}
}

// A fickleServer is an InfluxDB that answers at random, and records the ids that it has
// stored.
type fickleServer struct {
	*httptest.Server
	healthy atomic.Bool

	mu       sync.Mutex
	stored   map[string]bool
	last     string // the largest id stored
	requests int
	again    int // points stored more than once
	foreign  int // lines that no input has produced
	disorder int // points stored for the first time after a later one
}

func newFickleServer(t *testing.T) *fickleServer {
	t.Helper()
	s := &fickleServer{stored: map[string]bool{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

func (s *fickleServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	zipped, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client was killed
	}
	body, err := gunzip(zipped)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	dice := rand.IntN(14)
	if s.healthy.Load() {
		dice = 13
	}
	switch dice {
	case 0:
		http.Error(w, `{"error":"timeout"}`, http.StatusInternalServerError)
	case 1:
		w.Header().Set("Retry-After", "0")
		http.Error(w, "", http.StatusTooManyRequests)
	case 2:
		if bytes.Count(body, []byte("\n")) > 1 {
			http.Error(w, `{"error":"Request Entity Too Large"}`, http.StatusRequestEntityTooLarge)
			return
		}
		s.store(w, body)
	case 3: // reset before it is stored
		reset(w)
	case 4: // reset after it is stored
		s.store(httptest.NewRecorder(), body)
		reset(w)
	case 5: // hangs
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
		}
		reset(w)
	default:
		s.store(w, body)
	}
}

// store keeps the good lines and answers as InfluxDB 1.x does.
func (s *fickleServer) store(w http.ResponseWriter, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	bad := 0
	for line := range strings.Lines(string(body)) {
		var id string
		var value, at int64
		if _, err := fmt.Sscanf(line, "ids,host=h,id=%s value=%di %d\n", &id, &value, &at); err != nil || value != idValue(id) ||
			!strings.HasPrefix(id, strconv.FormatInt(at, 10)+"-") {
			s.foreign++
			continue
		}
		switch {
		case badID(id):
			bad++
		case s.stored[id]:
			s.again++
		default:
			if id < s.last {
				s.disorder++
			}
			s.stored[id], s.last = true, id
		}
	}
	if bad > 0 {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":"partial write: field type conflict: input field \"value\" on measurement \"ids\" is type integer, already exists as type float dropped=%d"}`, bad)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// missing returns the queued ids that are neither stored nor dead-letter entries, and the
// good ones that are dead-letter entries without being stored.
func (s *fickleServer) missing(queued, letters map[string]bool) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var missing []string
	for id := range queued {
		if !s.stored[id] && !(letters[id] && badID(id)) {
			missing = append(missing, id)
		}
	}
	return missing
}

func gunzip(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// reset ends a connection without an answer.
func reset(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

func deadLetterIDs(t *testing.T, state string) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	for _, generation := range []string{"", ".1"} {
		text, err := os.ReadFile(filepath.Join(state, "influxdb.rejected.jsonl"+generation))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var letter struct{ Record string }
			if json.Unmarshal([]byte(line), &letter) != nil {
				continue // torn by a kill
			}
			if _, after, ok := strings.Cut(letter.Record, ",id="); ok {
				id, _, _ := strings.Cut(after, " ")
				ids[id] = true
			}
		}
	}
	return ids
}
