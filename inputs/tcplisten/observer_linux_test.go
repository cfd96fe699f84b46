package tcplisten

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/changes"
	"sockwatch/inputs/internal/testchild"
)

// An observer is an input that gathers in the namespaces of its test, whenever the test asks
// for it and with the test's clock.
type observer struct {
	*input
	t   *testing.T
	env plugin.Env
	log *logBuffer
	now changes.Moment

	seen map[string]metric.Point // all events by history and sequence
	keep bool                    // the outputs do not accept the events
}

// eventOptions returns options with which an observer finds all owners in each gather.
func eventOptions() Options {
	o := Defaults()
	o.OwnerVerify, o.OwnerRefresh = plugin.Duration(time.Second), plugin.Duration(time.Second)
	return o
}

// observe runs the calling test in its own namespaces, with lo up. There it returns an
// observer. Elsewhere it returns nil, and the test must return.
func observe(t *testing.T, options Options) *observer {
	t.Helper()
	if elsewhere(t, unix.CLONE_NEWPID) {
		return nil
	}
	ip(t, "link set lo up")
	o := &observer{
		t: t, env: plugin.Env{Name: pointListener, Hostname: "testhost", StateDir: fastDir(t)},
		now: moment(time.Unix(2_000_000_000, 0)), seen: make(map[string]metric.Point),
	}
	o.start(options)
	return o
}

// fastDir returns a temporary directory, in memory if it can: events wait for a disk that is
// busy, at most until the next gather.
func fastDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sockwatch")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start starts the agent. With -short it looks for owners in procfs only: to load the BPF
// programs takes a third of the time of most of these tests, and package owner compares both.
func (o *observer) start(options Options) {
	if testing.Short() && options.OwnerSource == ownerSourceAuto {
		options.OwnerSource, options.ListenEvents = ownerSourceProcfs, listenEventsOff
	}
	in, log := openLogging(o.t, options, o.env)
	o.input, o.log = in.(*input), log
}

// restart stops the agent and starts it again.
func (o *observer) restart(options Options) {
	o.t.Helper()
	closeInput(o.t, o.input)
	o.start(options)
}

// kill simulates that the agent was killed, after its pending writes and without a clean stop,
// and starts it again.
func (o *observer) kill(options Options) {
	o.t.Helper()
	if killed := o.input; killed.open != nil { // it has gathered
		if err := errors.Join(killed.recorder.history.Close(), killed.open.close()); err != nil {
			o.t.Fatal(err)
		}
		killed.open = nil
	}
	o.start(options)
}

// reload replaces the input with one that has other options.
func (o *observer) reload(options Options) {
	o.t.Helper()
	old := o.input
	closeInput(o.t, old)
	o.start(options)
	o.InheritFrom(old)
}

// pass lets time pass without a gather.
func (o *observer) pass(d time.Duration) {
	o.now.Time = o.now.Time.Add(d)
	o.now.Mono += d
	o.now.Uptime += d
}

// gatherAfter gathers after the given time.
func (o *observer) gatherAfter(after time.Duration) metric.Batch {
	o.t.Helper()
	o.pass(after)
	return o.checked(o.gather(o.t.Context(), o.now))
}

// gatherBriefly gathers without time for the search for owners.
func (o *observer) gatherBriefly(after time.Duration) metric.Batch {
	o.t.Helper()
	o.pass(after)
	return gatherCut(o.t, o.input, o.now.Time)
}

// gatherWithout gathers, but one of the namespaces cannot be listed before the search for owners.
func (o *observer) gatherWithout(after time.Duration, netns string) metric.Batch {
	o.t.Helper()
	o.pass(after)
	if err := o.list(o.t.Context(), o.now.Time, new(notes)); err != nil {
		o.t.Fatal(err)
	}
	canceled, cancel := context.WithCancel(o.t.Context())
	cancel()
	i := slices.IndexFunc(o.listeners.tables, func(t *table) bool { return t.name == netns })
	t := o.listeners.tables[i]
	_, err := t.list(canceled, o.input.observe)
	t.failed = err != nil
	return finish(o.t, o.input, o.now.Time)
}

