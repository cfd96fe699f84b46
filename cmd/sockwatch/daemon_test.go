package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sockwatch/agent/listen"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/servertest"
)

// A serialInput gathers points that are all different: each batch has its own
// time, and each point its number in the batch. It also gathers one
// point about itself.
type serialInput struct {
	options serialOptions
	last    time.Time
	batches int // number of numbered points
}

type serialOptions struct {
	Delay plugin.Duration `toml:"delay"` // how long a gather takes, even after ctx is done
	Until string          `toml:"until"` // a file: once it exists, batches have only the input's own point
}

func (*serialOptions) Validate() error { return nil }

func (in *serialInput) Gather(context.Context) (metric.Batch, error) {
	time.Sleep(time.Duration(in.options.Delay))
	now := time.Now()
	for !now.After(in.last) {
		now = time.Now()
	}
	in.last = now
	b := metric.Batch{Time: now}
	_, err := os.Stat(in.options.Until)
	done := err == nil
	if !done {
		in.batches++
		for i := range idsPerBatch {
			id := fmt.Sprintf("%d-%02d", now.UnixNano(), i)
			b.Points = append(b.Points, metric.Point{
				Name: "ids", Tags: metric.NewTags("id", id), Fields: []metric.Field{{Key: "value", Value: metric.Int(idValue(id))}},
			})
		}
	}
	b.Points = append(b.Points, metric.Point{Name: "serial", Fields: []metric.Field{
		{Key: "batches", Value: metric.Int(int64(in.batches))}, {Key: "done", Value: metric.Bool(done)},
	}})
	return b, nil
}

// An eventPage is an endpoint that writes the events of its board to a file, at each change.
type eventPage struct{ options eventPageOptions }

type eventPageOptions struct {
	Path string `toml:"path"`
}

func (*eventPageOptions) Validate() error { return nil }

func (*eventPage) Listen(context.Context) error { return nil }

