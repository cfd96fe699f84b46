package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// In every state, SIGTERM ends the program with exit code 0, well before a service
// manager would kill it. Points queued then are on disk, and the next start
// delivers them. (TestStopEndsInTimeInEveryState of the agent shows in fake time that
// shutdown_timeout is kept exactly.)
func TestSIGTERMInEveryState(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the program several times")
	}
	t.Parallel()
	tests := []struct {
		name  string
		input string
		bring func(t *testing.T, d *daemon, s *sink) // brings the program into the state
		rest  bool                                   // something stays queued
	}{
		{name: "idle", input: "interval = \"1h\"", bring: func(t *testing.T, d *daemon, s *sink) {
			s.demand(t, d.queued("outputs.influxdb"))
		}},
		{name: "gathering", input: "delay = \"700ms\"", bring: func(*testing.T, *daemon, *sink) {}},
		{name: "sending", bring: func(t *testing.T, d *daemon, s *sink) {
			began := make(chan struct{}, 1000)
			s.answers(func(w http.ResponseWriter, r *http.Request) {
				began <- struct{}{}
				time.Sleep(300 * time.Millisecond)
				hang(w, r)
			})
			<-began
		}, rest: true},
		{name: "output refuses", bring: func(t *testing.T, d *daemon, s *sink) {
			s.stop()
			d.awaitLog(t, "delivery failed, will retry") // refused, or reset if a request was in flight
		}, rest: true},
		{name: "output hangs", bring: func(t *testing.T, d *daemon, s *sink) {
			s.answers(hang)
			asked := s.asked()
			eventually(t, "a request that hangs", func() bool { return s.asked() > asked })
		}, rest: true},
		{name: "waiting as the output asked", bring: func(t *testing.T, d *daemon, s *sink) {
			s.answers(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", "3600")
				w.WriteHeader(http.StatusServiceUnavailable)
			})
			d.awaitLog(t, "retry after 10m0s")
		}, rest: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t)
			c := delivery{state: t.TempDir(), url: s.URL, input: tt.input, output: `timeout = "1h"`, shutdown: 3 * time.Second}
			if !tt.rest { // it ends when everything is delivered, however busy the machine is
				c.shutdown = waitLimit
			}
			d := startDaemon(t, c.String())
			d.awaitQueued(t, 1)
			tt.bring(t, d, s)
			if tt.rest {
				d.awaitQueued(t, 3*idsPerBatch)
			}
			d.stop(t)
			queued := d.queued("outputs.influxdb")
			if rest := len(s.missing(queued)); rest > 0 != tt.rest {
				t.Errorf("%d points of %d left", rest, len(queued))
			}
			if s.server == nil {
				s.start(t)
			}
			if tt.rest {
				c.demandAll(t, s, queued)
			}
		})
	}
}

// If something does not return at a stop, the program ends anyway, with exit code 1 and a
// message that names it. The next start delivers the points queued then.
func TestWatchdogEndsTheProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	s := newSink(t)
	c := delivery{state: t.TempDir(), url: s.URL, input: "alias = \"stuck\"\n  delay = \"1h\"", shutdown: time.Second}
	d := startDaemon(t, c.String()+"[[inputs.serial]]\n  alias = \"fine\"\n")
	d.awaitQueued(t, idsPerBatch)
	d.Process.Signal(syscall.SIGTERM)
	if code := d.exitCode(t); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if want := "sockwatch: not stopped within 1s, not returned: inputs.serial-stuck: Gather\n"; !strings.HasSuffix(d.stderr.String(), want) {
		t.Errorf("stderr does not end in %q", want)
	}
	c.input = ""
	c.demandAll(t, s, d.queued("outputs.influxdb"))
}

// A second SIGTERM ends the program at once: queued points are on disk all the same.
func TestSecondSIGTERMLosesNothing(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	s.answers(hang)
	c := delivery{state: t.TempDir(), url: s.URL, output: `timeout = "1h"`, shutdown: time.Hour}
	d := startDaemon(t, c.String())
	d.awaitQueued(t, 3*idsPerBatch)
	d.Process.Signal(syscall.SIGTERM)
	d.awaitLog(t, "stopping")
	d.Process.Signal(syscall.SIGTERM)
	d.exitCode(t)
	if status := d.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v, want by SIGTERM", d.ProcessState)
	}
	c.demandAll(t, s, d.queued("outputs.influxdb"))
}

// A hundred reloads in a row, each with another configuration of the output, while
// points flow: none is lost, none is out of order. (TestHundredReloadsLoseNothing of the
// agent shows in fake time that no gather is skipped or made twice.)
func TestHundredReloadsWhilePointsFlow(t *testing.T) {
	if testing.Short() {
		t.Skip("reloads a hundred times")
	}
	t.Parallel()
	s := newSink(t)
	c := delivery{state: t.TempDir(), url: s.URL}
	d := startDaemon(t, c.String())
	d.awaitQueued(t, 1)
	for i := range 100 {
		c.flush = time.Duration(100+i) * time.Millisecond
		if i%10 == 3 { // the output is removed, and added again
			d.reload(t, withoutInfluxdb(c))
		}
		d.reload(t, c.String())
	}
	d.awaitQueued(t, 3*idsPerBatch)
	d.stop(t)
	s.demand(t, d.queued("outputs.influxdb"))
	if s.again > 0 {
		t.Logf("%d points were under way when a reload came, and sent again", s.again)
	}
	if strings.Contains(d.stderr.String(), "points dropped") {
		t.Error("a reload held an output up until its inbox was full")
	}
}