func (o *observer) checked(b metric.Batch, err error) metric.Batch {
	o.t.Helper()
	if err == nil {
		err = b.Check()
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return b
}

// news returns the events of a batch that no earlier batch had, and reports them as
// delivered. Repeated events must be equal.
func (o *observer) news(b metric.Batch) (events []metric.Point) {
	o.t.Helper()
	for _, e := range b.Events {
		id := fieldText(e, "history") + " " + fieldText(e, "sequence")
		before, again := o.seen[id]
		if again && cmp.Diff(lineProtocol(before), lineProtocol(e)) != "" {
			o.t.Errorf("an event came again, and another one:\n%s", cmp.Diff(lineProtocol(before), lineProtocol(e)))
		}
		if !again && e.Name == pointListener+"_event" {
			events = append(events, e)
		}
		o.seen[id] = e
	}
	if b.EventsStored != nil && !o.keep {
		b.EventsStored()
	}
	return events
}

// lineProtocol formats a point with all its tags and fields.
func lineProtocol(p metric.Point) map[string]string {
	all := map[string]string{"time": p.Time.UTC().String()}
	for _, t := range p.Tags {
		all["tag "+t.Key] = t.Value
	}
	for _, f := range p.Fields {
		all[f.Key] = f.Value.String()
	}
	return all
}

// fieldText returns a field of a point as text, or "" if it is absent.
func fieldText(p metric.Point, key string) string {
	if v, ok := p.Field(key); ok {
		return v.String()
	}
	return ""
}

// summary returns a short form of an event.
func summary(p metric.Point) string {
	where := p.Tag("address") + ":" + p.Tag("port")
	if netns := p.Tag("netns"); netns != "" {
		where = netns + "/" + where
	}
	line := p.Tag("event") + " " + where
	if process := p.Tag("process"); process != "" {
		line += " " + process
	}
	for _, key := range []string{"previous_process", "previous_address", "cause"} {
		if v, ok := p.Field(key); ok {
			line += " " + key + "=" + v.AsString()
		}
	}
	for _, key := range []string{"exe_changed", "while_down"} {
		if v, _ := p.Field(key); v.AsBool() {
			line += " " + key
		}
	}
	if expected := p.Tag("expected"); expected != "" {
		line += " expected=" + expected
	}
	if n, ok := p.Field("count"); ok {
		line += " count=" + n.String()
	}
	return line
}

// wants compares the events of the next gather with the wanted ones, and returns them.
func (o *observer) wants(after time.Duration, want ...string) []metric.Point {
	o.t.Helper()
	events := o.news(o.gatherAfter(after))
	var got []string
	for _, e := range events {
		got = append(got, summary(e))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		o.t.Fatalf("events (-want +got):\n%s", diff)
	}
	return events
}

// socket opens a listening socket, which the test holds until it closes the file.
func socket(t *testing.T, addr string, port int) *os.File {
	t.Helper()
	fd, _, err := (&listenTask{Addr: addr, Port: port, ReusePort: true}).Open()
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "socket")
}

// hand starts a child with the given name that holds the files, and closes them here.
func hand(t *testing.T, name string, files ...*os.File) *testchild.Child {
	t.Helper()
	c, err := spawn(&task{Name: []byte(name), Worker: true}, files, nil, new([]int))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.End)
	for _, f := range files {
		f.Close()
	}
	return c
}

// service starts a child with the given name and one listening socket.
func service(t *testing.T, name, addr string, port int) *testchild.Child {
	t.Helper()
	return hand(t, name, socket(t, addr, port))
}

// execute starts a program that holds a socket.
func execute(t *testing.T, program string, file *os.File) *exec.Cmd {
	t.Helper()
	return executeWith(t, nil, file, program, "600")
}

func executeWith(t *testing.T, stdin, file *os.File, program string, arguments ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program, arguments...)
	cmd.ExtraFiles = []*os.File{file}
	if stdin != nil {
		cmd.Stdin = stdin
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	file.Close()
	// Start returns when exec has closed what is to be closed. Linux 6.1 sets the name after that.
	name := filepath.Base(program)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid)); err != nil || string(text) == name[:min(len(name), 15)]+"\n" {
			break
		}
	}
	return cmd
}

// take returns a copy of the first socket that a child holds, as if the child had passed it.
func take(t *testing.T, from *testchild.Child) *os.File {
	t.Helper()
	return takeFrom(t, from.Process.Pid)
}

func takeFrom(t *testing.T, pid int) *os.File {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, 3, 0)
	if err != nil {
		t.Skip("pidfd_getfd: ", err)
	}
	return os.NewFile(uintptr(fd), "socket")
}

// exeOf returns the target of the link exe of a process.
func exeOf(t *testing.T, pid int) string {
	t.Helper()
	exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// written reports whether the history file has the records of all listeners.
func (o *observer) written() bool {
	text, err := os.ReadFile(filepath.Join(o.env.StateDir, o.env.Name+".history.jsonl"))
	if err != nil {
		return false
	}
	for _, l := range o.listeners.all {
		if !bytes.Contains(text, fmt.Appendf(nil, `"e:%d %s "`, l.socket.Port, l.address())) {
			return false
		}
	}
	return len(o.listeners.all) > 0
}
