package cgroup

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

const (
	id             = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	id2            = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
	pod            = "12345678-1234-1234-1234-123456789012"
	podUnderscored = "12345678_1234_1234_1234_123456789012"

	user    = "/user.slice/user-1000.slice/user@1000.service"
	burst   = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + podUnderscored + ".slice"
	session = "/user.slice/user-1000.slice/session-3.scope"
)

// A pathTest is a path and its meaning.
type pathTest struct {
	path string
	want Name
}

// units are paths outside containers.
var units = []pathTest{
	{path: "/", want: Name{}},
	{path: "", want: Name{}},
	{path: "/init.scope", want: Name{Manager: true}},
	{path: "/boot-17/init.scope", want: Name{Manager: true}}, // as seen from outside its cgroup namespace
	{path: "/system.slice/init.scope", want: Name{}},
	{path: "/system.slice/nginx.service", want: Name{Unit: "nginx.service"}},
	{path: "/system.slice/foo.service/child", want: Name{Unit: "foo.service"}},
	{path: "/system.slice/foo.service/sshd.service", want: Name{Unit: "foo.service"}},
	{path: "/system.slice/foo.service/init.scope", want: Name{Unit: "foo.service"}},
	{path: "/system.slice/foo.service/user@0.service/bar.service", want: Name{Unit: "foo.service"}},
	{path: "/system.slice/system-getty.slice/getty@tty1.service", want: Name{Unit: "getty@tty1.service"}},
	{path: `/system.slice/dev-disk-by\x2dlabel-swap.swap`, want: Name{Unit: `dev-disk-by\x2dlabel-swap.swap`}},
	{path: "/system.slice/_cpu.service", want: Name{Unit: "cpu.service"}},
	{path: "/system.slice/__cpu.service", want: Name{Unit: "_cpu.service"}},
	{path: "/system.slice/.service", want: Name{}},
	{path: "/system.slice/foo@.service", want: Name{}},
	{path: "/system.slice/foo@bar@.service", want: Name{Unit: "foo@bar@.service"}},
	{path: "/system.slice/@foo.service", want: Name{}},
	{path: "/system.slice/a b.service", want: Name{}},
	{path: "/system.slice/é.service", want: Name{}},
	{path: "/system.slice/nginx.timer", want: Name{}},
	{path: "/system.slice/" + strings.Repeat("a", 247) + ".service", want: Name{Unit: strings.Repeat("a", 247) + ".service"}},
	{path: "/system.slice/" + strings.Repeat("a", 248) + ".service", want: Name{}},
	{path: "/system.slice/nginx.service (deleted)", want: Name{Unit: "nginx.service"}},
	{path: "/../../system.slice/nginx.service", want: Name{Unit: "nginx.service"}}, // of a cgroup namespace further out
	{path: "/case-17/system.slice/nginx.service", want: Name{Unit: "nginx.service"}},
	{path: "/kubepods-x.slice", want: Name{}},
}