// withoutInfluxdb is the configuration with another output instead.
func withoutInfluxdb(c delivery) string {
	text := c.String()
	return text[:strings.Index(text, "[[outputs.influxdb]]")] + "[[outputs.stdout]]\n  namepass = [\"nothing\"]\n" + c.more
}

// SIGHUP before the configuration is read, a hundred times: the program does not
// end, and reads it once or twice more.
func TestHangupWhileTheConfigurationIsRead(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	dir := t.TempDir()
	c := delivery{state: t.TempDir(), url: s.URL}
	file := filepath.Join(dir, "sockwatch.toml")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemonOn(t, file)
	opened := make(chan *os.File, 1)
	go func() {
		f, err := os.OpenFile(file, os.O_WRONLY, 0) // when the program reads
		if err != nil {
			t.Error(err)
		}
		opened <- f
	}()
	var f *os.File
	select {
	case f = <-opened:
	case <-d.exited:
		t.Fatal("the program ended")
	case <-time.After(waitLimit):
		t.Fatal("the program does not read its configuration")
	}
	for range 100 {
		d.Process.Signal(syscall.SIGHUP)
	}
	if err := os.Rename(writeFile(t, dir, "next.toml", c.String()), file); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(c.String()); err != nil {
		t.Fatal(err)
	}
	f.Close()
	d.awaitLog(t, `"msg":"reloaded"`)
	d.awaitQueued(t, 1)
	d.stop(t)
	s.demand(t, d.queued("outputs.influxdb"))
}

// A reload that removes an output with a backlog keeps the backlog and reports it. A reload
// that adds the output again delivers it, and so does a later start.
func TestRemovedOutputComesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for an output to recover")
	}
	t.Parallel()
	s := newSink(t)
	s.stop()
	c := delivery{state: t.TempDir(), url: s.URL}
	d := startDaemon(t, c.String())
	d.awaitQueued(t, 3*idsPerBatch)
	d.reload(t, withoutInfluxdb(c))
	d.awaitLog(t, `"msg":"undelivered points stay queued on disk","plugin":"outputs.influxdb"`)
	d.awaitLog(t, `"msg":"queue without an output, its points wait for an output of that name","queue":"`+c.spool()+`"`)
	before := d.queued("outputs.influxdb")
	s.start(t)
	d.reload(t, c.String())
	d.awaitQueued(t, idsPerBatch)
	s.demand(t, before)

	s.stop()
	d.awaitQueued(t, 3*idsPerBatch)
	d.reload(t, withoutInfluxdb(c))
	d.stop(t)
	s.start(t)
	c.demandAll(t, s, d.queued("outputs.influxdb"))
}

// A second instance with the same queue is refused, and does not disturb the
// first.
func TestSecondProgramIsRefused(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	c := delivery{state: t.TempDir(), url: s.URL}
	d := startDaemon(t, c.String())
	d.awaitQueued(t, 1)
	second := startDaemon(t, c.String())
	if code := second.exitCode(t); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	want := "sockwatch: outputs.influxdb: queue \"" + c.spool() + "\": in use by another sockwatch\n"
	if !strings.HasSuffix(second.stderr.String(), want) {
		t.Errorf("stderr %q does not end in %q", second.stderr, want)
	}
	d.awaitQueued(t, idsPerBatch)
	d.stop(t)
	s.demand(t, d.queued("outputs.influxdb"))
}

// `buffer = "auto"` is on disk if there is a state directory; else in memory,
// and one line of the log says what that means.
func TestAutoBuffer(t *testing.T) {
	t.Parallel()
	const line = `"msg":"queue is in memory, a restart loses undelivered points; set agent.state_directory to keep them","plugin":"outputs.influxdb"`
	for _, tt := range []struct {
		name  string
		state string
		lines int
	}{{"with a state directory", t.TempDir(), 0}, {"without", "", 1}} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSink(t)
			c := delivery{state: tt.state, url: s.URL, more: "[[outputs.stdout]]\n  namepass = [\"nothing\"]\n"}
			d := startDaemon(t, strings.Replace(c.String(), `buffer = "disk"`, `buffer = "auto"`, 1))
			d.awaitQueued(t, 1)
			d.stop(t)
			s.demand(t, d.queued("outputs.influxdb"))
			if n := strings.Count(d.stderr.String(), line); n != tt.lines {
				t.Errorf("%d times in the log, want %d: %s", n, tt.lines, line)
			}
			if strings.Contains(d.stderr.String(), `in memory, a restart loses undelivered points; set agent.state_directory to keep them","plugin":"outputs.stdout"`) {
				t.Error("the warning is about standard output, whose queue is always in memory")
			}
			segments, err := filepath.Glob(filepath.Join(tt.state, "influxdb", "*"))
			if err != nil || len(segments) > 0 != (tt.lines == 0) {
				t.Errorf("files %v, %v", segments, err)
			}
		})
	}
}
