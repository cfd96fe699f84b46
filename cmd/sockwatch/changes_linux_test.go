package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/schematest"
	"sockwatch/agent/plugin/plugintest/soak"
	"sockwatch/inputs/tcplisten"
)

// A seenEvent is a tcp_listen_event as an output has it.
type seenEvent struct {
	identity string // history and sequence
	port     string
	kind     string // the tag event
	text     string // all of it
}

// seenEvents are the events that one output has received, by what the test needs to
// know: whether repetitions are equal, and what happened at each port.
type seenEvents struct {
	address string // events of other addresses are others' business
	healthy atomic.Bool

	mu     sync.Mutex
	texts  map[string]string      // by identity
	ports  map[string][]seenEvent // first receptions, in the order of their sequences
	again  int
	faults []string
}

func newSeenEvents(address string) *seenEvents {
	return &seenEvents{address: address, texts: map[string]string{}, ports: map[string][]seenEvent{}}
}

// addJSON adds a line of an output with data_format "json".
func (s *seenEvents) addJSON(text string) {
	if err := schematest.Check([]byte(text)); err != nil {
		s.fault("%v: %q", err, text)
	}
	var line struct {
		Name   string
		Tags   map[string]string
		Fields struct {
			History  string
			Sequence int64
		}
	}
	if err := json.Unmarshal([]byte(text), &line); err != nil {
		s.fault("not JSON: %v: %q", err, text)
		return
	}
	if line.Name != "tcp_listen_event" || line.Tags["address"] != s.address {
		return
	}
	s.add(seenEvent{identity: fmt.Sprintf("%s %09d", line.Fields.History, line.Fields.Sequence), port: line.Tags["port"], kind: line.Tags["event"], text: text})
}

// The parts of an event in line protocol. None of the values of this test has a blank or
// a comma.
var (
	lineTag      = regexp.MustCompile(`,(address|port|event)=([^, ]+)`)
	lineHistory  = regexp.MustCompile(`[ ,]history="([0-9a-f]+)"`)
	lineSequence = regexp.MustCompile(`[ ,]sequence=([0-9]+)i`)
)

// addInflux adds a line of line protocol.
func (s *seenEvents) addInflux(text string) {
	tags := map[string]string{}
	for _, m := range lineTag.FindAllStringSubmatch(text, -1) {
		tags[m[1]] = m[2]
	}
	if !strings.HasPrefix(text, "tcp_listen_event,") || tags["address"] != s.address {
		return
	}
	history, sequence := lineHistory.FindStringSubmatch(text), lineSequence.FindStringSubmatch(text)
	if history == nil || sequence == nil {
		s.fault("an event without an identity: %q", text)
		return
	}
	s.add(seenEvent{identity: fmt.Sprintf("%s %09s", history[1], sequence[1]), port: tags["port"], kind: tags["event"], text: text})
}

func (s *seenEvents) add(e seenEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch before, ok := s.texts[e.identity]; {
	case !ok:
		s.texts[e.identity] = e.text
		s.ports[e.port] = append(s.ports[e.port], e)
	case before == e.text:
		s.again++
	default:
		s.faults = append(s.faults, fmt.Sprintf("%s came twice, and not equal:\n%s\n%s", e.identity, before, e.text))
	}
}

func (s *seenEvents) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, fmt.Sprintf(format, args...))
}

// at returns the kinds of the events of a port.
func (s *seenEvents) at(port string) (kinds []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.ports[port] {
		kinds = append(kinds, e.kind)
	}
	return kinds
}

// received returns how many events have come, repetitions included.
func (s *seenEvents) received() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.texts) + s.again
}

func (s *seenEvents) takeFaults() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.faults)
}

// follow adds the lines of a file of JSON as they come, until done is closed.
func (s *seenEvents) follow(path string, done <-chan struct{}) {
	var f *os.File
	for f == nil {
		f, _ = os.Open(path) // it may not be there yet
		if f == nil && !pauseUnless(done) {
			return
		}
	}
	defer f.Close()
	var whole int64 // the end of the last whole line: the next run cuts off what a kill has torn
	for {
		if _, err := f.Seek(whole, io.SeekStart); err != nil {
			s.fault("%v", err)
			return
		}
		for r := bufio.NewReader(f); ; {
			text, err := r.ReadString('\n')
			if err != nil {
				break
			}
			whole += int64(len(text))
			s.addJSON(strings.TrimSuffix(text, "\n"))
		}
		if !pauseUnless(done) {
			return
		}
	}
}

