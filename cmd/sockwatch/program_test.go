package main

import (
	"bufio"
	"cmp"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sockwatch"
	"sockwatch/agent/plugin/plugintest/schematest"
	"sockwatch/agent/plugin/plugintest/servertest"
)

// TestMain can make the test binary the program, or a process that listens.
func TestMain(m *testing.M) {
	switch os.Getenv("SOCKWATCH_TEST_BE") {
	case "sockwatch":
		main()
	case "daemon":
		os.Exit(runDaemon())
	case "listener":
		os.Exit(listenUntilEOF())
	case "service":
		os.Exit(serveUntilEOF())
	case "netns":
		os.Exit(holdNetns())
	case "unprivileged":
		dropPrivileges()
		main()
	case "in-netns":
		os.Exit(enterNetns())
	case "protected":
		os.Exit(printDumpable())
	case "raised":
		os.Exit(printRaised())
	default:
		flag.Set("test.parallel", "12") // the tests wait more than they compute; -parallel overrides it
		os.Exit(m.Run())
	}
}

// listenUntilEOF listens on a free port of 127.0.0.1, or at the address that a variable
// names, prints the port, and closes it at the end of its standard input.
func listenUntilEOF() int {
	address := cmp.Or(os.Getenv("SOCKWATCH_TEST_LISTEN"), "127.0.0.1:0")
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	io.Copy(io.Discard, os.Stdin)
	l.Close()
	time.Sleep(time.Hour) // the process stays: only its listener is gone
	return 0
}

// A process is a running copy of the test binary with another task.
type process struct {
	*exec.Cmd
	stdin  io.Closer
	stdout *textBuffer
	stderr *textBuffer
	exited chan struct{} // closed when it has ended
	err    error         // of Wait, then
}

// start runs the test binary with a task; it is killed at the end of the test.
func start(t *testing.T, what string, env []string, args ...string) *process {
	t.Helper()
	return startWith(t, what, env, &textBuffer{}, args...)
}

// startWith runs the test binary with a task, and a standard output that is a file or
// collects lines.
func startWith(t *testing.T, what string, env []string, stdout io.Writer, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return startProgram(t, exe, what, env, stdout, args...)
}

// startProgram is startWith of another path of the test binary.
func startProgram(t *testing.T, exe, what string, env []string, stdout io.Writer, args ...string) *process {
	t.Helper()
	var err error
	p := &process{Cmd: exec.Command(exe, args...), stderr: &textBuffer{}, exited: make(chan struct{})}
	p.stdout, _ = stdout.(*textBuffer)
	p.SysProcAttr = dieWithParent()
	p.Env = append(append(os.Environ(), "SOCKWATCH_TEST_BE="+what, "SOCKWATCH_CONFIG=", "STATE_DIRECTORY=", "NOTIFY_SOCKET=", "WATCHDOG_USEC="), env...)
	p.Stdout, p.Stderr = stdout, p.stderr
	if p.stdin, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.Process.Kill()
		<-p.exited
		if p.stdout != nil {
			schematest.Lines(t, p.stdout.String())
		}
		if t.Failed() {
			t.Logf("%s %q wrote on stderr:\n%s", what, args, p.stderr)
		}
	})
	return p
}

// exitCode waits for the end of the process.
func (p *process) exitCode(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(waitLimit):
		t.Fatal("the process does not end")
	}
	return p.ProcessState.ExitCode()
}

// A textBuffer collects what a process writes. Unlike bytes.Buffer it can be read meanwhile.
type textBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *textBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *textBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// waitLimit is how long a busy machine may take.
const waitLimit = time.Minute

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

