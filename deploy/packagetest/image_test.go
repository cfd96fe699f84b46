package packagetest

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"golang.org/x/sys/unix"
)

// index returns the index of the images that package.sh has built, by architecture.
func index(t *testing.T) map[string]v1.Image {
	t.Helper()
	build(t)
	dir := t.TempDir()
	must(t, "tar -xf "+built.current+"/sockwatch-oci.tar -C "+dir)
	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(top); err != nil {
		t.Fatal(err)
	}
	manifest, err := top.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("index.json has %v, %v; want one index", manifest, err)
	}
	if got := manifest.Manifests[0].Annotations["org.opencontainers.image.ref.name"]; got != sourceVersion {
		t.Errorf("ref.name is %q, want %q", got, sourceVersion)
	}
	all, err := top.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if manifest, err = all.IndexManifest(); err != nil {
		t.Fatal(err)
	}
	images := map[string]v1.Image{}
	for _, m := range manifest.Manifests {
		if images[m.Platform.Architecture], err = all.Image(m.Digest); err != nil {
			t.Fatal(err)
		}
	}
	return images
}

func TestImageIsWhatRegistriesExpect(t *testing.T) {
	images := index(t)
	if len(images) != 2 {
		t.Errorf("%d images, want amd64 and arm64", len(images))
	}
	for _, arch := range []string{"amd64", "arm64"} {
		file, err := images[arch].ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		want := v1.Config{
			Entrypoint: []string{"/usr/bin/sockwatch"}, Cmd: []string{"run"}, User: "65532:65532", Env: []string{"PATH=/usr/bin"},
			ExposedPorts: map[string]struct{}{"8088/tcp": {}},
			Labels: map[string]string{
				"org.opencontainers.image.title":       "sockwatch",
				"org.opencontainers.image.description": "Finds every listening TCP socket of a host and who owns it.",
				"org.opencontainers.image.version":     sourceVersion,
				"org.opencontainers.image.created":     "2023-11-14T22:13:20Z", // the epoch of the tests
				"org.opencontainers.image.licenses":    "MIT",
				"org.opencontainers.image.vendor":      "The sockwatch authors",
			},
		}
		if diff := cmp.Diff(want, file.Config); diff != "" || file.Architecture != arch || file.OS != "linux" {
			t.Errorf("%s: %s/%s, configuration (-want +got):\n%s", arch, file.OS, file.Architecture, diff)
		}
		manifest, err := images[arch].Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Labels, manifest.Annotations); diff != "" {
			t.Errorf("%s: annotations (-want +got):\n%s", arch, diff)
		}
		var names []string
		files := tar.NewReader(mutate.Extract(images[arch]))
		for {
			h, err := files.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Typeflag == tar.TypeReg {
				names = append(names, h.Name)
			}
			if h.Name == "etc/ssl/certs/ca-certificates.crt" {
				text, err := io.ReadAll(files)
				if pool := x509.NewCertPool(); err != nil || !pool.AppendCertsFromPEM(text) {
					t.Errorf("%s holds no certificates (%v)", h.Name, err)
				}
			}
		}
		slices.Sort(names)
		wantNames := []string{
			"etc/group", "etc/passwd", "etc/sockwatch/sockwatch.toml", "etc/ssl/certs/ca-certificates.crt",
			"usr/bin/sockwatch", "usr/share/licenses/sockwatch/LICENSE", "usr/share/licenses/sockwatch/third-party.gz",
		}
		if diff := cmp.Diff(wantNames, names); diff != "" {
			t.Errorf("%s: files (-want +got):\n%s", arch, diff)
		}
	}
}

