package kubetest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	kube "k8s.io/apimachinery/pkg/runtime"
)

// The pod of the chart runs here as a kubelet and its runtime would run it: with its user, its
// capabilities, no new privileges, its read-only root filesystem, its mounts and its environment.
// It answers its probes, creates its state directory, names the owner of another user's socket, and
// stops within its grace period.
func TestPodShowsTheOwnersOfTheNode(t *testing.T) {
	for _, test := range []struct {
		values    string
		stateMode fs.FileMode // of the directory that the kubelet makes
		page      string      // another thing that the metrics have
		bpf       bool        // it has the capabilities for BPF
		wantUID   int
	}{
		{values: "default", stateMode: 0o755, wantUID: 0},
		{values: "doc-user", stateMode: 0o777, wantUID: 65532},
		{values: "doc-bpf", stateMode: 0o755, page: `(?m)^tcp_listen_source_info\{.*listen_events="on".*owner_source="bpf"`, bpf: true, wantUID: 0},
		{values: "doc-output", stateMode: 0o755, page: `(?m)^sockwatch_output_up\{host="node-1",output="influxdb"\}`, wantUID: 0},
		{values: "doc-pods", stateMode: 0o755, page: `(?m)^tcp_listen_pid\{.*netns=".*process="exe".*$`, wantUID: 0},
		{values: "doc-rules", stateMode: 0o755, page: `(?m)^tcp_listen_expect_up\{host="node-1",name="kubelet",rule="expect"\} [01]$`, wantUID: 0},
		{values: "doc-web", stateMode: 0o755, wantUID: 0},
	} {
		t.Run(test.values, func(t *testing.T) {
			port := freePort(t)
			values := valueSets(t)[test.values]
			values["service"] = map[string]any{"port": port}
			all := objects(t, values)
			state := t.TempDir()
			if err := os.Chmod(state, test.stateMode); err != nil {
				t.Fatal(err)
			}
			certificate, key := selfSigned(t)
			p := startPod(t, only[*apps.DaemonSet](t, all).Spec.Template.Spec, all, map[string]string{
				"state":    state,
				"influxdb": volume(t, map[string]string{"token": "secret"}),
				"web":      volume(t, map[string]string{"web.yml": documentedWebConfig(t), "tls.crt": certificate, "tls.key": key}),
			})

			for _, probe := range []*core.Probe{p.spec.Containers[0].LivenessProbe, p.spec.Containers[0].ReadinessProbe} {
				if probe.HTTPGet != nil {
					p.ask(t, port, probe.HTTPGet.Path, "^sockwatch is (healthy|ready)")
				}
			}
			if test.page != "" {
				p.ask(t, port, "/metrics", test.page)
			}
			line := p.ask(t, port, "/metrics", `(?m)^tcp_listen_pid\{.*port="`+p.listener+`".*$`)
			for _, want := range []string{`host="node-1"`, `owner="resolved"`, `process="exe"`, `user="nobody"`} {
				if !strings.Contains(line, want) {
					t.Errorf("%s\nwant %s in it\n%s", line, want, p.stderr)
				}
			}
			capabilities := "0000000000080004"
			if test.bpf {
				capabilities = "000000c000080004"
			}
			want := map[string]string{
				"Uid": strings.TrimSuffix(strings.Repeat(strconv.Itoa(test.wantUID)+"\t", 4), "\t"), "NoNewPrivs": "1",
				"CapPrm": capabilities, "CapEff": capabilities, "CapBnd": capabilities, "CapAmb": "0000000000000000",
			}
			if diff := cmp.Diff(want, p.status(t, want)); diff != "" {
				t.Errorf("process (-want +got):\n%s", diff)
			}
			info, err := os.Stat(state + "/state")
			if err != nil {
				t.Fatal(err)
			}
			if owner := int(info.Sys().(*syscall.Stat_t).Uid); info.Mode().Perm() != 0o700 || owner != test.wantUID {
				t.Errorf("the state directory has the mode %v and the owner %d, want 0700 and %d", info.Mode(), owner, test.wantUID)
			}
			p.stop(t)
		})
	}
}

