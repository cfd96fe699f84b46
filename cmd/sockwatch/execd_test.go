package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"github.com/influxdata/line-protocol/v2/lineprotocol"

	"sockwatch/agent"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/servertest"
)

// decodeTimes checks that text has only tcp_listen points in line protocol, and returns
// their times, each once.
func decodeTimes(t *testing.T, text string) []time.Time {
	t.Helper()
	if text != "" && !strings.HasSuffix(text, "\n") {
		t.Errorf("the last line is not whole: %q", text)
	}
	var times []time.Time
	d := lineprotocol.NewDecoderWithBytes([]byte(text))
	for d.Next() {
		name, err := d.Measurement()
		if err != nil {
			t.Fatal(err)
		}
		switch string(name) {
		case "tcp_listen", "tcp_listen_events", "tcp_listen_history", "tcp_listen_source":
		case "tcp_listen_event": // has its own time
			continue
		default:
			t.Errorf("a point %s", name)
		}
		at, err := d.Time(lineprotocol.Nanosecond, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if len(times) == 0 || !times[len(times)-1].Equal(at) {
			times = append(times, at)
		}
	}
	return times
}

// telegrafLog matches a log in which every line has a level that Telegraf knows.
var telegrafLog = regexp.MustCompile(`^([EWID]! .+\n)*$`)

// This does what Telegraf does: it writes a newline at each interval, reads points, and
// closes standard input to stop the program.
func TestExecdGathersAtEachNewline(t *testing.T) {
	t.Parallel()
	start(t, "listener", nil)
	p := start(t, "sockwatch", nil, "execd")
	stdin := p.stdin.(io.Writer)
	const ready = `I! gathering at each newline on standard input inputs=inputs.tcp_listen config="built-in configuration"` + "\n"
	eventually(t, "its first line", func() bool { return strings.Contains(p.stderr.String(), ready) })
	if text := p.stdout.String(); text != "" {
		t.Errorf("it gathers unasked: %q", text)
	}
	for gather := 1; gather <= 3; gather++ {
		io.WriteString(stdin, "\n")
		eventually(t, fmt.Sprintf("gather %d", gather), func() bool {
			return len(decodeTimes(t, wholeLines(p.stdout.String()))) == gather
		})
	}
	p.stdin.Close()
	if code := p.exitCode(t); code != 0 {
		t.Errorf("exit code %d at the end of standard input", code)
	}
	text := p.stdout.String()
	if n := len(decodeTimes(t, text)); n != 3 || strings.Contains(text, "host=") {
		t.Errorf("%d gathers:\n%s", n, text)
	}
	if !telegrafLog.MatchString(p.stderr.String()) {
		t.Errorf("a line without a level in:\n%s", p.stderr)
	}
}

func wholeLines(text string) string { return text[:strings.LastIndexByte(text, '\n')+1] }

// execd runs execd on a standard input.
func execd(stdin string, args ...string) result {
	var stdout, stderr strings.Builder
	p := &program{
		plugins: plugins(), getenv: func(string) (string, bool) { return "", false }, stdin: strings.NewReader(stdin),
		stdout: &dataWriter{Writer: &stdout}, stderr: &stderr, log: newLogSwitch(&stderr),
	}
	command, err := parse(append([]string{"execd"}, args...), &stdout, &stderr)
	if err != nil {
		return result{Code: exitUsage, Stderr: err.Error()}
	}
	code := p.execute(func() error { return command.Run(p) })
	return result{code, stdout.String(), stderr.String()}
}

func TestExecdGathersWhatWasAskedForBeforeTheEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	config := writeFile(t, t.TempDir(), "s.toml", "[agent]\nlog_level = \"error\"\n[[inputs.tcp_listen]]\n")
	for stdin, want := range map[string]int{"": 0, "no newline": 0, "\n": 1, "\n\n\n": 1, "what it says\ndoes not matter": 1} {
		r := execd(stdin, "--config", config)
		if n := len(decodeTimes(t, r.Stdout)); n != want || r.Code != 0 || r.Stderr != "" {
			t.Errorf("%q: %d gathers, want %d; exit code %d, %s", stdin, n, want, r.Code, r.Stderr)
		}
	}
}

