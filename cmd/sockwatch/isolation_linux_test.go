package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sockwatch/agent/plugin/plugintest/servertest"
)

// delays holds how long after its gather each point arrived somewhere.
type delays struct {
	mu   sync.Mutex
	seen int
	most time.Duration
}

func (d *delays) add(gathered, arrived time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen++
	d.most = max(d.most, arrived.Sub(gathered))
}

func (d *delays) get() (seen int, most time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen, d.most
}

// readDelays reads JSON lines from a FIFO until nobody writes any more.
func readDelays(t *testing.T, fifo string) *delays {
	t.Helper()
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(fifo, os.O_RDWR, 0) // so that opening does not wait
	if err != nil {
		t.Fatal(err)
	}
	d, done := &delays{}, make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(f); lines.Scan(); {
			var point struct{ Timestamp time.Time }
			if json.Unmarshal(lines.Bytes(), &point) == nil {
				d.add(point.Timestamp, time.Now())
			}
		}
	}()
	t.Cleanup(func() {
		f.Close()
		<-done
	})
	return d
}

// One output hangs, one has a server that refuses connections, one has a full disk,
// and one has a reader that has stopped reading. The others deliver within an
// interval. The page shows the state of each.
func TestFourSickOutputsDelayNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for three intervals of two seconds")
	}
	t.Parallel()
	hanging, fine := newSink(t), newSink(t)
	hanging.answers(hang)
	dir := t.TempDir()
	written := readDelays(t, filepath.Join(dir, "fine"))
	stuck := filepath.Join(dir, "stuck")
	if err := syscall.Mkfifo(stuck, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(stuck, os.O_RDWR, 0) // it never reads
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	const interval = 2 * time.Second
	address := servertest.FreeAddress(t)
	d := startDaemon(t, fmt.Sprintf(`
[agent]
  interval = %q
  hostname = "h"
  log_level = "debug"
  log_format = "json"
  state_directory = %q
  shutdown_timeout = "1s"
[[inputs.serial]]
[[outputs.influxdb]]
  alias = "hanging"
  urls = [%q]
  database = "db"
  timeout = "1s"
  flush_interval = "0s"
[[outputs.influxdb]]
  alias = "refused"
  urls = ["http://127.0.0.1:1"]
  database = "db"
  flush_interval = "0s"
[[outputs.file]]
  alias = "full"
  path = "/dev/full"
[[outputs.file]]
  alias = "stuck"
  path = %q
  timeout = "1s"
[[outputs.file]]
  alias = "fine"
  path = %q
  namepass = ["ids"]
[[outputs.influxdb]]
  alias = "fine"
  urls = [%q]
  database = "db"
  flush_interval = "0s"
  namepass = ["ids"]
[[outputs.prometheus]]
  listen = %q
`, interval.String(), fastDir(t), hanging.URL, stuck, filepath.Join(dir, "fine"), fine.URL, address))

	eventually(t, "three gathers delivered by the healthy outputs", func() bool {
		seen, _ := written.get()
		return seen >= 3*idsPerBatch && len(fine.missing(d.queued("outputs.influxdb-fine"))) == 0 && len(d.queued("outputs.influxdb-fine")) >= 3*idsPerBatch
	})
	posted := &delays{}
	fine.mu.Lock()
	for id, arrived := range fine.arrived {
		at, _, _ := strings.Cut(id, "-")
		gathered, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			t.Error(err)
		}
		posted.add(time.Unix(0, gathered), arrived)
	}
	fine.mu.Unlock()
	for name, delays := range map[string]*delays{"file": written, "influxdb": posted} {
		seen, most := delays.get()
		t.Logf("%s: %d points, the slowest %v after its gather; the interval is %v", name, seen, most, interval)
		if most >= interval {
			t.Errorf("%s: a point arrived %v after its gather", name, most)
		}
	}

	text := ""
	eventually(t, "a page that shows it", func() bool {
		text = page(address)
		for _, sick := range []string{"influxdb-hanging", "influxdb-refused", "file-full", "file-stuck"} {
			if gauge(text, "sockwatch_output_up", sick) != 0 {
				return false
			}
		}
		return gauge(text, "sockwatch_output_written_points_total", "influxdb-fine") >= 3*idsPerBatch
	})
	for _, o := range []struct {
		name    string
		healthy bool
	}{{"influxdb-hanging", false}, {"influxdb-refused", false}, {"file-full", false}, {"file-stuck", false}, {"influxdb-fine", true}, {"file-fine", true}} {
		queue := []string{"queue_points", "queue_bytes", "oldest_queued_seconds", "write_errors_total", "retried_points_total"}
		for _, name := range queue {
			if v := gauge(text, "sockwatch_output_"+name, o.name); o.healthy && v < 0 || !o.healthy && v <= 0 {
				t.Errorf("%s of %s is %v", name, o.name, v)
			}
		}
		for name, want := range map[string]float64{"rejected_points_total": 0, "dropped_points_total": 0, "panics_total": 0} {
			if v := gauge(text, "sockwatch_output_"+name, o.name); v != want {
				t.Errorf("%s of %s is %v, want %v", name, o.name, v, want)
			}
		}
		if v := gauge(text, "sockwatch_output_written_points_total", o.name); o.healthy && v < 3*idsPerBatch || v < 0 {
			t.Errorf("written_points_total of %s is %v", o.name, v)
		}
		if v := gauge(text, "sockwatch_output_up", o.name); o.healthy != (v == 1) {
			t.Errorf("up of %s is %v", o.name, v)
		}
	}
	if gauge(text, "sockwatch_output_up", "prometheus") != 1 || gauge(text, "sockwatch_output_queue_points", "prometheus") != -1 {
		t.Error("the endpoint is down, or has a queue")
	}
	d.stop(t)
}

// When the reader of stdout is gone, that output is down and logs it; the program
// and all other outputs continue.
func TestReaderOfStdoutGone(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	address := servertest.FreeAddress(t)
	c := delivery{state: t.TempDir(), url: s.URL, more: "[[outputs.stdout]]\n[[outputs.prometheus]]\n  listen = \"" + address + "\"\n"}
	reader, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	file := writeFile(t, t.TempDir(), "sockwatch.toml", c.String())
	d := &daemon{startWith(t, "daemon", nil, stdout, file), file}
	line, err := bufio.NewReader(reader).ReadString('\n')
	if err != nil || !json.Valid([]byte(line)) {
		t.Errorf("read %q, %v", line, err)
	}
	reader.Close()
	d.awaitLog(t, "the reader of standard output is gone")
	eventually(t, "the output down", func() bool { return gauge(page(address), "sockwatch_output_up", "stdout") == 0 })
	d.awaitQueued(t, 3*idsPerBatch)
	d.stop(t)
	s.demand(t, d.queued("outputs.influxdb"))
}
