//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sockwatch/agent"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/servertest"
)

var (
	fleetHosts    = flag.Int("fleet.hosts", 0, "hosts of TestFleetAgainstARealServer; 0 skips it")
	fleetOutage   = flag.Duration("fleet.outage", 10*time.Minute, "how long its server is down")
	fleetInterval = flag.Duration("fleet.interval", 10*time.Second, "how often its hosts gather and flush")
	fleetMinimum  = flag.Duration("fleet.min_interval", 0, "min_interval of its output")
	fleetOptions  = flag.String("fleet.options", "", "TOML lines of its output, for example 'namepass = [\"tcp_listen\"]'")
)

// Many agents push to one VictoriaMetrics, in real time. docs/fleet.md shows the figures
// that this prints, and what they mean.
//
// Each host is an agent with the real schedule, encoder, queue on disk and client. Only the
// input is another one: it has the points of a host with 5 to 200 listeners.
func TestFleetAgainstARealServer(t *testing.T) {
	if *fleetHosts == 0 {
		t.Skip("takes three quarters of an hour; -fleet.hosts 300 runs it")
	}
	interval, outage := *fleetInterval, *fleetOutage
	server := servertest.VictoriaMetrics(t)
	f := startRealFleet(t, server.URL)
	m := startMeter(t, server.URL)
	period := max(interval, *fleetMinimum)
	f.awaitGathers(3)
	time.Sleep(period)

	usual := m.during(func() { time.Sleep(12 * period) })
	t.Logf("usual load, on average: %v", usual.mean)
	t.Logf("usual load, at most:    %v", usual.peak)
	t.Logf("the server uses %.0f MiB and %.2f CPU seconds per second; the %d agents %.2f", usual.memory/(1<<20), usual.serverCPU, *fleetHosts, usual.ownCPU)

	server.Shutdown()
	time.Sleep(outage)
	server.Start()
	after := m.during(func() { time.Sleep(2*outage + 2*time.Minute + 2*period) })
	t.Logf("after an outage of %v: %v, in the end %v", outage, after.peak, after.last)

	server.Shutdown()
	server.Start()
	restart := m.during(func() { time.Sleep(12 * period) })
	t.Logf("after a restart: %v", restart.peak)

	f.changing.Store(true)
	changing := m.during(func() { time.Sleep(12 * period) })
	f.changing.Store(false)
	t.Logf("while 5 %% of the hosts change: %v, %v on average", changing.peak, changing.mean)

	for _, phase := range []phase{after, restart, changing} {
		if phase.peak.requests >= 2*usual.mean.requests || phase.peak.bytes >= 2*usual.mean.bytes || phase.peak.samples >= 2*usual.mean.samples {
			t.Errorf("the load has doubled: %v, usually %v", phase.peak, usual.mean)
		}
	}
	f.stop()
	samples := f.checkStored(server.URL)
	t.Logf("the server has %.0f MB on disk: %.2f bytes per sample", changing.disk/1e6, changing.disk/float64(samples))
}