// fastDir returns a temporary directory, in memory if it can: points are dropped, and events
// wait, if a disk is too busy to respond.
func fastDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sockwatch")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// page returns an endpoint's page, or "" if it does not serve one.
func page(address string) string {
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

// exampleOn returns the example with its endpoint at an address and an interval of
// 200 ms.
func exampleOn(address string) string {
	text := strings.Replace(sockwatch.ExampleConfig, "[[outputs.prometheus]]\n", "[[outputs.prometheus]]\n  listen = \""+address+"\"\n", 1)
	text = strings.Replace(text, "[[inputs.tcp_listen]]\n", "[[inputs.tcp_listen]]\n  timeout = \"10s\"\n", 1)
	return strings.Replace(text, "[agent]\n", "[agent]\n  interval = \"200ms\"\n", 1)
}

// startOnExample starts the program with the example, its endpoint at the address
// that is returned, and waits for its first page.
func startOnExample(t *testing.T, env ...string) (p *process, address, path string) {
	t.Helper()
	address = servertest.FreeAddress(t)
	path = writeFile(t, t.TempDir(), "sockwatch.toml", exampleOn(address))
	p = start(t, "sockwatch", env, "--config", path)
	eventually(t, "the first page", func() bool { return page(address) != "" })
	return p, address, path
}

// The program with its built-in configuration (on its own port) shows a listener that
// another process opens, on the page and in the log, and stops showing it
// when it is closed.
func TestProgramShowsWhatListens(t *testing.T) {
	p, address, _ := startOnExample(t)
	other := start(t, "listener", nil)
	eventually(t, "the other process's port", func() bool { return strings.HasSuffix(other.stdout.String(), "\n") })
	port := strings.TrimSpace(other.stdout.String())

	series := `address="127.0.0.1",exposure="loopback",family="ipv4",`
	shown := func() (listener, exporter bool) {
		for line := range strings.Lines(page(address)) {
			listener = listener || strings.HasPrefix(line, "tcp_listen_sockets{") && strings.Contains(line, series) && strings.Contains(line, `port="`+port+`"`)
			exporter = exporter || strings.HasPrefix(line, "custom_port_exporter{") &&
				strings.Contains(line, fmt.Sprintf(`pid="%d",port="tcp localhost:%s",state="10"`, other.Process.Pid, port))
		}
		return listener, exporter
	}
	eventually(t, "the listener and its exporter series on the page", func() bool {
		listener, exporter := shown()
		return listener && exporter
	})
	eventually(t, "the listener on stdout", func() bool { return strings.Contains(p.stdout.String(), `"port":"`+port+`"`) })

	other.stdin.Close()
	eventually(t, "the listener gone from the page", func() bool {
		listener, exporter := shown()
		return !listener && !exporter && page(address) != ""
	})

	whole := page(address)
	for _, name := range []string{"sockwatch_input_up", "sockwatch_output_up", "sockwatch_build_info", "process_", "go_"} {
		if !strings.Contains(whole, "\n"+name) {
			t.Errorf("no %s on the page", name)
		}
	}
	if strings.Contains(p.stdout.String(), "custom_port_exporter") || strings.Contains(p.stdout.String(), "sockwatch_") {
		t.Error("stdout holds points that the example keeps out of it")
	}
	p.Process.Signal(syscall.SIGTERM)
	if code := p.exitCode(t); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

func TestReadyOnlyAfterTheFirstGather(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	address := servertest.FreeAddress(t)
	config := writeFile(t, t.TempDir(), "s.toml", exampleOn(address))
	start(t, "sockwatch", []string{"NOTIFY_SOCKET=" + path}, "--config", config)

	conn.SetReadDeadline(time.Now().Add(waitLimit))
	message := make([]byte, 100)
	n, err := conn.Read(message)
	if err != nil || string(message[:n]) != "READY=1" {
		t.Fatalf("received %q, %v", message[:n], err)
	}
	if text := page(address); !strings.Contains(text, "tcp_listen_sockets{") {
		t.Errorf("no listener on the page when it is ready:\n%s", text)
	}
}

func TestReloadOfABrokenFileIsReported(t *testing.T) {
	if testing.Short() {
		t.Skip("reloads a running program")
	}
	t.Parallel()
	p, address, path := startOnExample(t)
	rewrite := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p.Process.Signal(syscall.SIGHUP)
	}

	rewrite("[agent]\nintervall = \"1s\"\n")
	eventually(t, "the error", func() bool {
		return strings.Contains(p.stderr.String(), `unknown option \"intervall\" (did you mean \"interval\"?)`)
	})
	gauge := func(address, value string) bool {
		return regexp.MustCompile(`(?m)^sockwatch_config_last_reload_successful\{.*\} ` + value + `$`).MatchString(page(address))
	}
	eventually(t, "the gauge", func() bool { return gauge(address, "0") })

	next := servertest.FreeAddress(t)
	rewrite(strings.Replace(exampleOn(next), "[agent]\n", "[agent]\n  log_format = \"json\"\n", 1))
	eventually(t, "the page at its new place", func() bool { return gauge(next, "1") })
	eventually(t, "the old place free", func() bool { return page(address) == "" })
	eventually(t, "the log in its new format", func() bool { return strings.Contains(p.stderr.String(), `"msg":"reloaded"`) })
}

func TestReloadKeepsWhenListenersWereFirstSeen(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	early := start(t, "listener", nil)
	eventually(t, "the port of the early listener", func() bool { return strings.HasSuffix(early.stdout.String(), "\n") })
	p, address, path := startOnExample(t)
	late := start(t, "listener", nil)
	firstSeen := func(address string) string {
		port := strings.TrimSpace(late.stdout.String())
		m := regexp.MustCompile(`(?m)^tcp_listen_first_seen_time_seconds\{.*port="` + port + `".*\} (\S+)$`).FindStringSubmatch(page(address))
		if port == "" || m == nil {
			return ""
		}
		return m[1]
	}
	eventually(t, "when the listener was first seen", func() bool { return firstSeen(address) != "" })
	before := firstSeen(address)
	time.Sleep(time.Second) // of which they are whole

	next := servertest.FreeAddress(t) // a page there shows only what the new input has gathered, or stood since
	text := strings.Replace(exampleOn(next), "custom_port_exporter = true", "custom_port_exporter = false", 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Process.Signal(syscall.SIGHUP)
	eventually(t, "the page of another input", func() bool {
		return page(next) != "" && !strings.Contains(page(next), "\ncustom_port_exporter{")
	})
	if got := firstSeen(next); got != before {
		t.Errorf("first seen %s, before the reload %s", got, before)
	}
	metrics := func(name string) bool {
		return regexp.MustCompile(`(?m)^` + name + `\{.*port="` + strings.TrimSpace(early.stdout.String()) + `"`).MatchString(page(next))
	}
	if listed, isNew := metrics("tcp_listen_sockets"), metrics("tcp_listen_first_seen_time_seconds"); !listed || isNew {
		t.Errorf("a listener from before the start: listed %v, new %v", listed, isNew)
	}
}

// After a restart, the port that sockwatch itself serves is not an event, and neither is
// anything else that has not changed.
func TestRestartOfTheProgramIsNotAnEvent(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	address := servertest.FreeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	path := writeFile(t, t.TempDir(), "sockwatch.toml", fmt.Sprintf(`
[agent]
  interval = "200ms"
  state_directory = %q
[[inputs.tcp_listen]]
[[outputs.prometheus]]
  listen = %q
[[outputs.stdout]]
  data_format = "json"
  namepass = ["tcp_listen_event"]
  tagpass = { port = [%q] }
`, t.TempDir(), address, port))
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGTERM} {
		p := start(t, "sockwatch", nil, "--config", path)
		gathers := regexp.MustCompile(`(?m)^sockwatch_input_gathers_total\{.*input="tcp_listen".*\} (\S+)$`)
		eventually(t, "some gathers", func() bool {
			m := gathers.FindStringSubmatch(page(address))
			n, _ := strconv.ParseFloat(cmp.Or(append(m, "", "")[1], "0"), 64)
			return n >= 3
		})
		p.Process.Signal(signal)
		p.exitCode(t)
		if text := p.stdout.String(); text != "" {
			t.Errorf("events of its own port:\n%s", text)
		}
	}
}

func TestHangupAHundredTimes(t *testing.T) {
	if testing.Short() {
		t.Skip("reloads a running program")
	}
	p, address, _ := startOnExample(t)
	for range 100 {
		p.Process.Signal(syscall.SIGHUP)
	}
	eventually(t, "a reload", func() bool { return strings.Contains(p.stderr.String(), "reloaded") })
	if page(address) == "" {
		t.Error("no page any more")
	}
	p.Process.Signal(syscall.SIGTERM)
	if code := p.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// timeout(1) sends SIGTERM to the program, and then to its process group.
func TestRepeatedSIGTERMIsOne(t *testing.T) {
	path := writeFile(t, t.TempDir(), "s.toml", "[[inputs.tcp_listen]]\n[[outputs.stdout]]\n")
	for range 100 {
		p := start(t, "sockwatch", nil, "--config", path)
		eventually(t, "the first points", func() bool { return p.stdout.String() != "" })
		first := time.Now()
		p.Process.Signal(syscall.SIGTERM)
		time.Sleep(time.Millisecond) // else both are one to the kernel, too
		p.Process.Signal(syscall.SIGTERM)
		if time.Since(first) > repeatedSignal/2 {
			p.Process.Kill()
			p.exitCode(t)
			continue // this machine was busy
		}
		if code := p.exitCode(t); code != exitDone || !strings.Contains(p.stderr.String(), "stopping") {
			t.Errorf("exit code %d, want %d; stderr %q", code, exitDone, p.stderr)
		}
		return
	}
	t.Error("this machine is too busy to send two signals within a few milliseconds")
}

// A hanging destination makes the first SIGTERM wait for shutdown_timeout.
func TestSecondSIGTERMEndsAtOnce(t *testing.T) {
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	go func() {
		for {
			conn, err := hole.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	}()
	path := writeFile(t, t.TempDir(), "s.toml", `
[agent]
  interval = "100ms"
  shutdown_timeout = "1h"
[[inputs.tcp_listen]]
[[outputs.influxdb]]
  urls = ["http://`+hole.Addr().String()+`"]
  database = "x"
  timeout = "1h"
  flush_interval = "100ms"
[[outputs.stdout]]
`)
	p := start(t, "sockwatch", nil, "--config", path)
	eventually(t, "the first points", func() bool { return p.stdout.String() != "" })
	p.Process.Signal(syscall.SIGTERM)
	eventually(t, "the first signal's effect", func() bool { return strings.Contains(p.stderr.String(), "stopping") })
	p.Process.Signal(syscall.SIGTERM)
	p.exitCode(t)
	if status := p.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v, want by SIGTERM", p.ProcessState)
	}
}

func TestPortInUseEndsTheStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	path := writeFile(t, t.TempDir(), "s.toml", exampleOn(taken.Addr().String()))
	p := start(t, "sockwatch", nil, "--config", path)
	if code := p.exitCode(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	want := fmt.Sprintf("sockwatch: outputs.prometheus: listen tcp %s: bind: address already in use"+
		" (\"sockwatch list --port %d\" shows by which process)\n", taken.Addr(), taken.Addr().(*net.TCPAddr).Port)
	if !strings.HasSuffix(p.stderr.String(), want) {
		t.Errorf("stderr %q does not end in %q", p.stderr, want)
	}
}

// The output of the one-shot commands can be read by their users.
func TestOneShotCommands(t *testing.T) {
	other := start(t, "listener", nil)
	eventually(t, "the other process's port", func() bool { return strings.HasSuffix(other.stdout.String(), "\n") })
	port := strings.TrimSpace(other.stdout.String())
	dir := t.TempDir()
	file := filepath.Join(dir, "out.jsonl")
	config := writeFile(t, dir, "s.toml", `
[global_tags]
  dc = "fra1"
[agent]
  hostname = "h"
[[inputs.tcp_listen]]
[[outputs.file]]
  path = "`+file+`"
[[outputs.prometheus]]
  listen = "192.0.2.1:1"
`)
	mustHold := func(what, text string, parts ...string) {
		t.Helper()
		for line := range strings.Lines(text) {
			found := 0
			for _, part := range parts {
				if strings.Contains(line, part) {
					found++
				}
			}
			if found == len(parts) {
				return
			}
		}
		t.Errorf("%s: no line holds %q:\n%s", what, parts, text)
	}
	output := func(args ...string) string {
		t.Helper()
		p := start(t, "sockwatch", nil, args...)
		if code := p.exitCode(t); code != 0 {
			t.Errorf("%q: exit code %d: %s", args, code, p.stderr)
		}
		return p.stdout.String()
	}

	mustHold("test", output("test", "--config", config), "tcp_listen,address=127.0.0.1,dc=fra1,", "host=h", "port="+port)
	if _, err := os.Stat(file); err == nil {
		t.Error("test touched an output")
	}
	output("once", "--config", config)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	schematest.Lines(t, string(text))
	mustHold("once", string(text), `"name":"tcp_listen"`, `"port":"`+port+`"`, `"dc":"fra1"`)
	mustHold("list --json", output("list", "--json"), `"name":"tcp_listen"`, `"port":"`+port+`"`)
	table := output("list")
	mustHold("list", table, "127.0.0.1:"+port, "loopback", fmt.Sprint(other.Process.Pid))
	if header, _, _ := bufio.ScanLines([]byte(table), true); !strings.HasPrefix(table[:header], "ADDRESS ") {
		t.Errorf("list begins with %q", table[:header])
	}
}

func TestOnceFailsWithItsOutput(t *testing.T) {
	dir := t.TempDir()
	config := writeFile(t, dir, "s.toml", "[[inputs.tcp_listen]]\n[[outputs.influxdb]]\ndatabase = \"x\"\nurls = [\"http://"+servertest.FreeAddress(t)+"\"]\n")
	p := start(t, "sockwatch", nil, "once", "--config", config)
	if code := p.exitCode(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(p.stderr.String(), "sockwatch: outputs.influxdb: ") || !strings.Contains(p.stderr.String(), "connection refused") {
		t.Errorf("stderr %q", p.stderr)
	}
	if strings.Contains(p.stderr.String(), "retry") {
		t.Errorf("stderr announces a retry that never comes: %q", p.stderr)
	}
}