// usersUnits are paths that users' managers create, or users themselves.
var usersUnits = []pathTest{
	{path: session, want: Name{Unit: "session-3.scope"}},
	{path: session + "/foo.service", want: Name{Unit: "session-3.scope", UserUnit: "foo.service"}},
	{path: session + "/init.scope", want: Name{Unit: "session-3.scope"}},
	{path: "/user.slice/user-1000.slice/run-r1.scope/foo.service", want: Name{Unit: "run-r1.scope"}},
	{path: user, want: Name{Unit: "user@1000.service"}},
	{path: user + "/init.scope", want: Name{Unit: "user@1000.service", Manager: true}},
	{path: user + "/app.slice/init.scope", want: Name{Unit: "user@1000.service"}},
	{path: user + "/x/init.scope", want: Name{Unit: "user@1000.service"}},
	{path: user + "/app.slice/x.scope", want: Name{Unit: "user@1000.service", UserUnit: "x.scope"}},
	{path: user + "/app.slice/x.service/y.service", want: Name{Unit: "user@1000.service", UserUnit: "x.service"}},
	{path: user + "/app.slice/_cpu.service", want: Name{Unit: "user@1000.service", UserUnit: "cpu.service"}},
	{path: user + "/sshd.service", want: Name{Unit: "user@1000.service", UserUnit: "sshd.service"}},
	{path: user + "/user@0.service/init.scope", want: Name{Unit: "user@1000.service", UserUnit: "user@0.service"}},
	{path: user + "/user.slice/libpod-" + id + ".scope/container", want: Name{Unit: "user@1000.service", Container: id[:12]}},
	{path: user + "/app.slice/web.service/libpod-payload-" + id, want: Name{Unit: "user@1000.service", UserUnit: "web.service", Container: id[:12]}},
	{path: user + "/user.slice/libpod-" + id + ".scope/container/init.scope", want: Name{Unit: "user@1000.service", Container: id[:12], Manager: true}},
	{path: user + "/user.slice/libpod-" + id + ".scope/container/system.slice/nginx.service", want: Name{
		Unit: "user@1000.service", UserUnit: "nginx.service", Container: id[:12]}},
	{path: user + "/docker-" + id + ".scope/system.slice/sshd.service", want: Name{
		Unit: "user@1000.service", UserUnit: "sshd.service", Container: id[:12]}},
	{path: user + "/docker/" + id + "/docker/" + id2 + "/sshd.service", want: Name{
		Unit: "user@1000.service", UserUnit: "sshd.service", Container: id2[:12]}},
	{path: user + "/lxc.payload.web/system.slice/sshd.service", want: Name{
		Unit: "user@1000.service", UserUnit: "sshd.service", Container: "web"}},
	{path: user + "/machine-web.scope/payload/sshd.service", want: Name{
		Unit: "user@1000.service", UserUnit: "sshd.service", Container: "web"}},
	{path: user + "/kubepods/pod" + pod + "/" + id + "/sshd.service", want: Name{
		Unit: "user@1000.service", UserUnit: "sshd.service", Container: id[:12], Pod: pod}},
	{path: session + "/lxc.payload.web/system.slice/sshd.service", want: Name{
		Unit: "session-3.scope", UserUnit: "sshd.service", Container: "web"}},
}

