package tcplisten

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The tests are about processes and their sockets: real ones, which are this test
// program again with a task in its environment.
const (
	envTask     = "SOCKWATCH_TEST_TASK"
	envIsolated = "SOCKWATCH_TEST_ISOLATED"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(envTask); text != "" {
		var t task
		if err := json.Unmarshal([]byte(text), &t); err != nil {
			fmt.Println("error: read the task:", err)
			os.Exit(1)
		}
		t.perform()
	}
	os.Exit(m.Run())
}

// A task is what a child is told to do. When it has done it, it prints the ports
// of its sockets in one line, and then lives until its standard input ends.
type task struct {
	Name    []byte       // what it calls itself
	Listen  []listenTask // what it listens on
	Workers int          // children of its own that inherit all sockets
	UID     int          // who it becomes, once it listens
	Worker  bool         // it is such a child, with sockets from fd 3 on
	Files   int          // files that it opens beside
	Conns   int          // connections that it makes to its first socket, and accepts
}

// A listenTask is one listening socket.
type listenTask struct {
	Addr      string
	Port      int // 0: the kernel's choice
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
	var files []*os.File
	var ports []int
	for _, l := range t.Listen {
		if t.Worker {
			break
		}
		fd, port, err := l.open()
		if err != nil {
			return fmt.Errorf("listen on %+v: %w", l, err)
		}
		files = append(files, os.NewFile(uintptr(fd), "socket"))
		ports = append(ports, port)
	}
	for range t.Files {
		if _, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
	}
	for range t.Conns {
		if err := connect(int(files[0].Fd())); err != nil {
			return err
		}
	}
	if t.UID != 0 {
		if err := syscall.Setuid(t.UID); err != nil {
			return err
		}
	}
	for range t.Workers {
		w := *t
		w.Worker, w.Workers, w.UID = true, 0, 0
		if _, _, err := spawn(&w, files, nil); err != nil {
			return err
		}
	}
	if len(t.Name) > 0 {
		if err := os.WriteFile("/proc/self/comm", t.Name, 0); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(ports); err != nil {
		return err
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

// connect makes a connection to a listening socket and accepts it; both ends stay.
func connect(listening int) error {
	to, err := unix.Getsockname(listening)
	if err != nil {
		return err
	}
	family := unix.AF_INET
	if _, is6 := to.(*unix.SockaddrInet6); is6 {
		family = unix.AF_INET6
	}
	client, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(client, to); err != nil {
		return err
	}
	_, _, err = unix.Accept(listening)
	return err
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

// spawn starts a child with its task and waits until that is done. The child ends
// when the file returned is closed.
func spawn(t *task, inherit []*os.File, attr *syscall.SysProcAttr) (*exec.Cmd, []int, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envTask+"="+string(text))
	cmd.ExtraFiles = inherit
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var ports []int
	if err == nil {
		err = json.Unmarshal([]byte(line), &ports)
	}
	if err != nil {
		cmd.Process.Kill()
		return nil, nil, fmt.Errorf("child says %q: %w", strings.TrimSpace(line), err)
	}
	return cmd, ports, nil
}

// start starts a child that the test ends.
func start(t *testing.T, job task) (cmd *exec.Cmd, ports []int) {
	t.Helper()
	cmd, ports, err := spawn(&job, nil, &syscall.SysProcAttr{Setpgid: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	return cmd, ports
}

// end ends a child with its workers, and waits until it is gone.
func end(cmd *exec.Cmd) {
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	cmd.Wait()
}

// isolated runs the test that calls it in a network namespace of its own, with
// loopback up, and returns true there. Where that may not be, it runs the test in
// the namespace that it is in and shares.
func isolated(t *testing.T) (own, done bool) {
	t.Helper()
	if os.Getenv(envIsolated) != "" {
		return true, false
	}
	if os.Geteuid() != 0 {
		return false, false
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "5m")
	cmd.Env = append(os.Environ(), envIsolated+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Setpgid: true}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
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

// ip runs ip(8) with arguments as one string.
func ip(t *testing.T, arguments string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", arguments, err, out)
	}
}