// A Secret that changes, which the kubelet writes as one new directory, is used by the next connection.
func TestChangedPasswordIsUsedWithoutARestart(t *testing.T) {
	port := freePort(t)
	values := valueSets(t)["doc-web"]
	values["service"] = map[string]any{"port": port}
	all := objects(t, values)
	certificate, key := selfSigned(t)
	files := map[string]string{"web.yml": documentedWebConfig(t), "tls.crt": certificate, "tls.key": key}
	web := volume(t, files)
	p := startPod(t, only[*apps.DaemonSet](t, all).Spec.Template.Spec, all, map[string]string{"state": t.TempDir(), "web": web})
	p.ask(t, port, "/-/ready", "^sockwatch is ready")

	hash, err := bcrypt.GenerateFromPassword([]byte("changed"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	files["web.yml"] = regexp.MustCompile(`prometheus: \S+`).ReplaceAllLiteralString(files["web.yml"], "prometheus: "+string(hash))
	fill(t, web, files)
	p.askAs(t, "changed", port, "/-/ready", "^sockwatch is ready")
	p.stop(t)
}

// freePort returns a free port of 127.0.0.1.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// selfSigned returns a certificate for 127.0.0.1 and its key.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: privateDER}))
}

// A pod is a running pod, alone on its own node with a listener of the user nobody.
type pod struct {
	spec     core.PodSpec
	node     *exec.Cmd
	stderr   *bytes.Buffer
	done     chan struct{} // the node has ended
	listener string        // its port
	pid      string        // of sockwatch, on the node
}

// needsRoot skips the test if an error says that only root is permitted.
func needsRoot(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, unix.EPERM) {
		t.Skip(err)
	}
	t.Fatal(err)
}

