package netns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/synthetic"
)

// The tests are about processes and their namespaces: real ones, which are this test
// program again with a task in its environment. All tests run in network, mount and
// pid namespaces of their own if that is permitted.
const (
	envTask     = "SOCKWATCH_TEST_TASK"
	envIsolated = "SOCKWATCH_TEST_ISOLATED"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(envTask); text != "" {
		var t task
		err := json.Unmarshal([]byte(text), &t)
		if err == nil {
			err = t.run()
		}
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if os.Geteuid() == 0 && os.Getenv(envIsolated) == "" {
		os.Exit(isolate())
	}
	if os.Getenv(envIsolated) != "" {
		if err := settle(); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// isolate runs the tests in namespaces of their own.
func isolate() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), envIsolated+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
	runtime.LockOSThread() // the signal comes at the end of this thread
	err := cmd.Start()
	if err != nil {
		fmt.Println("error: namespaces of its own:", err)
		return 1
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range signals {
			cmd.Process.Signal(s)
		}
	}()
	if err := cmd.Wait(); err != nil {
		return 1
	}
	return 0
}

// settle makes the namespaces a host of its own.
func settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// A task is what a child is told to do. When it has done it, it prints one line of
// JSON, and lives until its standard input ends.
type task struct {
	Listen    []listener // what it listens on
	Thread    bool       // it listens in a namespace that only a thread of it is in
	Open      string     // a file that it holds open
	OpenMany  int        // how many other files it holds open, before that one
	In        []string   // namespaces in which it only has its sockets
	Report    *Options   // it lists all namespaces twice, prints []report of the second time, and ends
	Proc      string     // the procfs of the report
	NoNetlink bool       // it is refused netlink sockets, by seccomp
}

// A listener is one listening socket at port.
type listener struct {
	Addr        string
	Device      string
	Zone        bool // the device is the zone of a link-local address
	V6Only      bool
	FreeBind    bool // the address need not be local
	Transparent bool
	Port        int
	Count       int // at this port and those after it; 0: one
}

const port = 4000

func (t *task) run() error {
	if t.NoNetlink {
		if err := synthetic.RefuseNetlink(); err != nil {
			return err
		}
	}
	if t.Report != nil {
		all, err := reportAll(*t.Report, t.Proc)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(all)
	}
	if t.Thread {
		ready := make(chan error)
		go func() { ready <- t.listenOnThread() }()
		if err := <-ready; err != nil {
			return err
		}
	} else if len(t.In) > 0 {
		if err := t.listenIn(); err != nil {
			return err
		}
	} else if err := t.listen(); err != nil {
		return err
	}
	for range t.OpenMany {
		if _, err := unix.Open("/dev/null", unix.O_RDONLY, 0); err != nil {
			return err
		}
	}
	if t.Open != "" {
		if _, err := unix.Open(t.Open, unix.O_RDONLY, 0); err != nil {
			return err
		}
	}
	fmt.Println("{}")
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// listenOnThread opens its sockets in a namespace of its own, in which a thread that is
// not the first one stays.
func (t *task) listenOnThread() error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			done <- t.listenOnThread()
			select {}
		}
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = t.listen()
		}
		done <- err
		select {}
	}()
	return <-done
}

// listenIn opens its sockets in other namespaces.
func (t *task) listenIn() error {
	for _, path := range t.In {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = inside(f, t.listen)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *task) listen() error {
	for _, l := range t.Listen {
		for range max(l.Count, 1) {
			if err := l.open(); err != nil {
				return fmt.Errorf("listen on %+v: %w", l, err)
			}
			l.Port++
		}
	}
	return nil
}

func (l *listener) open() error {
	addr := netip.MustParseAddr(l.Addr)
	number := port
	if l.Port != 0 {
		number = l.Port
	}
	zone := 0
	if l.Zone {
		var err error
		if zone, err = deviceIndex(l.Device); err != nil {
			return err
		}
	}
	family := unix.AF_INET6
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: addr.As16(), Port: number, ZoneId: uint32(zone)}
	if addr.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Addr: addr.As4(), Port: number}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if l.V6Only {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
	}
	if l.FreeBind {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1))
	}
	if l.Transparent {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1))
	}
	if l.Device != "" && !l.Zone {
		err = errors.Join(err, unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, l.Device))
	}
	return errors.Join(err, unix.Bind(fd, to), unix.Listen(fd, 100))
}

