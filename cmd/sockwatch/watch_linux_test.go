package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// startWatch starts a watch on a separate host, and waits until it watches.
func startWatch(h *netHost, env []string, args ...string) *process {
	h.t.Helper()
	p := h.start("sockwatch", "sockwatch", env, append([]string{"watch"}, args...)...)
	eventually(h.t, "the watch", func() bool {
		select {
		case <-p.exited:
			h.t.Fatalf("watch ended: %s", p.stderr)
		default:
		}
		return strings.Contains(p.stderr.String(), "Ctrl-C ends\n")
	})
	return p
}

// interrupt ends a process as Ctrl-C does.
func interrupt(t *testing.T, p *process) {
	t.Helper()
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := p.exitCode(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// awaitText waits until a process has printed a text.
func awaitText(t *testing.T, p *process, text string) {
	t.Helper()
	eventually(t, text, func() bool { return strings.Contains(p.stdout.String(), text) })
}

// masked replaces times, pids and durations.
func masked(text string) string {
	text = regexp.MustCompile(`(?m)^\S+T\S+`).ReplaceAllString(text, "TIME")
	text = regexp.MustCompile(`\[\d+\]`).ReplaceAllString(text, "[PID]")
	text = regexp.MustCompile(`was pid \d+`).ReplaceAllString(text, "was pid PID")
	text = regexp.MustCompile(`(down|open for) [0-9.msh]+`).ReplaceAllString(text, "$1 D")
	text = regexp.MustCompile(`/\S+/001/`).ReplaceAllString(text, "/")
	return regexp.MustCompile(`root \S+\.(service|scope)( \(user\))?`).ReplaceAllString(text, "root") // of whoever runs the test
}

func TestWatchPrintsChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	h := newNetHost(t)
	awaitLine(t, h.serve("sshd", 0, "tcp4/0.0.0.0:2022"))
	awaitLine(t, h.serve("db", 65534, "tcp4/127.0.0.1:5432"))
	w := startWatch(h, nil, "--interval=100ms", "--settle=10s", "--port=1-9000")
	nginx := h.serve("nginx", 0, "tcp4/0.0.0.0:8080")
	awaitText(t, w, "opened")
	end(t, nginx)
	nginx = h.serve("nginx", 0, "tcp4/0.0.0.0:8080")
	awaitText(t, w, "restarted")
	end(t, nginx)
	other := h.serve("other", 0, "tcp4/0.0.0.0:8080")
	awaitText(t, w, "owner_changed")
	awaitLine(t, h.serve("hidden", 0, "tcp4/127.0.0.1:9001")) // by --port
	end(t, other)
	awaitText(t, w, "closed")
	interrupt(t, w)

	want := `TIME  opened         0.0.0.0:8080           none      nginx[PID] root
TIME  restarted      0.0.0.0:8080           none      nginx[PID] root; was pid PID; down D
TIME  owner_changed  0.0.0.0:8080           none      other[PID] root; was nginx[PID] root; down D; runs /other, was /nginx
TIME  closed         0.0.0.0:8080           none      other[PID] root
`
	got := strings.ReplaceAll(masked(w.stdout.String()), "; open for D", "") // shown from a second on
	got = strings.ReplaceAll(got, "loopback  ", "none      ")                // 0.0.0.0 where lo is the only device
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	wantErr := "sockwatch: watching 2 listeners, 0 public, every 100ms; Ctrl-C ends\n"
	if got := w.stderr.String(); got != wantErr {
		t.Errorf("stderr %q, want %q", got, wantErr)
	}
}

// A listener that lives for a second is printed, with defaults only. On a busy machine
// its owner may have exited before it is found.
func TestWatchSeesAListenerOfOneSecond(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	h := newNetHost(t)
	w := startWatch(h, nil)
	brief := h.serve("brief", 0, "tcp4/127.0.0.1:8080")
	awaitLine(t, brief)
	time.Sleep(1500 * time.Millisecond)
	end(t, brief)
	awaitText(t, w, "closed")
	interrupt(t, w)
	want := "TIME  opened         127.0.0.1:8080         loopback  brief[PID] root\nTIME  closed         127.0.0.1:8080         loopback  brief[PID] root; open for D\n"
	got := strings.ReplaceAll(masked(w.stdout.String()), "(exited)", "brief[PID]")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

// The JSON lines are those of the stdout output, one event each. With a short interval, changes
// are found between the gathers of each second.
func TestWatchPrintsJSON(t *testing.T) {
	t.Parallel()
	h := newNetHost(t)
	w := startWatch(h, nil, "--json", "--interval=100ms")
	type jsonLine struct {
		Name      string
		Timestamp time.Time
		Tags      map[string]string
		Fields    struct {
			Sequence int
			Window   float64 `json:"window_seconds"`
		}
	}
	var soon, late int // by how exactly the time is known
	for deadline := time.Now().Add(waitLimit); soon == 0; {
		if time.Now().After(deadline) {
			t.Fatalf("nothing was found soon, and %d events late:\n%s", late, w.stdout)
		}
		before := strings.Count(w.stdout.String(), "\n")
		nginx := h.serve("nginx", 0, "tcp4/127.0.0.1:8080")
		eventually(t, "an event", func() bool { return strings.Count(w.stdout.String(), "\n") > before })
		end(t, nginx)
		eventually(t, "closed", func() bool { return strings.Count(w.stdout.String(), "\n") > before+1 })
		soon, late = 0, 0
		for line := range strings.Lines(w.stdout.String()) {
			var e jsonLine
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			if e.Fields.Window < 0.5 {
				soon++
			} else {
				late++
			}
			if e.Fields.Sequence != soon+late || e.Name != "tcp_listen_event" || e.Timestamp.IsZero() || e.Tags["port"] != "8080" {
				t.Errorf("%d. line: %s", soon+late, line)
			}
		}
	}
	interrupt(t, w)
}

// On a terminal, times have no date and events have colors, unless NO_COLOR is set. Ctrl-C
// ends the program.
func TestWatchOnATerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the program several times")
	}
	t.Parallel()
	for _, test := range []struct{ noColor, want string }{
		{"", "  \x1b[32mopened\x1b[0m         127.0.0.1:8080         loopback  nginx["},
		{"1", "  opened         127.0.0.1:8080         loopback  nginx["},
	} {
		h := newNetHost(t)
		terminal, other := openTerminal(t, 100)
		screen := &textBuffer{}
		go io.Copy(screen, terminal) // its error is the end of the other side
		cmd := exec.Command(h.program("sockwatch"), "watch", "--interval=100ms")
		cmd.Env = append(os.Environ(), "SOCKWATCH_TEST_BE=in-netns", "SOCKWATCH_TEST_THEN=sockwatch", "SOCKWATCH_TEST_NETNS="+h.path,
			"TERM=xterm", "COLUMNS=", "LINES=", "NO_COLOR="+test.noColor)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = other, other, other
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		other.Close()
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		t.Cleanup(func() { cmd.Process.Kill() })
		eventually(t, "the watch", func() bool { return strings.Contains(screen.String(), "Ctrl-C ends") })
		h.serve("nginx", 0, "tcp4/127.0.0.1:8080")
		eventually(t, test.want, func() bool { return strings.Contains(screen.String(), test.want) })
		if got := screen.String(); !regexp.MustCompile(`\n\d\d:\d\d:\d\d  `).MatchString(got) {
			t.Errorf("no time without a date: %q", got)
		}
		if _, err := terminal.Write([]byte{3}); err != nil { // Ctrl-C
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Ctrl-C: %v", err)
			}
		case <-time.After(waitLimit):
			t.Error("Ctrl-C does not end it")
		}
	}
}

