package cgroup

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

var paths = map[string]Name{
	"/":                               {},
	"/init.scope":                     {},
	"/system.slice/nginx.service":     {Unit: "nginx.service"},
	"/system.slice/foo.service/child": {Unit: "foo.service"},
	"/system.slice/system-getty.slice/getty@tty1.service":             {Unit: "getty@tty1.service"},
	`/system.slice/dev-disk-by\x2dlabel-swap.swap`:                    {Unit: `dev-disk-by\x2dlabel-swap.swap`},
	"/system.slice/_cpu.service":                                      {Unit: "cpu.service"},
	"/user.slice/user-1000.slice/session-3.scope":                     {Unit: "session-3.scope"},
	"/user.slice/user-1000.slice/user@1000.service/init.scope":        {Unit: "user@1000.service"},
	"/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope": {Unit: "x.scope"},
	"/system.slice/.service":                                          {},
	"/system.slice/foo@.service":                                      {},
	"/system.slice/@foo.service":                                      {},
	"/system.slice/a b.service":                                       {},
	"/system.slice/é.service":                                         {},
	"/system.slice/" + strings.Repeat("a", 250) + ".service":          {},
	"/system.slice/nginx.service (deleted)":                           {Unit: "nginx.service"},

	"/docker/" + id:                                                     {Container: id[:12]},
	"/system.slice/docker-" + id + ".scope":                             {Unit: "docker-" + id + ".scope", Container: id[:12]},
	"/docker/" + id + "/system.slice/nginx.service":                     {Unit: "nginx.service", Container: id[:12]},
	"/machine.slice/libpod-" + id + ".scope":                            {Unit: "libpod-" + id + ".scope", Container: id[:12]},
	"/machine.slice/libpod-" + id + ".scope/container":                  {Unit: "libpod-" + id + ".scope", Container: id[:12]},
	"/machine.slice/libpod-conmon-" + id + ".scope":                     {Unit: "libpod-conmon-" + id + ".scope"},
	"/libpod_parent/libpod-" + id:                                       {Container: id[:12]},
	"/docker/" + id[:63]:                                                {},
	"/docker/" + strings.ToUpper(id):                                    {},
	"/ecs/e9b6d3f5/" + id:                                               {Container: id[:12]},
	"/kubepods/burstable/pod12345678-1234-1234-1234-123456789012/" + id: {Container: id[:12], Pod: "12345678-1234-1234-1234-123456789012"},
	"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12345678_1234_1234_1234_123456789012.slice/cri-containerd-" + id + ".scope": {
		Unit: "cri-containerd-" + id + ".scope", Container: id[:12], Pod: "12345678-1234-1234-1234-123456789012"},
	"/kubepods.slice/kubepods-pod12345678_1234_1234_1234_123456789012.slice/crio-" + id + ".scope": {
		Unit: "crio-" + id + ".scope", Container: id[:12], Pod: "12345678-1234-1234-1234-123456789012"},
	"/kubepods.slice/kubepods-pod12345678_1234_1234_1234_123456789012.slice/crio-conmon-" + id + ".scope": {
		Unit: "crio-conmon-" + id + ".scope", Pod: "12345678-1234-1234-1234-123456789012"},
	"/kubepods/besteffort/podabcdefabcdefabcdefabcdefabcdef00/" + id: {Container: id[:12], Pod: "abcdefabcdefabcdefabcdefabcdef00"},
	"/system.slice/containerd.service/kubepods-burstable-pod12345678_1234_1234_1234_123456789012.slice:cri-containerd:" + id: {
		Unit: "containerd.service", Container: id[:12], Pod: "12345678-1234-1234-1234-123456789012"},
	"/kubepods-x.slice":        {},
	"/lxc/web1":                {Container: "web1"},
	"/lxc.payload.web1":        {Container: "web1"},
	"/lxc.payload/web1":        {Container: "web1"},
	"/lxc.monitor.web1":        {},
	"/lxc/a\x01b/init.scope":   {Container: `a\x01b`},
	"/podman/pod_not_a_uid/xx": {},
}

func TestParsePath(t *testing.T) {
	for path, want := range paths {
		if diff := cmp.Diff(want, ParsePath(path)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

func TestParseFile(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want Name
	}{
		"unified":             {"0::/system.slice/a.service\n", Name{Unit: "a.service"}},
		"hybrid":              {"4:memory:/x\n1:name=systemd:/system.slice/a.service\n0::/\n", Name{Unit: "a.service"}},
		"hybrid, both":        {"1:name=systemd:/system.slice/a.service\n0::/system.slice/b.service\n", Name{Unit: "b.service"}},
		"version 1 of docker": {"5:cpu,cpuacct:/docker/" + id + "\n4:memory:/docker/" + id + "\n", Name{Container: id[:12]}},
		"hybrid, docker":      {"13:rdma:/\n12:pids:/docker/" + id + "\n1:name=systemd:/docker/" + id + "\n0::/system.slice/containerd.service\n", Name{Container: id[:12]}},
		"hybrid, kubernetes": {"12:rdma:/\n4:memory:/kubepods/burstable/pod12345678-1234-1234-1234-123456789012/" + id + "\n0::/system.slice/containerd.service\n",
			Name{Container: id[:12], Pod: "12345678-1234-1234-1234-123456789012"}},
		"a colon in the path": {"0::/system.slice/a:b.service\n", Name{Unit: "a:b.service"}},
		"empty":               {"", Name{}},
		"damaged":             {"0:\n::\n\n0", Name{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, ParseFile([]byte(test.text))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzParseFile: whatever the text, units are valid names of units, containers and
// pods are fit to be shown.
func FuzzParseFile(f *testing.F) {
	for path := range paths {
		f.Add([]byte("0::" + path + "\n"))
	}
	f.Add([]byte("1:name=systemd:/a.service\n0::/\n"))
	for _, hostile := range []string{"a\nb c=1 2", ") R 1 1", "\xff\xfe.service", "", "é.scope", `x\x0a.service`} {
		f.Add([]byte("0::/system.slice/" + hostile + "\n"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		n := ParseFile(text)
		if n.Unit != "" && !isUnit(n.Unit) {
			t.Errorf("unit %q", n.Unit)
		}
		for _, s := range []string{n.Unit, n.Container, n.Pod} {
			if !utf8.ValidString(s) || strings.ContainsAny(s, "\n\r\x00") {
				t.Errorf("%q is not fit to be shown", s)
			}
		}
		if len(n.Pod) > 36 {
			t.Errorf("pod %q", n.Pod)
		}
	})
}