// TestImageIsPushed runs the command of install.md against a registry of the test's own.
func TestImageIsPushed(t *testing.T) {
	need(t, "skopeo")
	build(t)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	var push string
	for _, b := range blocks(t, "../../docs/install.md") {
		for line := range strings.Lines(b.script) {
			if strings.HasPrefix(line, "skopeo ") {
				push = line
			}
		}
	}
	if push == "" {
		t.Fatal("install.md does not push the image")
	}
	for from, to := range map[string]string{
		"registry.example.org": address,
		"sockwatch-oci.tar":    built.current + "/sockwatch-oci.tar",
		"skopeo copy":          "skopeo copy --insecure-policy --dest-tls-verify=false",
	} {
		if !strings.Contains(push, from) {
			t.Errorf("%q is not in %q", from, push)
		}
		push = strings.ReplaceAll(push, from, to)
	}
	must(t, push)
	tag, err := name.ParseReference(address+"/sockwatch:latest", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := remote.Index(tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(pushed); err != nil {
		t.Error(err)
	}
	manifest, err := pushed.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var architectures []string
	for _, m := range manifest.Manifests {
		architectures = append(architectures, m.Platform.Architecture)
	}
	if diff := cmp.Diff([]string{"amd64", "arm64"}, architectures); diff != "" {
		t.Errorf("architectures in the registry (-want +got):\n%s", diff)
	}
}

// unpacked returns the root filesystem of the image of this machine's architecture.
func unpacked(t *testing.T) string {
	t.Helper()
	image := index(t)[runtime.GOARCH]
	root := t.TempDir()
	extract := exec.Command("tar", "-x", "--xattrs", "--xattrs-include=security.capability", "-C", root)
	extract.Stdin = mutate.Extract(image)
	if output, err := extract.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, output)
	}
	for _, dir := range []string{"host/proc", "proc", "sys"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// contained returns the program of an unpacked image, to be run as container runtimes do: in
// pid and mount namespaces of its own, on a read-only root, with the host's /proc as $HOST_PROC,
// a bounding set of capabilities and no ambient ones.
func contained(t *testing.T, root string, uid int, capabilities string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"contain", root, strconv.Itoa(uid), capabilities, "/usr/bin/sockwatch"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	return cmd
}

func TestImageServesMetrics(t *testing.T) {
	root := unpacked(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd := contained(t, root, 65532, "dac_read_search,sys_ptrace", "run")
	cmd.Env = append(os.Environ(), "SOCKWATCH_LISTEN="+address)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v after SIGTERM\n%s", err, &stderr)
		}
	}()
	_, port, _ := net.SplitHostPort(address)
	eventually(t, "curl -s http://"+address+"/metrics | grep '^tcp_listen_sockets.*port=\""+port+"\"'",
		`owner="resolved",port="`+port+`",process="sockwatch"`)
}

func TestImageShowsTheOwnersOfTheHost(t *testing.T) {
	root := unpacked(t)
	port := rootListener(t)
	const none, both, one, four = "", "dac_read_search,sys_ptrace", "sys_ptrace", "dac_read_search,sys_ptrace,bpf,perfmon"
	for _, test := range []struct {
		name         string
		uid          int
		capabilities string
		hostPID      bool
		wantSource   string // of owners
		wantOwner    string
		wantMissing  bool // a warning names the capabilities
	}{
		{name: "root with both capabilities", uid: 0, capabilities: both, wantSource: "procfs", wantOwner: "resolved"},
		{name: "another user with both capabilities", uid: 65532, capabilities: both, wantSource: "procfs", wantOwner: "resolved"},
		{name: "another user with those for BPF", uid: 65532, capabilities: four, hostPID: true, wantSource: "bpf", wantOwner: "resolved"},
		{name: "another pid namespace with those for BPF", uid: 65532, capabilities: four, wantSource: "procfs", wantOwner: "resolved"},
		{name: "root without", uid: 0, capabilities: none, wantSource: "procfs", wantOwner: "unreadable", wantMissing: true},
		{name: "another user without", uid: 65532, capabilities: none, wantSource: "procfs", wantOwner: "unreadable", wantMissing: true},
		{name: "another user with one of them", uid: 65532, capabilities: one, wantSource: "procfs", wantOwner: "unreadable", wantMissing: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := contained(t, root, test.uid, test.capabilities, "test")
			if test.hostPID {
				cmd.SysProcAttr.Cloneflags &^= unix.CLONE_NEWPID
			}
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s", err, &stderr)
			}
			line := regexp.MustCompile(`(?m)^tcp_listen,.*,port=` + port + `,.*$`).FindString(stdout.String())
			if !strings.Contains(line, ",owner="+test.wantOwner+",") {
				t.Errorf("listener %q, want owner=%s\n%s", line, test.wantOwner, &stderr)
			}
			if named := strings.Contains(line, ",process=packagetest"); named != (test.wantOwner == "resolved") {
				t.Errorf("listener %q: its process is named: %v", line, named)
			}
			if want := ",owner_source=" + test.wantSource + " "; !strings.Contains(stdout.String(), want) {
				t.Errorf("no %q in\n%s%s", want, &stdout, &stderr)
			}
			const advice = "--cap-add=SYS_PTRACE --cap-add=DAC_READ_SEARCH"
			if missing := strings.Contains(stderr.String(), advice); missing != test.wantMissing {
				t.Errorf("the advice %q is given: %v, want %v\n%s", advice, missing, test.wantMissing, &stderr)
			}
		})
	}
}

// rootListener starts a process of root that listens, and returns its port.
func rootListener(t *testing.T) (port string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "listen", "127.0.0.1:0")
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err == nil {
		_, port, err = net.SplitHostPort(strings.TrimSpace(address))
	}
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// contain becomes a program in the root filesystem of a container: ROOT UID CAPABILITIES
// PROGRAM ARGUMENT... It is the first process of its namespaces.
func contain(args []string) int {
	runtime.LockOSThread() // whose credentials the program gets
	root, program := args[0], args[3:]
	uid, err := strconv.Atoi(args[1])
	if err != nil {
		return containFailed(err)
	}
	keep := map[string]int{"dac_read_search": unix.CAP_DAC_READ_SEARCH, "sys_ptrace": unix.CAP_SYS_PTRACE, "bpf": unix.CAP_BPF, "perfmon": unix.CAP_PERFMON}
	kept := map[int]bool{}
	for name := range strings.SplitSeq(args[2], ",") {
		if number, ok := keep[name]; ok {
			kept[number] = true
		}
	}
	for _, step := range []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "") },
		func() error { return unix.Mount(root, root, "", unix.MS_BIND, "") },
		func() error { return unix.Mount("/proc", root+"/host/proc", "", unix.MS_BIND|unix.MS_REC, "") },
		func() error {
			return unix.Mount("proc", root+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		},
		func() error { return unix.Mount("/sys", root+"/sys", "", unix.MS_BIND|unix.MS_REC, "") },
		func() error { return unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "") },
		func() error { return unix.Chroot(root) },
		func() error { return unix.Chdir("/") },
		func() error {
			for number := range unix.CAP_LAST_CAP + 1 {
				if kept[number] {
					continue
				}
				if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0); err != nil {
					return err
				}
			}
			return nil
		},
		func() error { return syscall.Setgroups(nil) },
		func() error { return syscall.Setresgid(uid, uid, uid) },
		func() error { return syscall.Setresuid(uid, uid, uid) },
		func() error {
			return unix.Exec(program[0], program, []string{"HOST_PROC=/host/proc", "SOCKWATCH_LISTEN=" + os.Getenv("SOCKWATCH_LISTEN")})
		},
	} {
		if err := step(); err != nil {
			return containFailed(err)
		}
	}
	return 0
}

func containFailed(err error) int {
	fmt.Fprintln(os.Stderr, "contain:", err)
	return 1
}