// deviceIndex returns the index of a device of the calling thread's namespace.
func deviceIndex(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, err
	}
	return int(ifr.Uint32()), nil
}

// A report is what a Set says of a namespace.
type report struct {
	Name    string
	Host    bool
	Hidden  bool // its number
	Procfs  bool
	Reason  string
	Sockets []string // "address:port exposure"
	Error   string
}

// reportAll finds all namespaces twice and reports what the second time shows.
func reportAll(o Options, proc string) ([]report, error) {
	if proc == "" {
		proc = "/proc"
	}
	s, err := Open(host.Find(proc), o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var all []report
	for range 2 {
		partial, err := s.Find(context.Background(), time.Now())
		if err != nil || partial != "" {
			return nil, fmt.Errorf("find: %w, partial %q", err, partial)
		}
		all = nil
		for _, n := range s.All() {
			all = append(all, reportOf(n))
		}
	}
	return all, nil
}

func reportOf(n *Namespace) report {
	r := report{Name: n.Name(), Host: n.Host(), Hidden: n.Inode() == 0}
	var found []inet.Socket
	source, err := n.Dump(context.Background(), Listen, 0, func() { found = nil }, func(s *inet.Socket) { found = append(found, *s) })
	r.Procfs = source.Procfs
	if source.Reason != nil {
		r.Reason = source.Reason.Error()
	}
	l, localErr := n.Local(context.Background())
	if err = errors.Join(err, localErr); err != nil {
		r.Error = err.Error()
	}
	for i := range found {
		text := netip.AddrPortFrom(found[i].Addr, found[i].Port).String()
		if l != nil {
			text = strings.TrimSuffix(text+" "+l.Exposure(&found[i]).String(), " ")
		}
		r.Sockets = append(r.Sockets, text)
	}
	slices.Sort(r.Sockets)
	return r
}

// A child is a process that does a task. It ends with the test, or by end.
type child struct {
	*exec.Cmd
	stdin  io.Closer
	answer json.RawMessage
}

// start starts a child in this test's namespaces, or in the network namespace of a
// file, and waits until it has done its task.
func start(t *testing.T, netns string, job task, attr *syscall.SysProcAttr) *child {
	t.Helper()
	var c *child
	begin := func() (err error) {
		c, err = begin(job, attr)
		return err
	}
	var err error
	if netns == "" {
		err = begin()
	} else {
		f, openErr := os.Open(netns)
		if openErr != nil {
			t.Fatal(openErr)
		}
		defer f.Close()
		err = inside(f, begin)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	return c
}

func begin(job task, attr *syscall.SysProcAttr) (*child, error) {
	text, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envTask+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{Cmd: cmd, stdin: stdin}
	var line bytes.Buffer
	deadline := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer deadline.Stop()
	if err := json.NewDecoder(io.TeeReader(out, &line)).Decode(&c.answer); err != nil {
		c.end()
		return nil, fmt.Errorf("child: %w: %s", err, line.String())
	}
	return c, nil
}

func (c *child) end() {
	c.stdin.Close()
	c.Process.Kill()
	c.Wait()
}

func (c *child) reports(t *testing.T) (all []report) {
	t.Helper()
	if err := json.Unmarshal(c.answer, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// isolated skips a test that needs namespaces of its own.
func isolated(t *testing.T) {
	t.Helper()
	if os.Getenv(envIsolated) == "" {
		t.Skip("needs namespaces of its own, and thus root")
	}
}

// ip runs ip(8) with arguments as one string.
func ip(t *testing.T, arguments string) {
	t.Helper()
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

func options(backend string) Options {
	return Options{Backend: backend, Others: true, Refresh: 5 * time.Minute}
}

func open(t *testing.T, o Options) *Set {
	t.Helper()
	s, err := Open(host.Find("/proc"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func find(t *testing.T, s *Set) {
	t.Helper()
	partial, err := s.Find(t.Context(), time.Now())
	if err != nil || partial != "" {
		t.Fatalf("partial %q, %v", partial, err)
	}
}

// named returns the namespace of that name, or nil.
func named(s *Set, name string) *Namespace {
	for _, n := range s.All() {
		if n.Name() == name {
			return n
		}
	}
	return nil
}

var wildcardIPv4 = netip.IPv4Unspecified()