// What one snapshot of a host costs, with some options: the other figures of docs/fleet.md
// follow from it.
func TestFleetSnapshotCost(t *testing.T) {
	if *fleetHosts == 0 {
		t.Skip("-fleet.hosts 100 runs it")
	}
	server := servertest.VictoriaMetrics(t)
	m := startMeter(t, server.URL)
	for _, tt := range []struct{ name, options string }{
		{name: "every field"},
		{name: "every field, once more"}, // the server knows the series
		{name: "three fields", options: `fieldinclude = ["sockets", "backlog", "backlog_limit"]`},
	} {
		listeners := 0
		time.Sleep(2 * time.Second) // the server's page is late
		before := m.read()
		for i := range *fleetHosts {
			h := newFleetHost(&realFleet{}, i)
			listeners += len(h.points)
			if err := h.agent(t, server.URL, "", tt.options).Once(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		after := m.read()
		n := float64(*fleetHosts)
		t.Logf("%s: %.0f samples and %.0f bytes per snapshot of a host with %.1f listeners; %.1f ms of the server's CPU time", tt.name,
			(after.counts.samples-before.counts.samples)/n, (after.counts.bytes-before.counts.bytes)/n, float64(listeners)/n, 1000*(after.serverCPU-before.serverCPU)/n)
	}
}

// A realFleet is agents that run.
type realFleet struct {
	t        *testing.T
	hosts    []*fleetHost
	changing atomic.Bool
	cancel   context.CancelFunc
	ended    sync.WaitGroup
}

func startRealFleet(t *testing.T, server string) *realFleet {
	ctx, cancel := context.WithCancel(t.Context())
	f := &realFleet{t: t, cancel: cancel}
	state := t.TempDir()
	for i := range *fleetHosts {
		h := newFleetHost(f, i)
		a := h.agent(t, server, fmt.Sprintf("state_directory = %q", state+"/"+h.name), fmt.Sprintf("min_interval = %q\n%s", fleetMinimum, *fleetOptions))
		f.hosts = append(f.hosts, h)
		f.ended.Go(func() {
			if err := a.Run(ctx, nil, func() (*agent.Agent, error) { panic("no reload") }, nil); err != nil {
				t.Errorf("%s: %v", h.name, err)
			}
		})
	}
	t.Cleanup(f.stop)
	return f
}

// awaitGathers waits until every host has gathered n times.
func (f *realFleet) awaitGathers(n int64) {
	f.t.Helper()
	for _, h := range f.hosts {
		for deadline := time.Now().Add(5 * time.Minute); h.gathers.Load() < n; time.Sleep(*fleetInterval / 10) {
			if time.Now().After(deadline) {
				f.t.Fatalf("%s has gathered %d times", h.name, h.gathers.Load())
			}
		}
	}
}

// stop stops the agents, which deliver what is queued.
func (f *realFleet) stop() {
	f.cancel()
	f.ended.Wait()
}

// checkStored compares what the server has with what the hosts have gathered. It
// returns the number of samples.
func (f *realFleet) checkStored(server string) int {
	f.t.Helper()
	eventually(f.t, "every batch of every host", func() bool {
		stored := storedTimes(f.t, server, `tcp_listen_sockets{port="22"}`)
		return !slices.ContainsFunc(f.hosts, func(h *fleetHost) bool { return !h.complete(stored[h.name]) })
	})
	gathers, samples := 0, 0
	for _, h := range f.hosts {
		gathers += len(h.times)
		samples += h.samples
	}
	var count int
	eventually(f.t, "every sample", func() bool {
		count = countSamples(f.t, server)
		return count >= samples || *fleetMinimum > 0
	})
	f.t.Logf("%d hosts gathered %d times: %d samples, the server has %d", len(f.hosts), gathers, samples, count)
	return count
}

// countSamples returns how many samples of listeners the server has.
func countSamples(t *testing.T, server string) (count int) {
	t.Helper()
	query := url.Values{"query": {`sum(count_over_time({__name__=~"tcp_listen_(sockets|processes|pid|backlog|backlog_limit|uid|first_seen_time_seconds|process_start_time_seconds|exe_deleted)"}[1d]))`}}
	fetch(t, http.MethodGet, server+"/api/v1/query?"+query.Encode(), func(body io.Reader) error {
		var answer struct {
			Data struct{ Result []struct{ Value [2]any } }
		}
		if err := json.NewDecoder(body).Decode(&answer); err != nil {
			return err
		}
		var err error
		count, err = strconv.Atoi(answer.Data.Result[0].Value[1].(string))
		return err
	})
	return count
}

// storedTimes returns the times of the samples that match a selector, in Unix milliseconds, by
// host.
func storedTimes(t *testing.T, server, selector string) map[string]map[int64]bool {
	t.Helper()
	fetch(t, http.MethodGet, server+"/internal/force_flush", nil)
	stored := map[string]map[int64]bool{}
	query := url.Values{"match[]": {selector}, "format": {"host,__timestamp__:unix_ms,__value__"}, "reduce_mem_usage": {"1"}}
	fetch(t, http.MethodGet, server+"/api/v1/export/csv?"+query.Encode(), func(body io.Reader) error {
		for lines := bufio.NewScanner(body); ; {
			if !lines.Scan() {
				return lines.Err()
			}
			sample := strings.Split(lines.Text(), ",")
			at, err := strconv.ParseInt(sample[1], 10, 64)
			if err != nil {
				return err
			}
			if sample[2] == "NaN" { // a gather was late, and its series ended
				continue
			}
			if stored[sample[0]] == nil {
				stored[sample[0]] = map[int64]bool{}
			}
			stored[sample[0]][at] = true
		}
	})
	return stored
}

// A fleetHost is the input of one host.
type fleetHost struct {
	fleet   *realFleet
	name    string
	changes bool // one of the 5 %
	random  *rand.Rand
	points  []metric.Point

	gathers atomic.Int64
	times   []int64 // of all gathers, in Unix milliseconds
	samples int     // numeric fields of all gathers
}

func newFleetHost(f *realFleet, i int) *fleetHost {
	h := &fleetHost{fleet: f, name: fmt.Sprintf("web-%05d", i), changes: i%20 == 0, random: rand.New(rand.NewPCG(uint64(i), 0))}
	ports := h.random.Perm(60_000)[:4+h.random.IntN(196)]
	slices.Sort(ports)
	h.points = append(h.points, h.listener(22, "sshd"))
	for _, port := range ports {
		h.points = append(h.points, h.listener(1024+port, fmt.Sprintf("service%d", h.random.IntN(40))))
	}
	return h
}

// agent returns an agent with this input, and an output for a server.
func (h *fleetHost) agent(t *testing.T, server, agentOptions, outputOptions string) *agent.Agent {
	t.Helper()
	a := loadText(t, fmt.Sprintf(`
[agent]
  interval = %q
  hostname = %q
  shutdown_timeout = "1m"
%s
[[inputs.tcp_listen]]
[[outputs.remote_write]]
  urls = ["%s/api/v1/write"]
  protocol_version = "1.0"
  flush_interval = %[1]q
%[5]s
`, fleetInterval, h.name, agentOptions, server, outputOptions))
	a.Inputs[0].Input = h
	a.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	return a
}

// listener returns a point as tcp_listen has it.
func (h *fleetHost) listener(port int, process string) metric.Point {
	pid := int64(1000 + h.random.IntN(1<<20))
	started := float64(time.Now().Unix()-int64(h.random.IntN(1e6))) + 0.42
	return metric.Point{
		Name: "tcp_listen",
		Tags: metric.NewTags("address", "0.0.0.0", "exposure", "private", "family", "ipv4", "host", h.name, "owner", "resolved",
			"port", fmt.Sprint(port), "process", process, "unit", process+".service", "user", process),
		Fields: []metric.Field{
			{Key: "sockets", Value: metric.Int(1)},
			{Key: "processes", Value: metric.Int(int64(1 + h.random.IntN(8)))},
			{Key: "pid", Value: metric.Int(pid)},
			{Key: "backlog", Value: metric.Int(0)},
			{Key: "backlog_limit", Value: metric.Int(511)},
			{Key: "uid", Value: metric.Int(int64(h.random.IntN(1000)))},
			{Key: "first_seen_time_seconds", Value: metric.Float(started + 1)},
			{Key: "process_start_time_seconds", Value: metric.Float(started)},
			{Key: "exe", Value: metric.String("/usr/sbin/" + process)},
			{Key: "exe_deleted", Value: metric.Bool(false)},
		},
	}
}

// Gather returns a batch in which a few accept queues have changed, and if the host changes
// one listener has closed and another one opened.
func (h *fleetHost) Gather(context.Context) (metric.Batch, error) {
	points := slices.Clone(h.points)
	for range len(points)/20 + 1 {
		p := &points[h.random.IntN(len(points))]
		p.Fields = slices.Clone(p.Fields)
		p.Fields[3].Value = metric.Int(int64(h.random.IntN(20)))
	}
	if last := len(points) - 1; h.changes && h.fleet.changing.Load() {
		points[last] = h.listener(61_024+h.random.IntN(4000), "job")
	}
	h.points = points
	b := metric.Batch{Time: time.Now(), Points: points}
	h.gathers.Add(1)
	h.times = append(h.times, b.Time.UnixMilli())
	h.samples += 9 * len(points)
	return b, nil
}

// complete reports whether the times of all gathers have been stored. With min_interval, whether
// never more than one such interval is missing.
func (h *fleetHost) complete(stored map[int64]bool) bool {
	if *fleetMinimum == 0 {
		return !slices.ContainsFunc(h.times, func(at int64) bool { return !stored[at] })
	}
	last := h.times[0]
	for _, at := range h.times {
		if stored[at] {
			last = at
		}
		if time.Duration(at-last)*time.Millisecond > *fleetMinimum+*fleetInterval/2 {
			return false
		}
	}
	return true
}

// The points of the fleet's hosts have the tags and fields of tcp_listen.
func TestFleetHostsHaveDocumentedPoints(t *testing.T) {
	p := newFleetHost(nil, 1).listener(22, "sshd")
	for _, f := range p.Fields {
		if !documented(p.Name, f.Key) {
			t.Errorf("tcp_listen has no field %s", f.Key)
		}
	}
	keys := plugins()[0].Tags
	for _, tag := range p.Tags {
		if !slices.Contains(keys, tag.Key) {
			t.Errorf("tcp_listen has no tag %s", tag.Key)
		}
	}
}

// A rate is what the server gets in a second.
type rate struct{ requests, bytes, samples float64 }

func (r rate) String() string {
	return fmt.Sprintf("%.1f requests, %.1f kB and %.0f samples per second", r.requests, r.bytes/1000, r.samples)
}

// A meter reads the server's own counters.
type meter struct {
	t   *testing.T
	url string
}

type reading struct {
	at           time.Time
	counts       rate // since the start of the server
	memory, disk float64
	serverCPU    float64
}

func startMeter(t *testing.T, server string) *meter { return &meter{t: t, url: server + "/metrics"} }

// A phase is the load of a while. Its peak is the highest of any interval, or of any 10 s if
// the interval is shorter.
type phase struct {
	mean, peak, last  rate
	memory, disk      float64 // of the server, in bytes
	serverCPU, ownCPU float64
}

// during measures the load while f runs.
func (m *meter) during(f func()) (p phase) {
	m.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	readings, cpu := []reading{m.read()}, ownCPU()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		case <-time.After(*fleetInterval / 10):
		}
		readings = append(readings, m.read())
	}
	first, last := readings[0], readings[len(readings)-1]
	p.mean = last.since(first)
	for i, r := range readings {
		j := slices.IndexFunc(readings[i:], func(s reading) bool { return s.at.Sub(r.at) >= max(*fleetInterval, 10*time.Second) })
		if j < 0 {
			break
		}
		p.last = readings[i+j].since(r)
		p.peak = rate{max(p.peak.requests, p.last.requests), max(p.peak.bytes, p.last.bytes), max(p.peak.samples, p.last.samples)}
	}
	seconds := last.at.Sub(first.at).Seconds()
	p.memory, p.disk, p.serverCPU, p.ownCPU = last.memory, last.disk, (last.serverCPU-first.serverCPU)/seconds, (ownCPU()-cpu)/seconds
	return p
}

