package tcplisten

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
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
	"sockwatch/inputs/internal/synthetic"
)

// The tests are about processes and their sockets: real ones, which are this test
// program again with a task in its environment.
const (
	envTask     = "SOCKWATCH_TEST_TASK"
	envIsolated = "SOCKWATCH_TEST_ISOLATED"
)

func TestMain(m *testing.M) {
	synthetic.Main()
	if text := os.Getenv(envTask); text != "" {
		var t task
		if err := json.Unmarshal([]byte(text), &t); err != nil {
			fmt.Println("error: read the task:", err)
			os.Exit(1)
		}
		t.perform()
	}
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
type listenTask struct {
	Addr      string
	Port      int // 0: the kernel's choice
	Count     int // of sockets, at this port and those after it; 0: one
	V6Only    bool
	ReusePort bool
	Device    string
	Backlog   int
}

func (t *task) perform() {
	if err := t.run(); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

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
			fd, port, err := l.open()
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
		return json.NewEncoder(os.Stdout).Encode(gatherHere(*t.Gather))
	}
	for range t.Workers {
		w := *t
		w.Worker, w.Workers = true, 0
		if _, err := spawn(&w, files, nil, new([]int)); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(ports); err != nil {
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
	os.Stdin.Read(make([]byte, 1)) // until its end
	return nil
}

// open opens the socket and returns its port.
func (l *listenTask) open() (fd, port int, err error) {
	addr := netip.MustParseAddr(l.Addr)
	family := unix.AF_INET6
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: addr.As16(), Port: l.Port, ZoneId: zone(addr.Zone())}
	if addr.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Addr: addr.As4(), Port: l.Port}
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, 0, err
	}
	set := func(level, option int, value bool) {
		if value && err == nil {
			err = unix.SetsockoptInt(fd, level, option, 1)
		}
	}
	set(unix.SOL_SOCKET, unix.SO_REUSEPORT, l.ReusePort)
	set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, l.V6Only)
	if l.Device != "" && err == nil {
		err = unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, l.Device)
	}
	if err != nil {
		return 0, 0, err
	}
	if err := unix.Bind(fd, to); err != nil {
		return 0, 0, err
	}
	if err := unix.Listen(fd, max(l.Backlog, 1)); err != nil {
		return 0, 0, err
	}
	name, err := unix.Getsockname(fd)
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return fd, name.Port, err
	case *unix.SockaddrInet6:
		return fd, name.Port, err
	}
	return 0, 0, err
}

func zone(name string) uint32 {
	if name == "" {
		return 0
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0 // bind says what is wrong
	}
	return uint32(i.Index)
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
		for _, p := range b.Points {
			sockets, _ := p.Field("sockets")
			f.Points = append(f.Points, p.Series()+" sockets="+sockets.String())
		}
	}
	return f
}

// spawn starts a child with its task and waits for its answer. The child ends
// when the file returned is closed.
func spawn(t *task, inherit []*os.File, attr *syscall.SysProcAttr, answer any) (*exec.Cmd, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envTask+"="+string(text))
	cmd.ExtraFiles = inherit
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		err = json.Unmarshal([]byte(line), answer)
	}
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, fmt.Errorf("child says %q: %w", strings.TrimSpace(line), err)
	}
	return cmd, nil
}

// start starts a child that the test ends.
func start(t *testing.T, job task) (cmd *exec.Cmd, ports []int) {
	t.Helper()
	return startWith(t, job, &syscall.SysProcAttr{Setpgid: true})
}

// startAs starts a child of another user, which only root may.
func startAs(t *testing.T, uid uint32, job task) (ports []int) {
	t.Helper()
	_, ports = startWith(t, job, as(uid))
	return ports
}

func as(uid uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Setpgid: true}
}

func startWith(t *testing.T, job task, attr *syscall.SysProcAttr) (cmd *exec.Cmd, ports []int) {
	t.Helper()
	cmd, err := spawn(&job, nil, attr, &ports)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	return cmd, ports
}

// end ends a child with its workers, and waits until it is gone.
func end(cmd *exec.Cmd) {
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	cmd.Process.Kill() // where it leads no group
	cmd.Wait()
}

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
	startNext(t, netns, func() (*exec.Cmd, error) {
		return spawn(&job, nil, &syscall.SysProcAttr{Setpgid: true}, new([]int))
	})
}

// startNext calls spawn on a thread that is in another network namespace, or in the
// test's own where that is nil, and ends the child with the test.
func startNext(t *testing.T, netns *os.File, spawn func() (*exec.Cmd, error)) {
	t.Helper()
	var cmd *exec.Cmd
	err := onSpareThread(func() (err error) {
		if netns != nil {
			if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
		}
		cmd, err = spawn()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
}

// onSpareThread calls do on a thread that ends afterwards. The first thread of a
// process cannot, so that another one is taken.
func onSpareThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			err := onSpareThread(do)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
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