func (p *eventPage) Serve(ctx context.Context, board plugin.Board) error {
	for {
		changed := board.Changed()
		if len(board.Latest()) > 0 {
			if err := os.WriteFile(p.options.Path+".new", []byte(eventLines(board.Events())), 0o600); err != nil {
				return err
			}
			if err := os.Rename(p.options.Path+".new", p.options.Path); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// eventLines returns one line for each event, with everything in it.
func eventLines(events []metric.Point) string {
	var b strings.Builder
	for i := range events {
		e := &events[i]
		fmt.Fprintln(&b, e.Time.UnixNano(), e.Series(), e.Fields)
	}
	return b.String()
}

// runDaemon is the program under test: sockwatch with one more input and endpoint.
func runDaemon() int {
	p := newDaemonProgram(os.Stdout, os.Stderr)
	var flags configFlags
	for _, path := range os.Args[1:] {
		flags.Config = append(flags.Config, configPath(path))
	}
	return p.execute(func() error { return (&runCommand{flags}).Run(p) })
}

// newDaemonProgram returns the program with one more input and endpoint.
func newDaemonProgram(stdout, stderr io.Writer) *program {
	serial := plugin.DefineInput(plugin.Definition[serialOptions, plugin.Input]{
		Name: "serial", Defaults: func() serialOptions { return serialOptions{} },
		New: func(o serialOptions, _ plugin.Env) (plugin.Input, error) { return &serialInput{options: o}, nil },
	})
	page := plugin.DefineEndpoint(plugin.Definition[eventPageOptions, plugin.Endpoint]{
		Name: "event_page", Defaults: func() eventPageOptions { return eventPageOptions{} },
		New: func(o eventPageOptions, _ plugin.Env) (plugin.Endpoint, error) { return &eventPage{o}, nil },
	})
	return &program{
		plugins: append(plugins(), serial, page), getenv: os.LookupEnv, stdout: &dataWriter{Writer: stdout}, stderr: stderr,
		sockets: &listen.Sockets{}, log: newLogSwitch(stderr),
	}
}

// A daemon is the program running as a process. Its log says what it has queued, if the
// configuration sets the format JSON and the level debug.
type daemon struct {
	*process
	config string // its file
}

func startDaemon(t *testing.T, config string) *daemon {
	t.Helper()
	return startDaemonOn(t, writeFile(t, t.TempDir(), "sockwatch.toml", config))
}

func startDaemonOn(t *testing.T, file string) *daemon {
	t.Helper()
	return &daemon{start(t, "daemon", nil, file), file}
}

// awaitLog waits until the log contains a text.
func (d *daemon) awaitLog(t *testing.T, text string) {
	t.Helper()
	eventually(t, "the log says "+text, func() bool { return strings.Contains(d.stderr.String(), text) })
}

// reload makes the program adopt another configuration.
func (d *daemon) reload(t *testing.T, config string) {
	t.Helper()
	before := strings.Count(d.stderr.String(), `"msg":"reloaded"`)
	if err := os.WriteFile(d.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Process.Signal(syscall.SIGHUP)
	eventually(t, "the reload", func() bool { return strings.Count(d.stderr.String(), `"msg":"reloaded"`) > before })
}

// stop stops the program by SIGTERM.
func (d *daemon) stop(t *testing.T) {
	t.Helper()
	d.Process.Signal(syscall.SIGTERM)
	if code := d.exitCode(t); code != exitDone {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

// queued returns the ids that the program has logged as queued for an output so far,
// oldest first.
func (d *daemon) queued(output string) []string {
	var ids []string
	for line := range strings.Lines(d.stderr.String()) {
		var record struct {
			Msg, Plugin string
			Points      int
			Time        time.Time `json:"batch_time"`
		}
		if json.Unmarshal([]byte(line), &record) != nil || record.Msg != "queued" || record.Plugin != output {
			continue
		}
		for i := range record.Points {
			ids = append(ids, fmt.Sprintf("%d-%02d", record.Time.UnixNano(), i))
		}
	}
	return ids
}

// awaitQueued waits until a number of further points have been queued for influxdb.
func (d *daemon) awaitQueued(t *testing.T, points int) {
	t.Helper()
	before := len(d.queued("outputs.influxdb"))
	eventually(t, "points queued", func() bool { return len(d.queued("outputs.influxdb")) >= before+points })
}

// gauge returns the value of an output's metric on a page, or -1 if it is missing.
func gauge(page, name, output string) float64 {
	m := regexp.MustCompile(`(?m)^` + name + `\{[^}]*output="` + output + `"[^}]*\} (\S+)$`).FindStringSubmatch(page)
	if m == nil {
		return -1
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return -1
	}
	return v
}

// A sink is an InfluxDB 1.x that can be stopped and started, answers as the test wants,
// and records what it has stored.
type sink struct {
	URL string

	mu       sync.Mutex
	server   *http.Server // nil: stopped
	answer   http.HandlerFunc
	arrived  map[string]time.Time // when each id was first stored
	last     string               // the largest of them
	requests int
	again    int // points stored more than once
	foreign  int // lines that no input has produced
	disorder int // points stored for the first time after a later one
}

func newSink(t *testing.T) *sink {
	t.Helper()
	s := &sink{URL: "http://" + servertest.FreeAddress(t), arrived: map[string]time.Time{}}
	s.start(t)
	t.Cleanup(s.stop)
	return s
}

func (s *sink) start(t *testing.T) {
	t.Helper()
	// A child that another test starts may have a copy of the closed socket for a moment: from
	// fork until exec.
	l, err := net.Listen("tcp", strings.TrimPrefix(s.URL, "http://"))
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
		l, err = net.Listen("tcp", strings.TrimPrefix(s.URL, "http://"))
	}
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s}
	s.mu.Lock()
	s.server = server
	s.mu.Unlock()
	go server.Serve(l)
}

// stop ends the server and every connection.
func (s *sink) stop() {
	s.mu.Lock()
	server := s.server
	s.server = nil
	s.mu.Unlock()
	if server != nil {
		server.Close()
	}
}

// answers sets the handler of requests, which then store nothing; nil: store again.
func (s *sink) answers(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// hang answers only when the client is gone.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	zipped, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client was killed
	}
	body, err := gunzip(zipped)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.requests++
	answer := s.answer
	s.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	s.store(body)
	w.WriteHeader(http.StatusNoContent)
}

func (s *sink) store(body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for line := range strings.Lines(string(body)) {
		var id string
		var value, at int64
		if _, err := fmt.Sscanf(line, "ids,host=h,id=%s value=%di %d\n", &id, &value, &at); err != nil || value != idValue(id) ||
			!strings.HasPrefix(id, strconv.FormatInt(at, 10)+"-") {
			s.foreign++
			continue
		}
		if _, ok := s.arrived[id]; ok {
			s.again++
			continue
		}
		if id < s.last {
			s.disorder++
		}
		s.arrived[id], s.last = now, max(s.last, id)
	}
}

// asked returns the number of requests.
func (s *sink) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// missing returns the ids that are not stored.
func (s *sink) missing(ids []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var missing []string
	for _, id := range ids {
		if _, ok := s.arrived[id]; !ok {
			missing = append(missing, id)
		}
	}
	return missing
}

// demand waits until all ids are stored. It fails if anything else is stored, or anything is
// out of order.
func (s *sink) demand(t *testing.T, ids []string) {
	t.Helper()
	if len(ids) == 0 {
		t.Error("nothing was queued")
	}
	eventually(t, fmt.Sprintf("%d points stored", len(ids)), func() bool { return len(s.missing(ids)) == 0 })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.foreign > 0 || s.disorder > 0 {
		t.Errorf("%d foreign, %d out of order", s.foreign, s.disorder)
	}
	t.Logf("%d points queued, %d stored, %d stored again, %d requests", len(ids), len(s.arrived), s.again, s.requests)
}

// A delivery is a configuration of the input serial and the output influxdb with a queue on
// disk. Its fields are what tests vary.
type delivery struct {
	state, url string
	input      string        // more options of the input
	output     string        // more options of the output
	more       string        // more tables
	flush      time.Duration // 0: 100ms
	shutdown   time.Duration // 0: 30s
}

func (c delivery) String() string {
	flush, shutdown := cmp.Or(c.flush, 100*time.Millisecond), cmp.Or(c.shutdown, 30*time.Second)
	return fmt.Sprintf(`
[agent]
  interval = "100ms"
  hostname = "h"
  log_level = "debug"
  log_format = "json"
  state_directory = %q
  shutdown_timeout = "%v"
[[inputs.serial]]
  timeout = "1h"
  %s
[[outputs.influxdb]]
  urls = [%q]
  database = "db"
  buffer = "disk"
  flush_interval = "%v"
  namepass = ["ids"]
  %s
%s`, c.state, shutdown, c.input, c.url, flush, c.output, c.more)
}

// demandAll starts the program once more, with a healthy destination, and demands all points
// queued before and now.
func (c delivery) demandAll(t *testing.T, s *sink, before []string) {
	t.Helper()
	s.answers(nil)
	patient := c
	patient.shutdown = waitLimit // it delivers everything, however busy the machine is
	d := startDaemon(t, patient.String())
	d.awaitQueued(t, 1)
	s.demand(t, before)
	d.stop(t)
	s.demand(t, append(before, d.queued("outputs.influxdb")...))
}

// spool returns the directory of the queue of influxdb.
func (c delivery) spool() string { return filepath.Join(c.state, "influxdb") }