// The changes that the running agent has recorded come first, and its state directory is not
// changed: the agent continues its history.
func TestWatchPrintsThePast(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	h := newNetHost(t)
	state := t.TempDir()
	events := filepath.Join(state, "events")
	config := writeFile(t, h.dir, "s.toml", fmt.Sprintf(`
[agent]
  interval = "100ms"
  state_directory = %q
[[inputs.tcp_listen]]
  timeout = "10s"
  settle = "0s"
[[outputs.file]]
  path = %q
  namepass = ["tcp_listen_event"]
  flush_interval = "100ms"
`, state, events))
	recorded := func(n int) func() bool {
		return func() bool {
			text, err := os.ReadFile(events)
			return err == nil && strings.Count(string(text), "tcp_listen_event") >= n
		}
	}
	running := h.start("sockwatch", "sockwatch", nil, "--config", config)
	eventually(t, "the history", func() bool {
		_, err := os.Stat(filepath.Join(state, "tcp_listen.history.jsonl"))
		return err == nil
	})
	nginx := h.serve("nginx", 0, "tcp4/127.0.0.1:8080")
	eventually(t, "the first change", recorded(1))

	w := startWatch(h, nil, "--since", "24h", "--config", config, "--interval=100ms")
	awaitText(t, w, "\n")
	if got, want := masked(w.stdout.String()), "TIME  opened         127.0.0.1:8080         loopback  nginx[PID] root\n"; got != want {
		t.Errorf("the past: %q, want %q", got, want)
	}
	if got := w.stderr.String(); !regexp.MustCompile(`^sockwatch: inputs.tcp_listen: 1 recorded change since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)\nsockwatch: watching 1 listener, 0 public, every 100ms; Ctrl-C ends\n$`).MatchString(got) {
		t.Errorf("stderr %q", got)
	}
	end(t, nginx)
	awaitText(t, w, "closed")
	interrupt(t, w)
	eventually(t, "the agent's own record", recorded(2))
	if log := running.stderr.String(); strings.Contains(log, "level=WARN msg=\"history") || strings.Contains(log, "level=ERROR") {
		t.Errorf("the agent logged\n%s", log)
	}
	if w = startWatch(h, nil, "--since=1ns", "--config", config); !strings.Contains(w.stderr.String(), ": 0 recorded changes since ") {
		t.Errorf("of a nanosecond: %s", w.stderr)
	}
}