// pauseUnless waits a moment. It reports false if done is closed.
func pauseUnless(done <-chan struct{}) bool {
	select {
	case <-done:
		return false
	case <-time.After(10 * time.Millisecond):
		return true
	}
}

// ServeHTTP is InfluxDB with bad days.
func (s *seenEvents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	zipped, err := io.ReadAll(r.Body)
	if err != nil {
		return // the program was killed
	}
	body, err := gunzip(zipped)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	dice := rand.IntN(6)
	if s.healthy.Load() {
		dice = 5
	}
	if dice == 0 { // not stored
		http.Error(w, `{"error":"timeout"}`, http.StatusInternalServerError)
		return
	}
	for line := range strings.Lines(string(body)) {
		s.addInflux(strings.TrimSuffix(line, "\n"))
	}
	if dice == 1 { // stored, though the answer is lost
		reset(w)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// ownAddress returns a loopback address, and the first of eight ports, that no other test
// and no other run of the tests uses: a program that leaves one address of a port for
// another one has not closed anything.
func ownAddress(test int) (address string, port int) {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 83+test, pid>>8&255, max(1, pid&255)), 10_000 + pid%1000*16 + test*8
}

// A testedPort is a port at which this test opens and closes listeners, one at a time.
type testedPort struct {
	number  string
	process *process // that listens; nil: none
	want    []string // what each output must have received in the end
	changed time.Time
}

// change opens or closes the listener of a port.
func (p *testedPort) change(t *testing.T, address string) {
	t.Helper()
	p.changed = time.Now()
	if p.process != nil {
		p.process.Process.Kill()
		<-p.process.exited
		p.process, p.want = nil, append(p.want, "closed")
		return
	}
	p.process = start(t, "listener", []string{"SOCKWATCH_TEST_LISTEN=" + net.JoinHostPort(address, p.number)})
	eventually(t, "a listener at "+p.number, func() bool { return p.process.stdout.String() != "" })
	kind := "returned"
	if len(p.want) == 0 {
		kind = "opened"
	}
	p.want = append(p.want, kind)
}

// Every change is reported at least once to outputs with a queue on disk, with one in
// memory and without any, and each repetition is equal, though the program is killed at
// random moments.
func TestChangesSurviveKills(t *testing.T) {
	if testing.Short() {
		t.Skip("kills the program many times")
	}
	t.Parallel()
	address, port := ownAddress(0)
	dir := t.TempDir()
	onDisk, inMemory, inFile := newSeenEvents(address), newSeenEvents(address), newSeenEvents(address)
	diskServer, memoryServer := httptest.NewServer(onDisk), httptest.NewServer(inMemory)
	defer diskServer.Close()
	defer memoryServer.Close()
	state, path := fastDir(t), filepath.Join(dir, "events.jsonl")
	file := filepath.Join(dir, "sockwatch.toml")
	configure := func(settle, flush string) {
		text := fmt.Sprintf(`
[agent]
  interval = "200ms"
  hostname = "h"
  state_directory = %q
  shutdown_timeout = "30s"
[[inputs.tcp_listen]]
  settle = %q
  timeout = "20s"
  namepass = ["tcp_listen_event"]
[[outputs.influxdb]]
  urls = [%q]
  alias = "disk"
  database = "db"
  buffer = "disk"
  flush_interval = "0s"
  timeout = "2s"
[[outputs.influxdb]]
  alias = "memory"
  urls = [%q]
  database = "db"
  buffer = "memory"
  flush_interval = %q
  timeout = "2s"
[[outputs.file]]
  path = %q
  rotation_max_size = "0B"
`, state, settle, diskServer.URL, memoryServer.URL, flush, path)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure("1s", "500ms")
	done := make(chan struct{})
	var followers sync.WaitGroup
	followers.Go(func() { inFile.follow(path, done) })
	defer followers.Wait()
	defer close(done)

	run := func() *process { return start(t, "sockwatch", nil, "run", "--config", file) }
	ports := make([]*testedPort, 8)
	for i := range ports {
		ports[i] = &testedPort{number: fmt.Sprint(port + i)}
	}
	outputs := map[string]*seenEvents{"with a queue on disk": onDisk, "with a queue in memory": inMemory, "to a file": inFile}
	settled := func(p *testedPort) bool {
		for _, o := range outputs {
			if len(o.at(p.number)) < len(p.want) {
				return false
			}
		}
		return true
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for name, o := range outputs {
			for _, p := range ports {
				o.mu.Lock()
				for _, e := range o.ports[p.number] {
					t.Logf("output %s, port %s, want %v: %s", name, p.number, p.want, e.text)
				}
				o.mu.Unlock()
			}
		}
	})
	d := run()
	eventually(t, "a history", func() bool { // the first scan is the baseline
		_, err := os.Stat(filepath.Join(state, "tcp_listen.history.jsonl"))
		return err == nil
	})

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	kills := soak.Times(4)
	for range kills {
		for until := time.Now().Add(time.Duration(random.IntN(2000)) * time.Millisecond); time.Now().Before(until); {
			if p := ports[random.IntN(len(ports))]; settled(p) {
				p.change(t, address)
			}
			time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
			if random.IntN(20) == 0 { // a reload hands everything over, or leaves it as it is
				configure([]string{"1s", "1100ms"}[random.IntN(2)], []string{"0s", "500ms"}[random.IntN(2)])
				d.Process.Signal(syscall.SIGHUP)
			}
		}
		d.Process.Kill()
		<-d.exited
		d = run()
	}
	for range 2 { // the last changes, and all listeners closed
		for _, p := range ports {
			eventually(t, fmt.Sprintf("%v at port %s, changed at %s", p.want, p.number, p.changed.Format(time.StampMilli)), func() bool { return settled(p) })
			if p.process != nil {
				p.change(t, address)
			}
		}
	}
	stop := func() {
		t.Helper()
		eventually(t, "the program has begun", func() bool { return strings.Contains(d.stderr.String(), "configuration read") }) // it catches signals
		d.Process.Signal(syscall.SIGTERM)
		if code := d.exitCode(t); code != 0 {
			t.Errorf("the last run ended with %d", code)
		}
	}
	for _, o := range outputs {
		o.healthy.Store(true)
	}
	time.Sleep(3 * time.Second) // what is queued is delivered, whatever it is
	stop()
	before := map[string]int{}
	for name, o := range outputs {
		before[name] = o.received()
	}
	configure("1s", "0s")
	d = run()
	time.Sleep(2 * time.Second)
	stop()
	for name, o := range outputs {
		if n := o.received() - before[name]; n > 0 {
			t.Errorf("output %s: %d events after a clean restart", name, n)
		}
	}

	changes, again := 0, 0
	for name, o := range outputs {
		for _, fault := range o.takeFaults() {
			t.Errorf("output %s: %s", name, fault)
		}
		for _, p := range ports {
			if got := o.at(p.number); !slices.Equal(got, p.want) {
				t.Errorf("output %s, port %s: events %v, want %v", name, p.number, got, p.want)
			}
			changes += len(p.want)
		}
		if foreign := len(o.ports) - len(ports); foreign > 0 {
			t.Errorf("output %s: events of other ports: %v", name, slices.Sorted(maps.Keys(o.ports)))
		}
		again += o.again
	}
	for id, text := range onDisk.texts {
		if _, ok := inMemory.texts[id]; !ok {
			t.Errorf("not in the output with a queue in memory: %s", text)
		}
		if _, ok := inFile.texts[id]; !ok {
			t.Errorf("not in the file: %s", text)
		}
	}
	t.Logf("%d kills, %d changes at 3 outputs, %d events came again", kills, changes, again)
}

// A disk that is full for a while keeps no change from an output: one in memory has it at
// once, one with a queue on that disk when there is space again. A kill afterwards
// repeats nothing under another identity.
func TestChangesOnAFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the program for ten seconds")
	}
	t.Parallel()
	address, port := ownAddress(1)
	state, dir := smallDisk(t, 0, "size=1m"), t.TempDir()
	onDisk, inFile := newSeenEvents(address), newSeenEvents(address)
	onDisk.healthy.Store(true)
	server := httptest.NewServer(onDisk)
	defer server.Close()
	path, file := filepath.Join(dir, "events.jsonl"), filepath.Join(dir, "sockwatch.toml")
	text := fmt.Sprintf(`
[agent]
  interval = "200ms"
  hostname = "h"
  state_directory = %q
[[inputs.tcp_listen]]
  settle = "1s"
  timeout = "20s"
  namepass = ["tcp_listen_event", "tcp_listen"]
[[outputs.influxdb]]
  urls = [%q]
  database = "db"
  buffer = "disk"
  flush_interval = "0s"
[[outputs.file]]
  path = %q
  namepass = ["tcp_listen_event"]
`, state, server.URL, path)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var followers sync.WaitGroup
	followers.Go(func() { inFile.follow(path, done) })
	defer followers.Wait()
	defer close(done)
	d := start(t, "sockwatch", nil, "run", "--config", file)
	eventually(t, "a history", func() bool {
		_, err := os.Stat(filepath.Join(state, "tcp_listen.history.jsonl"))
		return err == nil
	})
	reported := func(o *seenEvents, name string, p *testedPort) {
		t.Helper()
		eventually(t, fmt.Sprintf("%v at port %s %s", p.want, p.number, name), func() bool { return slices.Equal(o.at(p.number), p.want) })
	}
	first, second := &testedPort{number: fmt.Sprint(port)}, &testedPort{number: fmt.Sprint(port + 1)}
	first.change(t, address)
	reported(onDisk, "with a queue on disk", first)
	reported(inFile, "to a file", first)

	filler := fill(t, state)
	// The pages of the files have room for some events.
	for range 10 {
		second.change(t, address)
		reported(inFile, "to a file", second)
		if strings.Contains(d.stderr.String(), "cannot write the history") && len(second.want)%2 == 1 {
			break
		}
	}
	if !strings.Contains(d.stderr.String(), "cannot write the history") {
		t.Error("the disk was not full")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	reported(onDisk, "with a queue on disk", second)
	eventually(t, "a history that is written again", func() bool { return strings.Contains(d.stderr.String(), "writing the history resumed") })
	d.Process.Kill()
	<-d.exited
	first.change(t, address)
	d = start(t, "sockwatch", nil, "run", "--config", file)
	for _, p := range []*testedPort{first, second} {
		reported(onDisk, "with a queue on disk", p)
		reported(inFile, "to a file", p)
	}
	for _, o := range []*seenEvents{onDisk, inFile} {
		for _, fault := range o.takeFaults() {
			t.Error(fault)
		}
	}
}