func TestNewlinesDuringAGatherAreOneRequest(t *testing.T) {
	read, write := io.Pipe()
	inputs := []*execdInput{{requests: make(chan struct{}, 1)}, {requests: make(chan struct{}, 1)}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		requestEach(read, inputs)
	}()
	for range 5 { // a pipe passes each on before the next
		write.Write([]byte("\n"))
	}
	write.Close()
	<-done
	for i, in := range inputs {
		n := 0
		for range in.requests {
			n++
		}
		if n != 1 {
			t.Errorf("input %d: %d requests", i, n)
		}
	}
}

// Telegraf closes standard input and sends SIGTERM; in a container there may be only SIGTERM.
func TestExecdEndsAtSIGTERM(t *testing.T) {
	t.Parallel()
	p := start(t, "sockwatch", nil, "execd")
	eventually(t, "its first line", func() bool { return p.stderr.String() != "" })
	p.Process.Signal(syscall.SIGTERM)
	if code := p.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A Telegraf that does not read any more does not keep the program from ending.
func TestExecdEndsEvenIfNobodyReads(t *testing.T) {
	if testing.Short() {
		t.Skip("it ends after four seconds")
	}
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	config := writeFile(t, t.TempDir(), "s.toml", "[[inputs.tcp_listen]]\ntags = { long = \""+strings.Repeat("x", 1<<18)+"\" }\n")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command(exe, "execd", "--config", config)
	cmd.Env = append(os.Environ(), "SOCKWATCH_TEST_BE=sockwatch")
	log := &textBuffer{}
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	io.WriteString(stdin, "\n")
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil { // the rest does not fit in the pipe
		t.Fatal(err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Process.Wait() // not cmd.Wait, which closes stdout
	}()
	select {
	case <-ended:
	case <-time.After(waitLimit):
		t.Fatalf("it does not end; stderr: %s", log)
	}
	const want = "E! sockwatch: stopped while standard output accepts no more points\n"
	eventually(t, "the reason", func() bool { return strings.HasSuffix(log.String(), want) })
}

func TestExecdErrorsHaveALevel(t *testing.T) {
	dir := t.TempDir()
	bad := writeFile(t, dir, "bad.toml", "[[inputs.tcp_listen]]\nfoo = 1\n[[outputs.influxdb]]\ndatabase = \"d\"\nbar = 1\n")
	missing := filepath.Join(dir, "missing.toml")
	for _, test := range []struct{ config, want string }{
		{bad, "E! " + bad + ":2: inputs.tcp_listen: unknown option \"foo\"\nE! " + bad + ":5: outputs.influxdb: unknown option \"bar\"\n"},
		{missing, "E! sockwatch: open " + missing + ": no such file or directory\n"},
	} {
		if diff := cmp.Diff(result{1, "", test.want}, execd("\n", "--config", test.config)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.config, diff)
		}
	}
}

// A failed gather is logged each time, and the program keeps running.
func TestExecdGoesOnAfterAFailedGather(t *testing.T) {
	t.Parallel()
	config := writeFile(t, t.TempDir(), "s.toml", "[[inputs.tcp_listen]]\nbackend = \"procfs\"\nproc = \"/nonexistent\"\n")
	p := start(t, "sockwatch", nil, "execd", "--config", config)
	for n := 1; n <= 2; n++ {
		io.WriteString(p.stdin.(io.Writer), "\n")
		eventually(t, "the error", func() bool {
			return strings.Count(p.stderr.String(), `E! gather failed error="inputs.tcp_listen: `) == n
		})
	}
	p.stdin.Close()
	if code := p.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// Outputs and the state directory belong to another process, which may be running.
func TestExecdUsesTheInputsAlone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	const before = `{"version":1,"first_seen":{"of the process that runs":1}}`
	history := writeFile(t, state, "tcp_listen-a.first_seen.json", before)
	own := "port=" + strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
	config := writeFile(t, dir, "s.toml", `
[agent]
  hostname = "h"
  state_directory = "`+state+`"
[[inputs.tcp_listen]]
  alias = "a"
  name_prefix = "x_"
[[inputs.tcp_listen]]
  alias = "b"
  namedrop = ["*"]
[[outputs.prometheus]]
  listen = "`+taken.Addr().String()+`"
[[outputs.file]]
  path = "`+filepath.Join(dir, "out")+`"
`)
	p := start(t, "sockwatch", nil, "execd", "--config", config)
	for gathers := 1; gathers <= 3; gathers++ { // which forgets the listener in the file
		io.WriteString(p.stdin.(io.Writer), "\n")
		eventually(t, "the points", func() bool { return strings.Count(p.stdout.String(), ","+own+",") == gathers })
	}
	p.stdin.Close()
	if code := p.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if text := p.stdout.String(); !strings.HasPrefix(text, "x_tcp_listen,") || !strings.Contains(text, ",host=h,") {
		t.Errorf("stdout %s", text)
	}
	want := "I! ignoring the outputs of the configuration, points go to Telegraf outputs=2\n" +
		"I! gathering at each newline on standard input inputs=inputs.tcp_listen-a,inputs.tcp_listen-b config=" + config + "\n"
	if !strings.HasPrefix(p.stderr.String(), want) {
		t.Errorf("stderr %s", p.stderr)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "out")); found != nil {
		t.Errorf("it made %s", found)
	}
	if text := string(must(os.ReadFile(history))); text != before {
		t.Errorf("it changed %s: %s", history, text)
	}
}