// If the history cannot be read, watch says why, and watches.
func TestWatchWithoutAPast(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the program several times")
	}
	t.Parallel()
	h := newNetHost(t)
	state := t.TempDir()
	config := func(options string) string {
		return publicFile(t, options+"[[inputs.tcp_listen]]\n[[outputs.stdout]]\n")
	}
	inState := fmt.Sprintf("[agent]\nstate_directory = %q\n", state)
	said := func(p *process) string { return strings.SplitAfter(p.stderr.String(), "\n")[0] }

	want := "sockwatch: no history: " + state + " holds none of inputs.tcp_listen: the agent has not run with this configuration\n"
	if got := said(startWatch(h, nil, "--since=1h", "--config", config(inState))); got != want {
		t.Errorf("without a file: %q, want %q", got, want)
	}

	path := writeFile(t, state, "tcp_listen.history.jsonl", "damaged\n")
	want = "sockwatch: no history: " + path + ": line 1: is not a line of a history\n"
	if got := said(startWatch(h, nil, "--since=1h", "--config", config(inState))); got != want {
		t.Errorf("damaged: %q, want %q", got, want)
	}
	if text, err := os.ReadFile(path); string(text) != "damaged\n" {
		t.Errorf("the file is %q now, %v", text, err)
	}

	p := h.start("sockwatch", "unprivileged", nil, "watch", "--since=1h", "--config", config(inState))
	eventually(t, "the watch", func() bool { return strings.Contains(p.stderr.String(), "Ctrl-C ends\n") })
	want = "sockwatch: no history: open " + path + ": permission denied: run as root, or as the user of the agent\n"
	if got := said(p); got != want {
		t.Errorf("not permitted: %q, want %q", got, want)
	}

	if _, err := os.Stat(packagedStateDir); errors.Is(err, os.ErrNotExist) {
		want = "sockwatch: no history: the configuration has no state_directory, and /var/lib/sockwatch does not exist\n"
		if got := said(startWatch(h, nil, "--since=1h", "--config", config(""))); got != want {
			t.Errorf("without a state directory: %q, want %q", got, want)
		}
	}

	p = h.start("sockwatch", "sockwatch", nil, "watch", "--since=1h", "--config", "/nonexistent.toml")
	if code := p.exitCode(t); code != 1 || p.stderr.String() != "sockwatch: open /nonexistent.toml: no such file or directory\n" {
		t.Errorf("without the configuration: exit code %d, %s", code, p.stderr)
	}
}

// When the reader of a pipe is gone, watch ends as other programs do.
func TestWatchEndsWithItsReader(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	h := newNetHost(t)
	r, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, h.program("sockwatch"), "in-netns", []string{"SOCKWATCH_TEST_NETNS=" + h.path, "SOCKWATCH_TEST_THEN=sockwatch"}, stdout, "watch")
	stdout.Close()
	eventually(t, "the watch", func() bool { return strings.Contains(p.stderr.String(), "Ctrl-C ends\n") })
	r.Close()
	awaitLine(t, h.serve("nginx", 0, "tcp4/127.0.0.1:8080"))
	p.exitCode(t)
	if status := p.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGPIPE {
		t.Errorf("ended by %v, want SIGPIPE", status)
	}
}
