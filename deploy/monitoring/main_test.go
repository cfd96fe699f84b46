package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be a process that listens.
func TestMain(m *testing.M) {
	if address := os.Getenv("MONITORING_TEST_LISTEN"); address != "" {
		os.Exit(listen(address))
	}
	flag.Parse()
	os.Exit(m.Run())
}

// listen listens until the end of standard input.
func listen(address string) int {
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer l.Close()
	fmt.Println("listening")
	io.Copy(io.Discard, os.Stdin)
	return 0
}

// inNamespace runs the test in a network namespace of its own, with 203.0.113.7 as a
// public address. It returns true there, and false in the namespace of the caller, after
// the test has run.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("MONITORING_TEST_NAMESPACE") == t.Name() {
		for _, args := range [][]string{{"link", "set", "lo", "up"}, {"address", "add", "203.0.113.7/32", "dev", "lo"}} {
			if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
				t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
			}
		}
		return true
	}
	args := append(os.Args[1:len(os.Args):len(os.Args)], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "MONITORING_TEST_NAMESPACE="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.Process == nil {
		t.Skipf("a network namespace of its own: %v", err)
	}
	t.Logf("%s", out)
	switch {
	case err != nil:
		t.Fail()
	case strings.Contains(string(out), "--- SKIP: "+t.Name()):
		t.SkipNow()
	}
	return false
}

// buildProgram builds sockwatch in a folder and returns its path.
func buildProgram(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "sockwatch")
	cmd := exec.Command("go", "build", "-C", root, "-o", path, "./cmd/sockwatch")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// startProgram starts a process that ends with the test, as a user.
func startProgram(t *testing.T, uid uint32, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program, args...)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("%s %q wrote:\n%s", program, args, text)
		}
	})
	return cmd
}

// A listener is a process that listens.
type listener struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

// startListener starts a listener: the test binary, under another name.
func startListener(t *testing.T, name, address string) *listener {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(path, text, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{cmd: exec.Command(path)}
	l.cmd.Env = append(os.Environ(), "MONITORING_TEST_LISTEN="+address)
	l.cmd.Stderr = os.Stderr
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if l.stdin, err = l.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	if _, err := stdout.Read(make([]byte, 20)); err != nil {
		t.Fatalf("%s does not listen at %s: %v", name, address, err)
	}
	return l
}

// close closes the listener and ends its process.
func (l *listener) close() {
	l.cmd.Process.Kill()
	l.cmd.Wait()
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited for %s", what)
		}
	}
}