// newContainer creates the root directory of a pod's only container, and returns how to run it.
// Volumes are directories that replace those of the pod, in addition to its configuration and /proc.
func newContainer(t *testing.T, spec core.PodSpec, all []kube.Object, volumes map[string]string) container {
	t.Helper()
	c := container{Root: t.TempDir(), Args: append([]string{"/usr/bin/sockwatch"}, spec.Containers[0].Args...)}
	for _, dir := range []string{"usr/bin", "etc", "var/lib", "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(c.Root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(c.Root, 0o755); err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(program(t))
	if err != nil {
		t.Fatal(err)
	}
	inRoot := c.Root + "/usr/bin/sockwatch"
	if err := os.WriteFile(inRoot, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	// As the image has it: four capabilities, permitted.
	if err := unix.Setxattr(inRoot, "security.capability", []byte("\x00\x00\x00\x02\x04\x00\x08\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00\x00"), 0); err != nil {
		needsRoot(t, err)
	}

	volumes = maps.Clone(volumes)
	volumes["config"], volumes["proc"] = volume(t, configuration(t, spec, all)), "/proc"
	for _, m := range spec.Containers[0].VolumeMounts {
		if volumes[m.Name] == "" {
			t.Fatalf("a mount of the unknown volume %q", m.Name)
		}
		if err := os.MkdirAll(c.Root+m.MountPath, 0o755); err != nil {
			t.Fatal(err)
		}
		c.Mounts = append(c.Mounts, bindMount{Source: volumes[m.Name], Target: c.Root + m.MountPath, ReadOnly: m.ReadOnly})
	}
	c.User, c.Group = int(*spec.SecurityContext.RunAsUser), int(*spec.SecurityContext.RunAsGroup)
	s := spec.Containers[0].SecurityContext
	c.ReadOnlyRoot, c.NoNewPrivileges = *s.ReadOnlyRootFilesystem, !*s.AllowPrivilegeEscalation
	for _, capability := range s.Capabilities.Add {
		number, ok := map[core.Capability]int{
			"DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH, "SYS_PTRACE": unix.CAP_SYS_PTRACE,
			"BPF": unix.CAP_BPF, "PERFMON": unix.CAP_PERFMON,
		}[capability]
		if !ok {
			t.Fatalf("unknown capability %s", capability)
		}
		c.Capabilities |= 1 << number
	}
	return c
}

// startPod starts a pod; newContainer has the parameters.
func startPod(t *testing.T, spec core.PodSpec, all []kube.Object, volumes map[string]string) *pod {
	t.Helper()
	description, err := json.Marshal(newContainer(t, spec, all, volumes))
	if err != nil {
		t.Fatal(err)
	}

	p := &pod{spec: spec, node: exec.Command("/proc/self/exe", "node", string(description)), stderr: &bytes.Buffer{}, done: make(chan struct{})}
	p.node.Env = environment(spec.Containers[0].Env)
	p.node.Stderr = p.stderr
	p.node.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC}
	stdout, err := p.node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.node.Start(); err != nil {
		needsRoot(t, err)
	}
	t.Cleanup(func() {
		p.node.Process.Kill() // the kernel ends the others of its pid namespace
		<-p.done
	})
	_, err = fmt.Fscanln(stdout, &p.listener, &p.pid)
	go func() {
		defer close(p.done)
		io.Copy(io.Discard, stdout)
		p.node.Wait()
	}()
	if err != nil {
		<-p.done
		t.Fatalf("node: %v\n%s", err, p.stderr)
	}
	return p
}

// ask requests a page until it matches the pattern, and returns the page.
func (p *pod) ask(t *testing.T, port int, path, pattern string) string {
	t.Helper()
	return p.askAs(t, "secret", port, path, pattern)
}

// askAs is ask with another password than the one in docs/kubernetes.md.
func (p *pod) askAs(t *testing.T, password string, port int, path, pattern string) string {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	client := http.Client{Timeout: 5 * time.Second, Transport: transport}
	url := fmt.Sprintf("http://127.0.0.1:%d%s", port, path)
	if slices.ContainsFunc(p.spec.Volumes, func(v core.Volume) bool { return v.Name == "web" }) {
		url = fmt.Sprintf("https://prometheus:%s@127.0.0.1:%d%s", password, port, path)
	}
	var last string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		select {
		case <-p.done:
			t.Fatalf("the pod has ended: %v\n%s", p.node.ProcessState, p.stderr)
		default:
		}
		response, err := client.Get(url)
		if err != nil {
			last = err.Error()
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		last = fmt.Sprintf("%s, %v\n%s", response.Status, err, body)
		if match := regexp.MustCompile(pattern).Find(body); match != nil && response.StatusCode == http.StatusOK {
			return string(match)
		}
	}
	t.Fatalf("%s: no %q in a minute, last:\n%s", path, pattern, last)
	return ""
}

// status returns the lines of /proc/PID/status that want has.
func (p *pod) status(t *testing.T, want map[string]string) map[string]string {
	t.Helper()
	got := make(map[string]string)
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/root/proc/%s/status", p.node.Process.Pid, p.pid))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		if _, ok := want[name]; ok {
			got[name] = value
		}
	}
	return got
}

// stop ends the pod as the kubelet does.
func (p *pod) stop(t *testing.T) {
	t.Helper()
	if err := p.node.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(time.Duration(*p.spec.TerminationGracePeriodSeconds) * time.Second):
		t.Fatalf("the pod outlives its grace period\n%s", p.stderr)
	}
	if code := p.node.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.stderr)
	}
}

// node is the first process of a node: it starts a listener of the user nobody and a container,
// prints the port and the pid, passes SIGTERM on, and ends as the container does.
func node(description string) int {
	code, err := runNode(description)
	if err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		return 1
	}
	return code
}

