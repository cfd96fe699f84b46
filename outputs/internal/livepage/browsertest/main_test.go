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

// startProgram starts sockwatch with a configuration, which is added to outputs.prometheus
// on address. It ends with the test.
func startProgram(t *testing.T, config string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "sockwatch.toml")
	config = "[agent]\ninterval = \"200ms\"\nhostname = \"web1\"\nstate_directory = \"" + dir + "\"\n" + config + "\n[[outputs.prometheus]]\nlisten = \"" + address + "\"\n"
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "run", "--config", file)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		log.Close()
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("sockwatch wrote:\n%s", text)
		}
	})
	for deadline := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(origin + "/-/ready")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("sockwatch is not ready: %v", err)
		}
	}
}

// listen is the main program of a child process. It reads commands from standard input,
// one a line, answers each with a line, and ends with its input:
//
//	open ADDRESS    listens
//	close ADDRESS   no longer does
//	fill ADDRESS N  connects N times to an address, and accepts nothing
func listen() int {
	listeners := map[string]net.Listener{}
	var connections []net.Conn
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		command, address, _ := strings.Cut(lines.Text(), " ")
		var err error
		switch command {
		case "open":
			listeners[address], err = net.Listen("tcp", address)
		case "close":
			err = listeners[address].Close()
		case "fill":
			var n int
			if _, err = fmt.Sscan(address, &address, &n); err != nil {
				break
			}
			for range n {
				c, dialErr := net.Dial("tcp", address)
				connections, err = append(connections, c), dialErr
			}
		default:
			err = fmt.Errorf("unknown command %q", command)
		}
		fmt.Println(err)
	}
	return 0
}

// A child is a process that listens.
type child struct {
	t      *testing.T
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
	path := filepath.Join(t.TempDir(), name)
	if err := os.Link(self, path); err != nil {
		copyFile(t, path, self) // another file system
	}
	c := &child{t: t, cmd: exec.Command(path)}
	c.cmd.Env = append(os.Environ(), envListen+"=1")
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.stdin, err = c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdout = bufio.NewScanner(stdout)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.stop)
	for _, a := range addresses {
		c.do("open " + a)
	}
	return c
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
	c.cmd.Wait()
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
