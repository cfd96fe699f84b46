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

// envIsolated is set in a test program that runs one test in its own namespaces.
const envIsolated = "SOCKWATCH_TEST_ISOLATED"

// The tests use real processes and sockets. The processes are this test program, started again
// with a task.
func TestMain(m *testing.M) {
	synthetic.Main()
	testchild.Main((*task).run)
	flag.Set("test.parallel", "4") // tests wait for their children; -parallel overrides it
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() != "" {
		synthetic.Alone()
	}
	os.Exit(m.Run())
}

// A task is what a child has to do. When the child has done it, it prints the ports of its
// sockets in one line, and then runs until its standard input ends.
type task struct {
	Name    []byte       // name of the process
	Listen  []listenTask // sockets that it opens
	Workers int          // number of its own children, which inherit all sockets
	Worker  bool         // it is such a child, with inherited sockets from fd 3 on
	Begin   bool         // it begins to listen on its inherited socket

	Gather    *Options      // it gathers, prints the result instead of ports, and exits
	NoNetlink bool          // seccomp denies it netlink sockets
	NewName   []byte        // name of the process after SIGUSR1
	Actor     bool          // it is an actor, see act
	Churn     bool          // it opens and closes sockets forever, see churn
	Brief     time.Duration // it closes each socket after that time, before it answers
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
	if len(t.Name) > 0 {
		if err := os.WriteFile("/proc/self/comm", t.Name, 0); err != nil {
			return err
		}
	}
	if t.Begin {
		if err := unix.Listen(3, 1); err != nil {
			return err
		}
	}
	for _, l := range t.Listen {
		if t.Worker {
			break
		}
		for range max(l.Count, 1) {
			fd, port, err := l.Open()
			if err != nil {
				return fmt.Errorf("listen on %+v: %w", l, err)
			}
			ports = append(ports, port)
			l.Port++
			if t.Brief > 0 {
				time.Sleep(t.Brief)
				unix.Close(fd)
				continue
			}
			files = append(files, os.NewFile(uintptr(fd), "socket"))
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
			os.WriteFile("/proc/self/comm", t.NewName, 0) // the test sees whether this worked
		}()
	}
	testchild.Wait()
	runtime.KeepAlive(files) // the garbage collector would close them
	return nil
}

// found is the output of a child that gathers.
type found struct {
	Points []string // each as one line, with its number of sockets
	Log    string
	Error  string
	Limits []string
}

// gatherHere gathers twice, because warnings must be logged only once.
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
		f = found{Log: log.String(), Limits: in.(plugin.LimitReporter).Limits()}
		if err := schematest.CheckBatch(&b); err != nil {
			return found{Error: err.Error(), Log: log.String()}
		}
		for _, p := range b.Points {
			if p.Name == pointListener+"_events" || p.Name == pointHistory || p.Name == pointSource {
				continue // there were no events
			}
			sockets, _ := p.Field("sockets")
			f.Points = append(f.Points, p.Series()+" sockets="+sockets.String())
		}
	}
	return f
}

// spawn starts a child with a task and waits for its answer.
func spawn(t *task, inherit []*os.File, attr *syscall.SysProcAttr, answer any) (*testchild.Child, error) {
	return testchild.StartAndHear(t, inherit, attr, answer)
}

// start starts a child that ends with the test.
func start(t testing.TB, job task) (cmd *exec.Cmd, ports []int) {
	t.Helper()
	return startWith(t, job, nil)
}

// startAs starts a child as another user, which requires root.
func startAs(t *testing.T, uid uint32, job task) (ports []int) {
	t.Helper()
	_, ports = startWith(t, job, as(uid))
	return ports
}

func as(uid uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
}

func startWith(t testing.TB, job task, attr *syscall.SysProcAttr) (cmd *exec.Cmd, ports []int) {
	t.Helper()
	c, err := spawn(&job, nil, attr, &ports)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.End)
	return c.Cmd, ports
}

// end ends a process and its workers, and waits until they are gone.
func end(cmd *exec.Cmd) { testchild.End(cmd) }

// isolated runs the calling test again in its own network and mount namespaces, and those of
// more. There it returns own. In the original process it returns done afterwards, or neither
// if that is not permitted: the test then continues in the shared namespaces. With a pid
// namespace of its own, where a test does not see the processes of others, it runs beside
// other tests.
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
	if slices.Contains(more, unix.CLONE_NEWPID) {
		t.Parallel()
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "25m", fmt.Sprint("-test.short=", testing.Short()))
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
	runtime.LockOSThread() // Pdeathsig is sent when this thread ends
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

// elsewhere is isolated for a test that requires its own namespaces: it skips the test instead
// of running it in shared ones.
func elsewhere(t *testing.T, more ...uintptr) (done bool) {
	t.Helper()
	own, done := isolated(t, more...)
	if !own && !done {
		t.Skip("it needs network namespaces of its own, and thus root")
	}
	return done
}

// need skips a test if a program is not installed, or fails it on a machine that must have all
// programs.
func need(t testing.TB, program string) {
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

// ip runs ip(8) with its arguments in one string.
func ip(t testing.TB, arguments string) {
	t.Helper()
	need(t, "ip")
	if out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", arguments, err, out)
	}
}

// soon waits until a condition holds, with a deadline that suits a busy machine.
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
func startIn(t testing.TB, netns *os.File, job task) {
	t.Helper()
	if err := startInNamespace(t, netns, job).Hear(new([]int)); err != nil {
		t.Fatal(err)
	}
}

// startInNamespace starts a child in another network namespace, or in that of the test if it
// is nil.
func startInNamespace(t testing.TB, netns *os.File, job task) *testchild.Child {
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

// namespaces returns the network namespaces of the threads of this process, without
// duplicates.
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