// telegrafBlocks returns the blocks of docs/telegraf.md for Telegraf, with this test as the
// program that they start.
func telegrafBlocks(t *testing.T) []string {
	t.Helper()
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```toml telegraf\n(.*?)^```$").FindAllStringSubmatch(readFile(t, "docs/telegraf.md"), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) != 2 {
		t.Fatalf("%d blocks for Telegraf", len(blocks))
	}
	return blocks
}

// The command in the document gathers.
func TestDocumentedTelegrafConfigurations(t *testing.T) {
	own := regexp.MustCompile("(?ms)^```toml\n(.*?)^```$").FindStringSubmatch(readFile(t, "docs/telegraf.md"))
	config := writeFile(t, t.TempDir(), "sockwatch.toml", own[1])
	for _, block := range telegrafBlocks(t) {
		var telegraf struct {
			Inputs struct {
				Execd []struct {
					Command            []string
					Signal, DataFormat string
				}
			}
		}
		if err := toml.Unmarshal([]byte(strings.Replace(block, "data_format", "dataformat", 1)), &telegraf); err != nil {
			t.Fatal(err)
		}
		in := telegraf.Inputs.Execd[0]
		if in.Command[0] != "/usr/bin/sockwatch" || in.Command[1] != "execd" || in.Signal != "STDIN" || in.DataFormat != "influx" {
			t.Errorf("%+v", in)
		}
		args := in.Command[2:]
		for i, arg := range args {
			if arg == "/etc/telegraf/sockwatch.toml" {
				args[i] = config
			}
		}
		if r := execd("\n", args...); r.Code != 0 || r.Stdout == "" {
			t.Errorf("%q: exit code %d: %s", in.Command, r.Code, r.Stderr)
		}
	}
}