// TestEventsFromBeforeAKillAreShown: endpoints of the next run have the last 2,000 events, each
// once, in their order, and equal to those that were published.
func TestEventsFromBeforeAKillAreShown(t *testing.T) {
	if testing.Short() {
		t.Skip("needs thousands of listeners")
	}
	t.Parallel()
	h := newNetHost(t)
	const perCycle = 600
	state, dir := fastDir(t), t.TempDir()
	shown := filepath.Join(dir, "shown")
	file := writeFile(t, dir, "sockwatch.toml", fmt.Sprintf(`
[agent]
  interval = "200ms"
  omit_hostname = true
  state_directory = %q
[[inputs.tcp_listen]]
  settle = "0s"
  timeout = "20s"
[[outputs.event_page]]
  path = %q
`, state, shown))
	events := func() []metric.Point {
		events, err := tcplisten.RecentChanges(state, "tcp_listen")
		if err != nil {
			return nil // not written yet
		}
		return events
	}
	p := h.start("sockwatch", "daemon", nil, file)
	eventually(t, "a history", func() bool {
		_, err := os.Stat(filepath.Join(state, "tcp_listen.history.jsonl"))
		return err == nil
	})
	for cycle := range 2 {
		var addresses []string
		ports := map[string]bool{}
		for i := range perCycle {
			port := fmt.Sprint(20000 + cycle*perCycle + i)
			ports[port] = true
			addresses = append(addresses, "tcp/127.0.0.1:"+port)
		}
		all := func(kind string) func() bool { // a listener may be reported after one that changed later
			return func() bool {
				n := 0
				for _, e := range events() {
					if e.Tag("event") == kind && ports[e.Tag("port")] {
						n++
					}
				}
				return n == perCycle
			}
		}
		service := h.serve("web", 0, addresses...)
		eventually(t, "each listener opened", all("opened"))
		service.stdin.Close()
		eventually(t, "each listener closed", all("closed"))
	}
	p.Process.Kill()
	<-p.exited
	want := events()
	if len(want) < plugin.MaxEvents {
		t.Fatalf("%d events in the history", len(want))
	}
	want = want[len(want)-plugin.MaxEvents:]
	if err := os.Remove(shown); err != nil {
		t.Fatal(err)
	}
	h.start("sockwatch", "daemon", nil, file)
	eventually(t, "the events after the first gather", func() bool {
		_, err := os.Stat(shown)
		return err == nil
	})
	got, err := os.ReadFile(shown)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(eventLines(want), string(got)); diff != "" {
		t.Errorf("events (-of the history +shown):\n%s", diff)
	}
}
