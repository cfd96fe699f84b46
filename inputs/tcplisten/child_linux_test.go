package tcplisten

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/schematest"
	"sockwatch/inputs/internal/synthetic"
	"sockwatch/inputs/internal/testchild"
)

// envIsolated is set in a test program that runs one test in namespaces of its own.
const envIsolated = "SOCKWATCH_TEST_ISOLATED"

// The tests are about processes and their sockets: real ones, which are this test
// program again with a task.
func TestMain(m *testing.M) {
	synthetic.Main()
	testchild.Main((*task).run)
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() != "" {
		synthetic.Alone()
	}
	os.Exit(m.Run())
}

// A task is what a child is told to do. When it has done it, it prints the ports
// of its sockets in one line, and then lives until its standard input ends.
type task struct {
	Name    []byte       // what it calls itself
	Listen  []listenTask // what it listens on
	Workers int          // children of its own that inherit all sockets
	Worker  bool         // it is such a child, with sockets from fd 3 on

	Gather    *Options // it gathers, prints what it found instead of ports, and ends
	NoNetlink bool     // it is refused netlink sockets, by seccomp
	NewName   []byte   // what it calls itself after SIGUSR1
	Actor     bool     // it is an actor, see there
	Churn     bool     // it opens and closes sockets without end, see churn
}

// A listenTask is one listening socket.
type listenTask = testchild.Listener

func (t *task) run() error {
	if t.Actor {
		return t.act()
	}
	renamed := make(chan os.Signal, 1)
	signal.Notify(renamed, syscall.SIGUSR1)
	var files []*os.File
	var ports []int
	for _, l := range t.Listen {
		if t.Worker {
			break
		}
		for range max(l.Count, 1) {
			fd, port, err := l.Open()
			if err != nil {
				return fmt.Errorf("listen on %+v: %w", l, err)
			}
			files = append(files, os.NewFile(uintptr(fd), "socket"))
			ports = append(ports, port)
			l.Port++
		}
	}
	if len(t.Name) > 0 {
		if err := os.WriteFile("/proc/self/comm", t.Name, 0); err != nil {
			return err
		}
	}
	if t.NoNetlink {
		if err := synthetic.RefuseNetlink(); err != nil {
			return err
		}
	}
	if t.Gather != nil {
		return testchild.Answer(gatherHere(*t.Gather))
	}
	for range t.Workers {
		w := *t
		w.Worker, w.Workers = true, 0
		if _, err := spawn(&w, files, nil, new([]int)); err != nil {
			return err
		}
	}
	if err := testchild.Answer(ports); err != nil {
		return err
	}
	if t.Churn {
		go churn()
	}
	if len(t.NewName) > 0 {
		go func() {
			<-renamed
			os.WriteFile("/proc/self/comm", t.NewName, 0) // the test sees whether it did
		}()
	}
	testchild.Wait()
	runtime.KeepAlive(files) // collected, they are closed
	return nil
}

// found is what a child that gathers prints.
type found struct {
	Points []string // each as one line, with its numbers
	Log    string
	Error  string
}

// gatherHere gathers twice, as what is said once must not be said again.
func gatherHere(options Options) (f found) {
	var log bytes.Buffer
	in, err := newInput(options, plugin.Env{Name: pointListener, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		return found{Error: err.Error()}
	}
	defer in.(io.Closer).Close()
	for range 2 {
		b, err := in.Gather(context.Background())
		if err == nil {
			err = b.Check()
		}
		if err != nil {
			return found{Error: err.Error(), Log: log.String()}
		}
		f = found{Log: log.String()}
		if err := schematest.CheckBatch(&b); err != nil {
			return found{Error: err.Error(), Log: log.String()}
		}
		for _, p := range b.Points {
			if p.Name == pointListener+"_events" || p.Name == pointHistory {
				continue // that there were none
			}
			sockets, _ := p.Field("sockets")
			f.Points = append(f.Points, p.Series()+" sockets="+sockets.String())
		}
	}
	return f
}

// spawn starts a child with its task and waits for its answer.
func spawn(t *task, inherit []*os.File, attr *syscall.SysProcAttr, answer any) (*testchild.Child, error) {
	return testchild.StartAndHear(t, inherit, attr, answer)
}

// start starts a child that the test ends.
func start(t *testing.T, job task) (cmd *exec.Cmd, ports []int) {
	t.Helper()
	return startWith(t, job, nil)
}

// startAs starts a child of another user, which only root may.
func startAs(t *testing.T, uid uint32, job task) (ports []int) {
	t.Helper()
	_, ports = startWith(t, job, as(uid))
	return ports
}

func as(uid uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
}

func startWith(t *testing.T, job task, attr *syscall.SysProcAttr) (cmd *exec.Cmd, ports []int) {
	t.Helper()
	c, err := spawn(&job, nil, attr, &ports)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.End)
	return c.Cmd, ports
}

