package compare

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cakturk/go-netstat/netstat"
)

// ancestorSeries returns the series of the blog's exporter for the IPv4 listeners
// of this network namespace: go-netstat's sockets and owners, addresses by name,
// cut at 17 bytes.
func ancestorSeries(t *testing.T) []string {
	t.Helper()
	sockets, err := netstat.TCPSocks(func(s *netstat.SockTabEntry) bool { return s.State == netstat.Listen })
	if err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	var series []string
	for _, s := range sockets {
		if s.Process == nil {
			t.Fatalf("go-netstat finds no owner of %v", s.LocalAddr)
		}
		address := s.LocalAddr.IP.String()
		if names, err := net.LookupAddr(address); err == nil && len(names) > 0 {
			address = names[0]
		}
		port := fmt.Sprintf("tcp %s:%d", address[:min(len(address), 17)], s.LocalAddr.Port)
		series = append(series, fmt.Sprintf(`custom_port_exporter{app=%q,host=%q,pid="%d",port=%q,state="%d"} %d`,
			s.Process.Name, host, s.Process.Pid, port, s.State, s.Process.Pid))
	}
	slices.Sort(series)
	return series
}

const envListener = "SOCKWATCH_TEST_LISTENER"

// listenAs is a child process that listens under a name of its own.
func listenAs(name string) error {
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "127.0.0.2:0"} {
		l, err := net.Listen("tcp4", address)
		if err != nil {
			return err
		}
		defer l.Close()
	}
	// The comm of the first thread is the process's name.
	if err := os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", os.Getpid()), []byte(name), 0); err != nil {
		return err
	}
	fmt.Println("listening")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// In a network namespace of its own the page of sockwatch and the ancestor's show
// the same series for the IPv4 listeners, line by line.
func TestAncestorShowsTheSameSeries(t *testing.T) {
	if os.Getenv("SOCKWATCH_TEST_OWN_NET") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAncestorShowsTheSameSeries$", "-test.v")
		cmd.Env = append(os.Environ(), "SOCKWATCH_TEST_OWN_NET=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		if _, exited := err.(*exec.ExitError); err != nil && !exited {
			t.Skipf("no network namespace: %v", err)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("%s", out)
		return
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"docker-proxy", "etcd"} {
		startListener(t, name)
	}
	page := startSockwatch(t)
	var want, got []string
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		// The names of addresses are looked up in the background.
		want, got = ancestorSeries(t), exporterSeries(t, page)
		if len(want) == 7 && slices.Equal(want, got) {
			t.Logf("both show\n%s", strings.Join(want, "\n"))
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the ancestor shows %d series\n%s\nsockwatch %d\n%s", len(want), strings.Join(want, "\n"), len(got), strings.Join(got, "\n"))
		}
	}
}

func startListener(t *testing.T, name string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envListener+"="+name)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "listening\n" {
		t.Fatalf("%s: %q, %v", name, line, err)
	}
}

// startSockwatch builds and starts the program and returns its page's address.
func startSockwatch(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program, file := filepath.Join(dir, "sockwatch"), filepath.Join(dir, "sockwatch.toml")
	build := exec.Command("go", "build", "-o", program, "./cmd/sockwatch")
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const address = "127.0.0.1:8088" // the namespace is ours
	text := "[agent]\n  interval = \"1s\"\n[[inputs.tcp_listen]]\n  custom_port_exporter = true\n  resolve_addresses = true\n" +
		"[[outputs.prometheus]]\n  listen = \"" + address + "\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "run", "--config", file)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	return "http://" + address + "/metrics"
}

// exporterSeries returns the page's series of custom_port_exporter.
func exporterSeries(t *testing.T, page string) []string {
	t.Helper()
	resp, err := http.Get(page)
	if err != nil {
		return nil // not listening yet
	}
	defer resp.Body.Close()
	var series []string
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "custom_port_exporter{") {
			series = append(series, lines.Text())
		}
	}
	slices.Sort(series)
	return series
}
