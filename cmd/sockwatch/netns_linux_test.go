package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A netHost is a network namespace of a test's own, as another host: nothing listens there
// but what the test starts.
type netHost struct {
	t    *testing.T
	path string // of the namespace
	dir  string // for programs
}

// newNetHost makes a namespace. Only root may.
func newNetHost(t *testing.T) *netHost {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := &netHost{t: t, dir: t.TempDir()}
	if err := os.Link(exe, filepath.Join(h.dir, "test")); err != nil {
		text, err := os.ReadFile(exe) // of another file system
		if err == nil {
			err = os.WriteFile(filepath.Join(h.dir, "test"), text, 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, "in-netns", []string{"SOCKWATCH_TEST_NETNS=new", "SOCKWATCH_TEST_THEN=netns"})
	awaitLine(t, p)
	h.path = fmt.Sprintf("/proc/%d/ns/net", p.Process.Pid)
	return h
}

// awaitLine waits until a process prints a line.
func awaitLine(t *testing.T, p *process) {
	t.Helper()
	eventually(t, "a line of "+p.Path, func() bool {
		select {
		case <-p.exited:
			t.Fatalf("%s: %v: %s", p.Path, p.err, p.stderr)
		default:
		}
		return strings.HasSuffix(p.stdout.String(), "\n")
	})
}

// program returns a path of the test binary, below the host's directory.
func (h *netHost) program(path string) string {
	h.t.Helper()
	path = filepath.Join(h.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Link(filepath.Join(h.dir, "test"), path); err != nil && !os.IsExist(err) {
		h.t.Fatal(err)
	}
	return path
}

// start starts the test binary at a path as what, in the namespace.
func (h *netHost) start(path, what string, env []string, args ...string) *process {
	h.t.Helper()
	env = append([]string{"SOCKWATCH_TEST_NETNS=" + h.path, "SOCKWATCH_TEST_THEN=" + what}, env...)
	return startProgram(h.t, h.program(path), "in-netns", env, &textBuffer{}, args...)
}

// serve starts a service that listens at addresses: NETWORK/ADDRESS.
func (h *netHost) serve(path string, uid int, addresses ...string) *process {
	h.t.Helper()
	return h.serveAs("", path, uid, addresses...)
}

// serveAs is serve for a service that gives its process a name.
func (h *netHost) serveAs(name, path string, uid int, addresses ...string) *process {
	h.t.Helper()
	return h.start(path, "service", []string{"SOCKWATCH_TEST_UID=" + strconv.Itoa(uid), "SOCKWATCH_TEST_NAME=" + name}, addresses...)
}

// sockwatch runs the program in the namespace.
func (h *netHost) sockwatch(args ...string) result {
	h.t.Helper()
	p := h.start("sockwatch", "sockwatch", nil, args...)
	code := p.exitCode(h.t)
	return result{code, p.stdout.String(), p.stderr.String()}
}

// dropPrivileges makes the process one of a user who may see nobody else's.
func dropPrivileges() {
	if err := syscall.Setuid(65534); err != nil {
		panic(err)
	}
}

// enterNetns enters a network namespace, and starts what a variable says there: with exec,
// so that every thread is in it.
func enterNetns() int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	runtime.LockOSThread()
	if path := os.Getenv("SOCKWATCH_TEST_NETNS"); path == "new" {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fail(err)
		}
	} else {
		f, err := os.Open(path)
		if err != nil {
			return fail(err)
		}
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fail(err)
		}
		f.Close() // it is not used any more
	}
	if err := os.Setenv("SOCKWATCH_TEST_BE", os.Getenv("SOCKWATCH_TEST_THEN")); err != nil {
		return fail(err)
	}
	return fail(syscall.Exec(os.Args[0], os.Args, os.Environ()))
}

// holdNetns sets the loopback device of its namespace up, and stays until the end of its
// standard input.
func holdNetns() int {
	err := func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		lo, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		lo.SetUint16(unix.IFF_UP)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("up")
	io.Copy(io.Discard, os.Stdin)
	return 0
}

// serveUntilEOF listens at the addresses in its arguments, as the user and under the name
// that variables say, and prints a line. It ends at the end of its standard input.
func serveUntilEOF() int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	uid, err := strconv.Atoi(os.Getenv("SOCKWATCH_TEST_UID"))
	if err != nil {
		return fail(err)
	}
	if name := os.Getenv("SOCKWATCH_TEST_NAME"); name != "" {
		if err := os.WriteFile("/proc/self/comm", []byte(name), 0); err != nil {
			return fail(err)
		}
	}
	if err := syscall.Setuid(uid); err != nil {
		return fail(err)
	}
	for _, a := range os.Args[1:] {
		network, address, _ := strings.Cut(a, "/")
		l, err := net.Listen(network, address)
		if err != nil {
			return fail(err)
		}
		defer l.Close()
	}
	fmt.Println("listening")
	io.Copy(io.Discard, os.Stdin)
	return 0
}