// containers are paths of containers of all runtimes.
var containers = []pathTest{
	{path: "/docker/" + id, want: Name{Container: id[:12]}},
	{path: "/docker/" + id[:63], want: Name{}},
	{path: "/docker/" + strings.ToUpper(id), want: Name{}},
	{path: "/system.slice/docker-" + id + ".scope", want: Name{Container: id[:12]}},
	{path: "/system.slice/docker-" + id + ".scope/init.scope", want: Name{Container: id[:12], Manager: true}},
	{path: "/system.slice/docker-" + id + ".scope/system.slice/nginx.service", want: Name{Unit: "nginx.service", Container: id[:12]}},
	{path: "/docker/" + id + "/system.slice/nginx.service", want: Name{Unit: "nginx.service", Container: id[:12]}},
	{path: "/docker/" + id + "/user.slice/user-7.slice/user@7.service/app.slice/x.service", want: Name{
		Unit: "user@7.service", UserUnit: "x.service", Container: id[:12]}},
	{path: "/system.slice/docker-" + id + ".scope/docker/" + id2, want: Name{Container: id2[:12]}},
	{path: "/system.slice/nerdctl-" + id + ".scope", want: Name{Container: id[:12]}},
	{path: "/system.slice/containerd.service/x", want: Name{Unit: "containerd.service"}},
	{path: "/system.slice:docker:" + id, want: Name{Container: id[:12]}},

	{path: "/machine.slice/libpod-" + id + ".scope", want: Name{Container: id[:12]}},
	{path: "/machine.slice/libpod-" + id + ".scope/container", want: Name{Container: id[:12]}},
	{path: "/machine.slice/libpod-" + id + ".scope/container/init.scope", want: Name{Container: id[:12], Manager: true}},
	{path: "/machine.slice/libpod-" + id + ".scope/container/system.slice/a.service", want: Name{Unit: "a.service", Container: id[:12]}},
	{path: "/machine.slice/machine-libpod_pod_" + id2 + ".slice/libpod-" + id + ".scope", want: Name{Container: id[:12]}},
	{path: "/machine.slice/libpod-conmon-" + id + ".scope", want: Name{Unit: "libpod-conmon-" + id + ".scope"}},
	{path: "/libpod_parent/libpod-" + id, want: Name{Container: id[:12]}},
	{path: "/libpod_parent/" + id2 + "/libpod-" + id, want: Name{Container: id[:12]}},
	{path: "/libpod_parent/conmon", want: Name{}},
	{path: "/system.slice/web.service/libpod-payload-" + id, want: Name{Unit: "web.service", Container: id[:12]}},
	{path: "/system.slice/web.service/libpod-payload-" + id + "/container", want: Name{Unit: "web.service", Container: id[:12]}},
	{path: "/system.slice/web.service/libpod-payload-" + id + "/system.slice/a.service", want: Name{Unit: "a.service", Container: id[:12]}},
	{path: "/system.slice/web.service/supervisor", want: Name{Unit: "web.service"}},

	{path: "/ecs/e9b6d3f5/" + id, want: Name{Container: id[:12]}},
	{path: "/ecs/0f98c7d3ba1c42c2b1c5e93a3cd9c9f0/0f98c7d3ba1c42c2b1c5e93a3cd9c9f0-1234567890", want: Name{Container: "0f98c7d3ba1c"}},
	{path: "/ecs/web/0f98c7d3ba1c42c2b1c5e93a3cd9c9f0/0f98c7d3ba1c42c2b1c5e93a3cd9c9f0-12", want: Name{Container: "0f98c7d3ba1c"}},
	{path: "/ecs/0f98c7d3ba1c42c2b1c5e93a3cd9c9f0/0f98c7d3ba1c42c2b1c5e93a3cd9c9f0-x", want: Name{}},
	{path: "/ecs/0f98c7d3ba1c42c2b1c5e93a3cd9c9f0", want: Name{}},
	{path: "/x/0f98c7d3ba1c42c2b1c5e93a3cd9c9f0-1234567890", want: Name{}},
	{path: "/ecstasks.slice/ecstasks-0f98c7d3.slice/docker-" + id + ".scope", want: Name{Container: id[:12]}},

	{path: "/kubepods/burstable/pod" + pod + "/" + id, want: Name{Container: id[:12], Pod: pod}},
	{path: "/kubepods/besteffort/podabcdefabcdefabcdefabcdefabcdef00/" + id, want: Name{Container: id[:12], Pod: "abcdefabcdefabcdefabcdefabcdef00"}},
	{path: "/kubelet/kubepods/burstable/pod" + pod + "/crio-" + id, want: Name{Container: id[:12], Pod: pod}},
	{path: "/kubepods/burstable/pod" + pod + "/crio-conmon-" + id, want: Name{Pod: pod}},
	{path: burst + "/cri-containerd-" + id + ".scope", want: Name{Container: id[:12], Pod: pod}},
	{path: burst + "/cri-containerd-" + id + ".scope/system.slice/a.service", want: Name{Unit: "a.service", Container: id[:12], Pod: pod}},
	{path: burst + "/crio-" + id + ".scope/container", want: Name{Container: id[:12], Pod: pod}},
	{path: burst + "/crio-conmon-" + id + ".scope", want: Name{Unit: "crio-conmon-" + id + ".scope", Pod: pod}},
	{path: burst + "/docker-" + id + ".scope", want: Name{Container: id[:12], Pod: pod}},
	{path: burst + "/libpod-" + id + ".scope", want: Name{Container: id[:12], Pod: pod}},
	{path: "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" + podUnderscored +
		".slice/cri-containerd-" + id + ".scope", want: Name{Container: id[:12], Pod: pod}},
	{path: "/a.slice/a-b.slice/a-b-kubepods.slice/a-b-kubepods-pod" + podUnderscored + ".slice/cri-containerd-" + id + ".scope", want: Name{
		Container: id[:12], Pod: pod}},
	{path: "/a.slice/a-pod" + podUnderscored + ".slice", want: Name{}},
	{path: "/system.slice/containerd.service/kubepods-burstable-pod" + podUnderscored + ".slice:cri-containerd:" + id, want: Name{
		Unit: "containerd.service", Container: id[:12], Pod: pod}},
	{path: "/docker/" + id + "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + podUnderscored + ".slice/cri-containerd-" + id2 + ".scope", want: Name{
		Container: id2[:12], Pod: pod}}, // kind
	{path: "/podman/pod_not_a_uid/xx", want: Name{}},

	{path: "/lxc/web1", want: Name{Container: "web1"}},
	{path: "/lxc.payload.web1", want: Name{Container: "web1"}},
	{path: "/lxc.payload/web1", want: Name{Container: "web1"}},
	{path: "/lxc.payload.web1/system.slice/nginx.service", want: Name{Unit: "nginx.service", Container: "web1"}},
	{path: "/lxc.payload.web1/init.scope", want: Name{Container: "web1", Manager: true}},
	{path: "/lxc.payload.web1/user.slice/user-7.slice/user@7.service/init.scope", want: Name{Unit: "user@7.service", Container: "web1", Manager: true}},
	{path: "/lxc.payload.web1/system.slice/docker-" + id + ".scope", want: Name{Container: id[:12]}},
	{path: "/lxc.payload.web1/system.slice/a.service/libpod-payload-" + id, want: Name{Container: id[:12]}},
	{path: "/lxc.payload.a/lxc.payload.b/system.slice/c.service", want: Name{Unit: "c.service", Container: "b"}},
	{path: "/lxc/101/ns/system.slice/nginx.service", want: Name{Unit: "nginx.service", Container: "101"}}, // Proxmox VE
	{path: "/lxc/101/ns/init.scope", want: Name{Container: "101", Manager: true}},
	{path: "/lxc.monitor.web1", want: Name{}},
	{path: "/lxc.payload.", want: Name{}},
	{path: "/lxc/", want: Name{}},
	{path: "/lxc/a\x01b/init.scope", want: Name{Container: `a\x01b`, Manager: true}},

	{path: "/machine.slice/systemd-nspawn@web.service/supervisor", want: Name{Unit: "systemd-nspawn@web.service"}},
	{path: "/machine.slice/systemd-nspawn@web.service/payload", want: Name{Unit: "systemd-nspawn@web.service", Container: "web"}},
	{path: "/machine.slice/systemd-nspawn@web.service/payload/init.scope", want: Name{Unit: "systemd-nspawn@web.service", Container: "web", Manager: true}},
	{path: `/machine.slice/systemd-nspawn@my\x2dbox.service/payload/system.slice/nginx.service`, want: Name{Unit: "nginx.service", Container: "my-box"}},
	{path: `/machine.slice/systemd-nspawn@a\x0ab.service/payload`, want: Name{Unit: `systemd-nspawn@a\x0ab.service`, Container: `a\x0ab`}},
	{path: "/machine.slice/machine-web.scope/payload", want: Name{Container: "web"}},
	{path: "/machine.slice/machine-web.scope/supervisor", want: Name{Unit: "machine-web.scope"}},
	{path: `/machine.slice/machine-my\x2dbox.scope/payload/init.scope`, want: Name{Container: "my-box", Manager: true}},
	{path: "/machine.slice/machine-web.scope", want: Name{Unit: "machine-web.scope"}},
	{path: "/machine.slice/machine-web.scope/init.scope", want: Name{Container: "web", Manager: true}},
	{path: `/machine.slice/machine-web.scope/system.slice/nginx.service`, want: Name{Unit: "nginx.service", Container: "web"}},
	{path: `/machine.slice/machine-lxc\x2d17\x2dweb.scope`, want: Name{Container: "lxc-17-web"}},
	{path: `/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator`, want: Name{Unit: `machine-qemu\x2d1\x2dvm.scope`}},
	{path: "/system.slice/a.service/payload", want: Name{Unit: "a.service"}},
}