// end ends a process with its workers, and waits until it is gone.
func end(cmd *exec.Cmd) { testchild.End(cmd) }

// isolated runs the test that calls it in network and mount namespaces of its own,
// and more, and returns own there; done tells that this has been. Where that may not be,
// the test goes on in the namespaces that it shares with others.
func isolated(t *testing.T, more ...uintptr) (own, done bool) {
	t.Helper()
	if os.Getenv(envIsolated) != "" {
		if err := synthetic.Settle(); err != nil {
			t.Fatal(err)
		}
		return true, false
	}
	if os.Geteuid() != 0 {
		return false, false
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "5m")
	flag.Visit(func(f *flag.Flag) {
		if !strings.HasPrefix(f.Name, "test.") {
			cmd.Args = append(cmd.Args, "-"+f.Name, f.Value.String())
		}
	})
	cmd.Env = append(os.Environ(), envIsolated+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	for _, flag := range more {
		cmd.SysProcAttr.Cloneflags |= flag
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	runtime.LockOSThread() // the signal comes at the end of this thread
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		t.Logf("no network namespace of its own: %v", err)
		return false, false
	}
	t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	if err := cmd.Wait(); err != nil {
		t.Fatalf("in its own namespace: %v\n%s", err, out.String())
	}
	t.Log(out.String())
	return false, true
}

// elsewhere is isolated for a test that cannot do without: it is skipped where it
// would run in shared namespaces.
func elsewhere(t *testing.T, more ...uintptr) (done bool) {
	t.Helper()
	own, done := isolated(t, more...)
	if !own && !done {
		t.Skip("it needs network namespaces of its own, and thus root")
	}
	return done
}

// need skips a test that lacks a program, or fails it where the machine is to have
// all of them.
func need(t *testing.T, program string) {
	t.Helper()
	_, err := exec.LookPath(program)
	switch {
	case err == nil:
	case os.Getenv("SOCKWATCH_REQUIRE_SERVERS") == "1":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// ip runs ip(8) with arguments as one string.
func ip(t *testing.T, arguments string) {
	t.Helper()
	need(t, "ip")
	if out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", arguments, err, out)
	}
}

// soon waits until a condition holds, long enough for a busy machine.
func soon(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}

// startIn starts a child in another network namespace.
func startIn(t *testing.T, netns *os.File, job task) {
	t.Helper()
	if err := startInNamespace(t, netns, job).Hear(new([]int)); err != nil {
		t.Fatal(err)
	}
}

// startInNamespace starts a child in another network namespace, or in the test's own if
// that is nil.
func startInNamespace(t *testing.T, netns *os.File, job task) *testchild.Child {
	t.Helper()
	var c *testchild.Child
	err := testchild.OnSpareThread(func() (err error) {
		if netns != nil {
			if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
		}
		c, err = testchild.Start(&job, nil, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.End)
	return c
}

// namespaces returns the network namespaces that the threads of this process are
// in, without repetition.
func namespaces(t *testing.T) (all []string) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tasks {
		if ns, err := os.Readlink(path); err == nil && !slices.Contains(all, ns) {
			all = append(all, ns)
		}
	}
	return all
}
