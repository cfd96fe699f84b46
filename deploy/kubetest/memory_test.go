package kubetest

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	apps "k8s.io/api/apps/v1"
)

var (
	nodeProcesses = flag.Int("node.processes", 50, "processes of the node that is measured")
	nodeListeners = flag.Int("node.listeners", 100, "listeners of each")
	nodeFiles     = flag.Int("node.files", 100, "more open files of each")
	nodeFor       = flag.Duration("node.for", 5*time.Second, "how long to measure after the first complete page")
)

// The pod stays below its memory limit on a node with as many listeners as max_listeners allows.
// With the flags it measures other nodes; docs/kubernetes.md has results.
func TestMemoryLimitIsEnoughForTheLargestNode(t *testing.T) {
	all := objects(t, valueSets(t)["default"])
	spec := only[*apps.DaemonSet](t, all).Spec.Template.Spec
	node := crowdedNode{
		Container: newContainer(t, spec, all, map[string]string{"state": t.TempDir()}),
		Processes: *nodeProcesses, Listeners: *nodeListeners, Files: *nodeFiles, For: *nodeFor,
	}
	description, err := json.Marshal(node)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "crowd", string(description))
	cmd.Env = environment(spec.Containers[0].Env)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		needsRoot(t, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var got usage
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatalf("%v\n%s%s", err, &stdout, &stderr)
	}
	t.Logf("%d listeners, %d processes, %d open files: %d series, at most %d KiB, %d KiB of it private, %v of CPU in %v",
		node.Processes*node.Listeners, node.Processes, node.Processes*(node.Listeners+node.Files),
		got.Series, got.Peak, got.Private, got.CPU, got.After.Round(time.Second))
	if limit := spec.Containers[0].Resources.Limits.Memory().Value(); int64(got.Peak)<<10 > limit {
		t.Errorf("%d KiB of memory, the limit is %d KiB", got.Peak, limit>>10)
	}
}

// A crowdedNode is a node with many listeners and the container of a pod.
type crowdedNode struct {
	Container                   container
	Processes, Listeners, Files int
	For                         time.Duration
}

// usage is the resource usage of a pod.
type usage struct {
	Series        int
	Peak, Private int           // KiB: VmHWM, RssAnon
	CPU           time.Duration // user and system
	After         time.Duration // since its start
}

// crowd is the first process of a crowded node: it prints the usage of the pod, scraped every second.
func crowd(description string) int {
	var n crowdedNode
	err := json.Unmarshal([]byte(description), &n)
	var u usage
	if err == nil {
		u, err = n.measure()
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(u)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		return 1
	}
	return 0 // the kernel ends the other processes of the pid namespace
}

func (n *crowdedNode) measure() (u usage, err error) {
	if err := mountProc(); err != nil {
		return u, err
	}
	if err := loopbackUp(); err != nil {
		return u, err
	}
	for range n.Processes {
		cmd := exec.Command("/proc/self/exe", "open", strconv.Itoa(n.Listeners), strconv.Itoa(n.Files))
		cmd.Stderr = os.Stderr
		ready, err := cmd.StdoutPipe()
		if err != nil {
			return u, err
		}
		if err := cmd.Start(); err != nil {
			return u, err
		}
		if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
			return u, err
		}
	}
	description, err := json.Marshal(n.Container)
	if err != nil {
		return u, err
	}
	start := time.Now()
	pod, err := startContainer(string(description))
	if err != nil {
		return u, err
	}
	var complete time.Time
	for time.Since(start) < 2*time.Minute {
		time.Sleep(time.Second)
		var shown int
		if u.Series, shown, err = scrape(); err != nil {
			continue
		}
		if complete.IsZero() && shown >= min(n.Processes*n.Listeners, 4500) { // max_listeners leaves some out
			complete = time.Now()
		}
		if complete.IsZero() || time.Since(complete) < n.For {
			continue
		}
		u.After = time.Since(start)
		return u, u.read(pod.Process.Pid)
	}
	return u, fmt.Errorf("no complete page in %v, but %d series (last error: %v)", time.Since(start), u.Series, err)
}

// loopbackUp makes 127.0.0.1 an address of a new network namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// scrape returns the number of series on the page, and of listeners with a known owner.
func scrape() (series, listeners int, err error) {
	response, err := http.Get("http://127.0.0.1:8088/metrics")
	if err != nil {
		return 0, 0, err
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, 0, err
	}
	return len(regexp.MustCompile("(?m)^[^#]").FindAll(page, -1)), bytes.Count(page, []byte("\ntcp_listen_pid{")), nil
}

// read reads the usage of a process.
func (u *usage) read(pid int) error {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "VmHWM: %d kB", &u.Peak)
		fmt.Sscanf(line, "RssAnon: %d kB", &u.Private)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third on
	for _, field := range fields[11:13] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			return err
		}
		u.CPU += time.Duration(ticks) * time.Second / 100
	}
	return nil
}

// open opens listeners and other files, and runs until it is killed.
func open(listeners, files string) int {
	count := func(text string, f func() error) error {
		n, err := strconv.Atoi(text)
		for i := 0; err == nil && i < n; i++ {
			err = f()
		}
		return err
	}
	var kept []any // else they would be closed
	err := count(listeners, func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		kept = append(kept, l)
		return err
	})
	if err == nil {
		err = count(files, func() error {
			f, err := os.Open("/dev/null")
			kept = append(kept, f)
			return err
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "open:", err)
		return 1
	}
	fmt.Print("1")
	time.Sleep(time.Hour)
	runtime.KeepAlive(kept)
	return 0
}