func TestParsePath(t *testing.T) {
	for _, tests := range [][]pathTest{units, usersUnits, containers} {
		for _, test := range tests {
			if diff := cmp.Diff(test.want, ParsePath(test.path)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.path, diff)
			}
		}
	}
}

func TestParseFile(t *testing.T) {
	for _, test := range []struct {
		name string
		text string
		want Name
	}{
		{name: "unified", text: "0::/system.slice/a.service\n", want: Name{Unit: "a.service"}},
		{name: "unified, a manager", text: "0::/init.scope\n", want: Name{Manager: true}},
		{name: "hybrid", text: "4:memory:/x\n1:name=systemd:/system.slice/a.service\n0::/\n", want: Name{Unit: "a.service"}},
		{name: "hybrid, both", text: "1:name=systemd:/system.slice/a.service\n0::/system.slice/b.service\n", want: Name{Unit: "b.service"}},
		{name: "version 1 of docker", text: "5:cpu,cpuacct:/docker/" + id + "\n4:memory:/docker/" + id + "\n", want: Name{Container: id[:12]}},
		{name: "hybrid, docker", text: "13:rdma:/\n12:pids:/docker/" + id + "\n1:name=systemd:/docker/" + id + "\n0::/system.slice/containerd.service\n",
			want: Name{Container: id[:12]}},
		{name: "hybrid, kubernetes", text: "12:rdma:/\n4:memory:/kubepods/burstable/pod" + pod + "/" + id + "\n0::/system.slice/containerd.service\n",
			want: Name{Container: id[:12], Pod: pod}},
		{name: "version 1, a user's own cgroups", text: "4:memory:/user/alice/0/lxc/x/system.slice/sshd.service\n1:name=systemd:" + session + "\n",
			want: Name{Unit: "session-3.scope", Container: "x"}},
		{name: "a colon in the path", text: "0::/system.slice/a:b.service\n", want: Name{Unit: "a:b.service"}},
		{name: "empty", text: "", want: Name{}},
		{name: "damaged", text: "0:\n::\n\n0", want: Name{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, ParseFile([]byte(test.text))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPathIsThatOfTheHierarchyInUse(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/x.service\n":                                                     "/system.slice/x.service",
		"12:pids:/a\n1:name=systemd:/system.slice/x.service\n0::/\n":                       "/system.slice/x.service",
		"12:pids:/a\n1:name=systemd:/system.slice/x.service\n0::/system.slice/y.service\n": "/system.slice/y.service",
		"12:pids:/a\n11:cpu:/b\n":                                                          "/a",
		"0::/\n":                                                                           "/",
		"0::/a:b (deleted)":                                                                "/a:b (deleted)",
		"":                                                                                 "",
		"0\n0:\nnonsense\n0::/x\n":                                                         "/x",
	} {
		if got := string(Path([]byte(text))); got != want {
			t.Errorf("path of %q is %q, want %q", text, got, want)
		}
	}
}

// FuzzParseFile checks for any text that units are valid names of units, and that
// containers and pods are printable.
func FuzzParseFile(f *testing.F) {
	for _, tests := range [][]pathTest{units, usersUnits, containers} {
		for _, test := range tests {
			f.Add([]byte("0::" + test.path + "\n"))
		}
	}
	f.Add([]byte("1:name=systemd:/a.service\n0::/\n"))
	for _, hostile := range []string{"a\nb c=1 2", ") R 1 1", "\xff\xfe.service", "", "é.scope", `x\x0a.service`} {
		f.Add([]byte("0::/system.slice/" + hostile + "\n"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if path := Path(text); !bytes.Contains(text, path) || bytes.Contains(path, []byte("\n")) {
			t.Errorf("path %q", path)
		}
		n := ParseFile(text)
		for _, unit := range []string{n.Unit, n.UserUnit} {
			if unit != "" && !isUnit(unit, processUnits...) {
				t.Errorf("unit %q", unit)
			}
		}
		for _, s := range []string{n.Unit, n.UserUnit, n.Container, n.Pod} {
			if !utf8.ValidString(s) || strings.ContainsAny(s, "\n\r\x00") {
				t.Errorf("%q is not printable", s)
			}
		}
		if len(n.Pod) > 36 {
			t.Errorf("pod %q", n.Pod)
		}
	})
}

// FuzzUsersKeepTheirUnit checks that the unit stays that of the host's manager, whatever
// cgroups a user creates below those that the manager delegated.
func FuzzUsersKeepTheirUnit(f *testing.F) {
	for _, tests := range [][]pathTest{units, usersUnits, containers} {
		for _, test := range tests {
			f.Add(test.path)
		}
	}
	f.Fuzz(func(t *testing.T, below string) {
		for prefix, want := range map[string]string{user: "user@1000.service", session: "session-3.scope"} {
			if n := ParsePath(prefix + "/" + below); n.Unit != want {
				t.Errorf("%s/%s has the unit %q", prefix, below, n.Unit)
			}
			text := "4:memory:/user/alice/0/" + strings.ReplaceAll(below, "\n", "") + "\n1:name=systemd:" + prefix + "\n"
			if n := ParseFile([]byte(text)); n.Unit != want {
				t.Errorf("%s has the unit %q", text, n.Unit)
			}
		}
	})
}
