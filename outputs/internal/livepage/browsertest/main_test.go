// Package browsertest tests the live page in a real Chromium: the real program, real
// listeners and real keys. It is a module of its own, so that sockwatch itself depends on
// neither chromedp nor npm packages.
package browsertest

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// The environment of the test binary when it is started as something else.
const (
	envListen    = "BROWSERTEST_LISTEN"    // a process that listens
	envNamespace = "BROWSERTEST_NAMESPACE" // the tests, in their own network namespace
)

// binary is the program under test.
var binary string

// TestMain runs the tests in a network namespace of their own: no other listener disturbs
// them, and nothing can be reached from there.
func TestMain(m *testing.M) {
	if os.Getenv(envListen) != "" {
		os.Exit(listen())
	}
	flag.Parse()
	if os.Getenv(envNamespace) == "" {
		os.Exit(runInNamespace())
	}
	if err := loopbackUp(); err != nil {
		fmt.Fprintln(os.Stderr, "loopback:", err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "browsertest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "sockwatch")
	build := exec.Command("go", "build", "-C", filepath.Join("..", "..", "..", ".."), "-o", binary, "./cmd/sockwatch")
	build.Env = append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// runInNamespace runs this test binary again in a new network namespace, as root or in a
// new user namespace.
func runInNamespace() int {
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), envNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	err := cmd.Run()
	switch {
	case cmd.ProcessState != nil:
		return cmd.ProcessState.ExitCode()
	case required():
		fmt.Fprintln(os.Stderr, "a network namespace of its own:", err)
		return 1
	default:
		fmt.Println("SKIP: a network namespace of its own:", err)
		return 0
	}
}

// required reports whether missing programs are failures.
func required() bool { return os.Getenv("SOCKWATCH_REQUIRE_SERVERS") == "1" }

// loopbackUp does "ip link set lo up".
func loopbackUp() error {
	s, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(s)
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_UP | syscall.IFF_RUNNING}
	copy(request.name[:], "lo")
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(s), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}

// address is where the program under test serves the page, and origin its URL.
const (
	address = "127.0.0.1:8088"
	origin  = "http://" + address
)

// A program is a running sockwatch.
type program struct {
	t    *testing.T
	file string // its configuration
	log  *os.File
	cmd  *exec.Cmd
}

// startProgram starts sockwatch with inputs and an output prometheus on address. It ends
// with the test.
func startProgram(t *testing.T, inputs string) *program {
	t.Helper()
	dir := t.TempDir()
	p := &program{t: t, file: filepath.Join(dir, "sockwatch.toml")}
	config := fmt.Sprintf("[agent]\ninterval = \"10s\"\nhostname = \"web1\"\nstate_directory = %q\n%s\n[[outputs.prometheus]]\nlisten = %q\n", dir, inputs, address)
	if err := os.WriteFile(p.file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop()
		if text, _ := os.ReadFile(p.log.Name()); t.Failed() {
			t.Logf("sockwatch wrote:\n%s", text)
		}
		p.log.Close()
	})
	p.start()
	return p
}

// start starts the program and waits until it has gathered.
func (p *program) start() {
	p.t.Helper()
	p.cmd = exec.Command(binary, "run", "--config", p.file)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	for deadline := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(origin + "/-/ready")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("sockwatch is not ready: %v", err)
		}
	}
}

// stop stops the program, and returns how long that took.
func (p *program) stop() time.Duration {
	begin := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error if it was stopped before
	_ = p.cmd.Wait()
	return time.Since(begin)
}

// listen is the main program of a child process. It reads commands from standard input,
// one a line, answers each with a line, and ends with its input:
//
//	open ADDRESS    listens
//	close ADDRESS   no longer does
//	open-many N     listens on N ports from 20000 on
//	fill ADDRESS N  connects N times to an address, and accepts nothing
func listen() int {
	listeners := map[string]net.Listener{}
	var connections []net.Conn
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		command, argument, _ := strings.Cut(lines.Text(), " ")
		var err error
		switch command {
		case "open":
			listeners[argument], err = net.Listen(networkOf(argument), argument)
		case "close":
			err = listeners[argument].Close()
		case "open-many":
			n, _ := strconv.Atoi(argument)
			for port := 20000; port < 20000+n && err == nil; port++ {
				a := fmt.Sprint("127.0.0.1:", port)
				listeners[a], err = net.Listen("tcp4", a)
			}
		case "fill":
			a, times, _ := strings.Cut(argument, " ")
			n, _ := strconv.Atoi(times)
			for i := 0; i < n && err == nil; i++ {
				var c net.Conn
				c, err = net.Dial("tcp", a)
				connections = append(connections, c)
			}
		default:
			err = fmt.Errorf("unknown command %q", command)
		}
		fmt.Println(err)
	}
	for _, c := range connections {
		c.Close()
	}
	return 0
}

// networkOf returns the network of an address: 0.0.0.0 means IPv4 only.
func networkOf(address string) string {
	if strings.HasPrefix(address, "[") {
		return "tcp6"
	}
	return "tcp4"
}

// A child is a process that listens.
type child struct {
	t      *testing.T
	path   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Scanner
}

// startChild starts a process with the given name, which listens on addresses. It ends
// with the test.
func startChild(t *testing.T, name string, addresses ...string) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, path: filepath.Join(t.TempDir(), name)}
	copyFile(t, c.path, self)
	t.Cleanup(func() { c.stop() })
	c.start(addresses...)
	return c
}

// start starts the process, or starts it again after stop.
func (c *child) start(addresses ...string) {
	c.t.Helper()
	c.cmd = exec.Command(c.path)
	c.cmd.Env = append(os.Environ(), envListen+"=1")
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		c.t.Fatal(err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	c.stdout = bufio.NewScanner(stdout)
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	for _, a := range addresses {
		c.do("open " + a)
	}
}

// do runs a command in the child.
func (c *child) do(command string) {
	c.t.Helper()
	fmt.Fprintln(c.stdin, command)
	if !c.stdout.Scan() || c.stdout.Text() != "<nil>" {
		c.t.Fatalf("%s: %s %v", command, c.stdout.Text(), c.stdout.Err())
	}
}

// stop ends the child. Its sockets are closed when it returns.
func (c *child) stop() {
	c.stdin.Close()
	_ = c.cmd.Wait() // an error if it was stopped before
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}