func (r reading) since(earlier reading) rate {
	seconds := r.at.Sub(earlier.at).Seconds()
	return rate{
		(r.counts.requests - earlier.counts.requests) / seconds,
		(r.counts.bytes - earlier.counts.bytes) / seconds,
		(r.counts.samples - earlier.counts.samples) / seconds,
	}
}

var counter = regexp.MustCompile(`(?m)^(\w+)(\{.*\})? (\S+)$`)

func (m *meter) read() reading {
	m.t.Helper()
	r := reading{at: time.Now()}
	fetch(m.t, http.MethodGet, m.url, func(body io.Reader) error {
		page, err := io.ReadAll(body)
		for _, c := range counter.FindAllStringSubmatch(string(page), -1) {
			value, _ := strconv.ParseFloat(c[3], 64)
			switch {
			case c[1] == "vm_http_requests_total" && strings.Contains(c[2], "write\""):
				r.counts.requests += value
			case c[1] == "vm_tcplistener_read_bytes_total":
				r.counts.bytes += value
			case c[1] == "vm_rows_inserted_total":
				r.counts.samples += value
			case c[1] == "process_resident_memory_anon_bytes":
				r.memory = value
			case c[1] == "vm_data_size_bytes":
				r.disk += value
			case c[1] == "process_cpu_seconds_total":
				r.serverCPU = value
			}
		}
		return err
	})
	return r
}

// ownCPU returns the CPU seconds that this process has used.
func ownCPU() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
