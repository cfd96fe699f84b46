package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
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
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sockwatch/agent/listen"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/soak"
)

// idsInput gathers points that can be told apart for ever: each batch has a time
// of its own, each point its number in the batch.
type idsInput struct{ last time.Time }

type idsOptions struct{}

func (*idsOptions) Validate() error { return nil }

const idsPerBatch = 40

func (in *idsInput) Gather(context.Context) (metric.Batch, error) {
	now := time.Now()
	for !now.After(in.last) {
		now = time.Now()
	}
	in.last = now
	b := metric.Batch{Time: now}
	for i := range idsPerBatch {
		id := fmt.Sprintf("%d-%02d", now.UnixNano(), i)
		b.Points = append(b.Points, metric.Point{
			Name: "ids", Tags: metric.NewTags("id", id), Fields: []metric.Field{{Key: "value", Value: metric.Int(idValue(id))}},
		})
	}
	return b, nil
}

// idValue is what the point of an id measures.
func idValue(id string) int64 {
	h := fnv.New32a()
	io.WriteString(h, id)
	return int64(h.Sum32())
}

// badID reports whether the destination rejects the point of an id for ever.
func badID(id string) bool { return idValue(id)%997 == 0 }

// TestConservationChild is the program under test, with one input more.
func TestConservationChild(t *testing.T) {
	file := os.Getenv("SOCKWATCH_TEST_CONSERVATION")
	if file == "" {
		t.Skip("the child of TestS1NothingQueuedIsLost")
	}
	ids := plugin.DefineInput(plugin.Definition[idsOptions, plugin.Input]{
		Name: "ids", Defaults: func() idsOptions { return idsOptions{} },
		New: func(idsOptions, plugin.Env) (plugin.Input, error) { return &idsInput{}, nil },
	})
	p := &program{
		plugins: append(plugins(), ids), getenv: os.LookupEnv, stdout: &dataWriter{Writer: os.Stdout}, stderr: os.Stderr,
		sockets: &listen.Sockets{}, log: newLogSwitch(os.Stderr),
	}
	if err := (&runCommand{configFlags{Config: []string{file}}}).Run(p); err != nil {
		t.Fatal(err)
	}
}

// S1: what the agent counted as queued reaches the destination, whatever the
// destination answers and whenever the program is killed; or the dead letter
// file, where the destination rejects it.
func TestS1NothingQueuedIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("kills the program many times")
	}
	t.Parallel()
	kills := soak.Times(20)
	server := newFickleServer(t)
	state := t.TempDir()
	file := filepath.Join(t.TempDir(), "sockwatch.toml")
	text := fmt.Sprintf(`
[agent]
  interval = "100ms"
  hostname = "h"
  log_level = "debug"
  log_format = "json"
  state_directory = %q
[[inputs.ids]]
[[outputs.influxdb]]
  urls = [%q]
  database = "db"
  timeout = "300ms"
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
	for n := 0; n < kills && !t.Failed(); n++ {
		c := startConservationChild(t, file)
		c.awaitQueued(t, 1)
		time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
		c.cmd.Process.Kill()
		c.collect(queued)
	}
	server.healthy.Store(true)
	c := startConservationChild(t, file)
	c.awaitQueued(t, 3)
	deadline := time.Now().Add(2 * time.Minute)
	var missing []string
	for {
		c.peek(queued)
		missing = server.missing(queued, deadLetterIDs(t, state))
		if len(missing) <= 20*idsPerBatch || time.Now().After(deadline) {
			break // the rest was queued a moment ago
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.cmd.Process.Signal(syscall.SIGTERM)
	if err := c.collect(queued); err != nil {
		t.Errorf("the last run ended with %v", err)
	}
	missing = server.missing(queued, deadLetterIDs(t, state))
	server.mu.Lock()
	defer server.mu.Unlock()
	t.Logf("%d kills, %d points queued, %d requests, %d points delivered again, %d missing, %d foreign, %d out of order",
		kills, len(queued), server.requests, server.again, len(missing), server.foreign, server.disorder)
	if len(missing) > 0 || server.foreign > 0 || server.disorder > 0 || len(queued) == 0 {
		t.Errorf("missing (first ten): %v", missing[:min(10, len(missing))])
	}
}

// A fickleServer is an InfluxDB that answers at random, and remembers the ids
// that it has stored.
type fickleServer struct {
	*httptest.Server
	healthy atomic.Bool

	mu       sync.Mutex
	stored   map[string]bool
	last     string // the greatest id stored
	requests int
	again    int // points stored more than once
	foreign  int // lines that no input has made
	disorder int // points stored for the first time after a later one
}

func newFickleServer(t *testing.T) *fickleServer {
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
	case 5: // a hang
		select {
		case <-r.Context().Done():
		case <-time.After(time.Second):
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

// missing returns the queued ids that are neither stored nor dead letters, and
// the good ones that are dead letters without being stored.
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

// A conservationChild is a run of the program. Its log says what it has queued.
type conservationChild struct {
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the log has ended
	queued chan struct{} // a token for each block queued, as far as it holds them

	mu  sync.Mutex
	ids []string
	log bytes.Buffer // what is no block
}

func startConservationChild(t *testing.T, file string) *conservationChild {
	t.Helper()
	c := &conservationChild{ended: make(chan struct{}), queued: make(chan struct{}, 100)}
	c.cmd = exec.Command(os.Args[0], "-test.run=^TestConservationChild$", "-test.count=1")
	c.cmd.Env = append(os.Environ(), "SOCKWATCH_TEST_CONSERVATION="+file)
	c.cmd.SysProcAttr = dieWithParent()
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.cmd.Process.Kill() })
	go func() {
		defer close(c.ended)
		c.read(stderr)
	}()
	return c
}

func (c *conservationChild) read(log io.Reader) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var record struct {
			Msg    string
			Plugin string
			Points int
			Time   time.Time `json:"batch_time"`
		}
		if err := json.Unmarshal(lines.Bytes(), &record); err != nil || record.Msg != "queued" {
			c.mu.Lock()
			fmt.Fprintln(&c.log, lines.Text())
			c.mu.Unlock()
			continue
		}
		c.mu.Lock()
		for i := range record.Points {
			c.ids = append(c.ids, fmt.Sprintf("%d-%02d", record.Time.UnixNano(), i))
		}
		c.mu.Unlock()
		select {
		case c.queued <- struct{}{}:
		default:
		}
	}
}

func (c *conservationChild) awaitQueued(t *testing.T, blocks int) {
	t.Helper()
	for range blocks {
		select {
		case <-c.queued:
		case <-c.ended:
			t.Fatalf("the program ended by itself:\n%s", c.log.String())
		case <-time.After(time.Minute):
			c.mu.Lock()
			defer c.mu.Unlock()
			t.Fatalf("nothing queued:\n%s", c.log.String())
		}
	}
}

// peek adds what is queued so far.
func (c *conservationChild) peek(queued map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range c.ids {
		queued[id] = true
	}
}

// collect waits for the end and adds all that was queued.
func (c *conservationChild) collect(queued map[string]bool) error {
	<-c.ended
	err := c.cmd.Wait()
	c.peek(queued)
	return err
}