// The real Telegraf, with the configuration of the document, starts the program, collects
// points, understands the levels of its log, starts it again after kill -9, and stops
// it.
func TestInsideTelegraf(t *testing.T) {
	if testing.Short() {
		t.Skip("a real Telegraf")
	}
	t.Parallel()
	telegraf := servertest.Binary(t, "telegraf")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pidFile, out := filepath.Join(dir, "pid"), filepath.Join(dir, "out")
	program := writeFile(t, dir, "sockwatch", "#!/bin/sh\necho $$ >"+pidFile+"\nSOCKWATCH_TEST_BE=sockwatch SOCKWATCH_CONFIG= exec "+exe+" \"$@\"\n")
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	config := writeFile(t, dir, "telegraf.conf", `
[agent]
  interval = "200ms"
  flush_interval = "200ms"
  hostname = "of-telegraf"
`+strings.ReplaceAll(telegrafBlocks(t)[0], "/usr/bin/sockwatch", program)+`
  restart_delay = "100ms"
[[outputs.file]]
  files = ["`+out+`"]
`)
	var listeners []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		listeners = append(listeners, port)
	}
	log := &textBuffer{}
	cmd := exec.Command(telegraf, "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		if t.Failed() {
			t.Logf("telegraf's log:\n%s", log)
		}
	})
	points := func() int {
		text, _ := os.ReadFile(out)
		n := 0
		for line := range bytes.Lines(text) {
			if bytes.Contains(line, []byte("port="+listeners[0]+",")) && bytes.Contains(line, []byte("host=of-telegraf")) {
				n++
			}
		}
		return n
	}
	eventually(t, "points of several intervals", func() bool { return points() >= 3 })
	if !regexp.MustCompile(`(?m) I! \[inputs\.execd\] gathering at each newline`).MatchString(log.String()) {
		t.Errorf("the log of the program is not in Telegraf's, with its level")
	}

	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	fmt.Sscan(string(text), &pid)
	syscall.Kill(pid, syscall.SIGKILL)
	eventually(t, "a new process", func() bool {
		now, _ := os.ReadFile(pidFile)
		return len(now) > 0 && !bytes.Equal(now, text)
	})
	before := points()
	eventually(t, "points of the new process", func() bool { return points() >= before+2 })

	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("telegraf: %v", err)
		}
	case <-time.After(waitLimit):
		t.Fatal("telegraf does not stop")
	}
	if strings.Contains(log.String(), "Error in plugin: metric parse error") {
		t.Errorf("telegraf cannot parse what it gets")
	}
	fmt.Sscan(string(must(os.ReadFile(pidFile))), &pid)
	if err := syscall.Kill(pid, 0); err == nil {
		t.Errorf("the program has not ended with Telegraf")
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// A slowInput takes a while for each gather, even after ctx is done.
type slowInput time.Duration

func (s slowInput) Gather(context.Context) (metric.Batch, error) {
	time.Sleep(time.Duration(s))
	return metric.Batch{Time: time.Now(), Points: []metric.Point{{Name: "slow", Fields: fields("n", 1)}}}, nil
}

// After SIGTERM a gather in flight may end, and its points are written, within some seconds.
func TestGatherInFlightHasAGraceAtSIGTERM(t *testing.T) {
	tests := []struct {
		takes time.Duration
		want  string
		ends  time.Duration // after SIGTERM, which comes a second after the newline
	}{
		{takes: 3 * time.Second, want: "slow n=1i", ends: 2 * time.Second},
		{takes: time.Minute, want: "", ends: execdGrace},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			log := slog.New(slog.DiscardHandler)
			a := &agent.Agent{Log: log, Inputs: []*agent.Input{{
				Name: "slow", Input: slowInput(tt.takes), Options: agent.InputOptions{Timeout: plugin.Duration(time.Hour)},
			}}}
			gatherers, err := a.Gatherers()
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			p := &program{plugins: plugins(), getenv: os.LookupEnv, stdout: &dataWriter{Writer: &out}, log: newLogSwitch(io.Discard)}
			printer, err := p.newPointPrinter("influx")
			if err != nil {
				t.Fatal(err)
			}
			in := &execdInput{Gatherer: gatherers[0], printer: printer, out: &sync.Mutex{}, log: log, requests: make(chan struct{}, 1)}
			ctx, sigterm := context.WithCancel(t.Context())
			haltCtx, halt := haltAfter(ctx, execdGrace)
			defer halt()
			in.requests <- struct{}{}
			time.AfterFunc(time.Second, sigterm)
			began := time.Now()
			in.serve(ctx, haltCtx)
			if ends := time.Since(began) - time.Second; ends != tt.ends {
				t.Errorf("a gather of %v: ends %v after SIGTERM, want %v", tt.takes, ends, tt.ends)
			}
			if got, _, _ := strings.Cut(out.String(), "i "); strings.TrimSuffix(tt.want, "i") != got {
				t.Errorf("a gather of %v: printed %q", tt.takes, out.String())
			}
			time.Sleep(tt.takes) // until the abandoned gather has ended
		})
	}
}