func runNode(description string) (code int, err error) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if err := mountProc(); err != nil {
		return 0, err
	}
	port, err := startListener("127.0.0.1:0", 0)
	if err != nil {
		return 0, err
	}
	if _, err := startListener("0.0.0.0:0", unix.CLONE_NEWNET); err != nil { // as inside another pod
		return 0, err
	}
	inside, err := startContainer(description)
	if err != nil {
		return 0, err
	}
	fmt.Println(port, inside.Process.Pid)
	go func() {
		for range stop {
			inside.Process.Signal(syscall.SIGTERM)
		}
	}()
	var exit *exec.ExitError
	if err := inside.Wait(); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return inside.ProcessState.ExitCode(), nil
}

// mountProc mounts the procfs of a new pid namespace in a new mount namespace.
func mountProc() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.Mount("proc", "/proc", "proc", 0, "")
}

// startContainer starts a container in its own namespaces, like those of a pod with hostNetwork and
// hostPID has.
func startContainer(description string) (*exec.Cmd, error) {
	cmd := exec.Command("/proc/self/exe", "contain", description)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWIPC}
	return cmd, cmd.Start()
}

// startListener starts a listening process of the user nobody, and returns its port.
func startListener(address string, namespaces uintptr) (port string, err error) {
	cmd := exec.Command("/proc/self/exe", "listen", address)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Cloneflags: namespaces}
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	_, err = fmt.Fscanln(stdout, &port)
	return port, err
}

// listen listens until it is killed, and prints the port.
func listen(address string) int {
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, "listen:", err)
		return 1
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	select {}
}

// A container says what the process "contain" does before it becomes the program.
type container struct {
	Root            string
	ReadOnlyRoot    bool
	Mounts          []bindMount
	User, Group     int
	Capabilities    uint64 // a bit for each
	NoNewPrivileges bool
	Args            []string
}

type bindMount struct {
	Source, Target string
	ReadOnly       bool
}

// contain becomes a program in a container, in the order of runc: mounts, root, bounding set, user
// with its capabilities kept, no new privileges.
func contain(description string) int {
	runtime.LockOSThread() // whose credentials the program gets
	var c container
	err := json.Unmarshal([]byte(description), &c)
	for _, step := range []func() error{c.mount, c.enter, c.restrict, c.exec} {
		if err == nil {
			err = step()
		}
	}
	fmt.Fprintln(os.Stderr, "contain:", err)
	return 1
}

func (c *container) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	mounts := append([]bindMount{{Source: c.Root, Target: c.Root}}, c.Mounts...)
	for _, m := range mounts {
		if err := unix.Mount(m.Source, m.Target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("%s: %w", m.Target, err)
		}
		if m.ReadOnly {
			if err := unix.Mount("", m.Target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
				return fmt.Errorf("%s: %w", m.Target, err)
			}
		}
	}
	if err := unix.Mount("/sys", c.Root+"/sys", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("/sys: %w", err)
	}
	return unix.Mount("proc", c.Root+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

func (c *container) enter() error {
	if c.ReadOnlyRoot {
		if err := unix.Mount("", c.Root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return err
		}
	}
	if err := unix.Chroot(c.Root); err != nil {
		return err
	}
	return unix.Chdir("/")
}

func (c *container) restrict() error {
	for number := range unix.CAP_LAST_CAP + 1 {
		if c.Capabilities&(1<<number) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	// Only for this thread: the functions of package syscall change all threads.
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS, 0, 0, 0},
		{unix.SYS_SETRESGID, uintptr(c.Group), uintptr(c.Group), uintptr(c.Group)},
		{unix.SYS_SETRESUID, uintptr(c.User), uintptr(c.User), uintptr(c.User)},
	} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return errno
		}
	}
	var sets [2]unix.CapUserData
	for i := range sets {
		word := uint32(c.Capabilities >> (32 * i))
		sets[i] = unix.CapUserData{Permitted: word, Effective: word}
	}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &sets[0]); err != nil {
		return err
	}
	if !c.NoNewPrivileges {
		return nil
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

func (c *container) exec() error {
	return unix.Exec(c.Args[0], c.Args, os.Environ())
}
