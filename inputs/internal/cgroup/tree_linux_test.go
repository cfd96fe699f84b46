package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestMountPoint(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"unified":        {"31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup"},
		"hybrid":         {"30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/unified"},
		"escaped":        {`31 24 0:27 / /my\040mount\134x rw - cgroup2 cgroup2 rw` + "\n", `/my mount\x`},
		"none":           {"30 24 0:26 / / rw - ext4 /dev/sda rw\n", ""},
		"version 1 only": {"30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", ""},
		"damaged":        {"x - cgroup2 \n - \n-\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := mountPoint([]byte(test.text)); got != test.want {
				t.Errorf("got %q, expected %q", got, test.want)
			}
		})
	}
}

func TestNumbersOf32BitKernelsHoldAGeneration(t *testing.T) {
	tree := &Tree{paths: map[uint64]string{7: "/a.service"}, walked: true}
	want := ""
	if strconv.IntSize == 32 {
		want = "/a.service"
	}
	if got, _ := tree.Path(5<<32 | 7); got != want {
		t.Errorf("got %q, expected %q", got, want)
	}
}

// TestManyCgroupsOfAUserHideNoService: the user's are farther from the root.
func TestManyCgroupsOfAUserHideNoService(t *testing.T) {
	tree := &Tree{mount: t.TempDir(), most: 20}
	service := filepath.Join(tree.mount, "system.slice", "nginx.service")
	if err := os.MkdirAll(service, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := os.MkdirAll(filepath.Join(tree.mount, "a", "b", strconv.Itoa(i), "c"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got, ok := tree.Path(number(t, service)); !ok || got != "/system.slice/nginx.service" {
		t.Errorf("the service is %q, %v", got, ok)
	}
	if n := len(tree.paths); n != tree.most {
		t.Errorf("%d cgroups are known, want %d", n, tree.most)
	}
}

// number returns the number of a cgroup.
func number(t *testing.T, dir string) uint64 {
	t.Helper()
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// TestTree finds nested cgroups by their numbers, and the processes in them.
func TestTree(t *testing.T) {
	tree, err := OpenTree("/proc/self/mountinfo")
	if errors.Is(err, ErrNoTree) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(tree.mount, "sockwatch-test")
	nested := filepath.Join(root, "system.slice", "nested.service")
	if err := os.MkdirAll(nested, 0o755); err != nil {
		t.Skip(err)
	}
	defer func() {
		for dir := nested; dir != tree.mount; dir = filepath.Dir(dir) {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		}
	}()
	if got, ok := tree.Path(number(t, nested)); !ok || got != "/sockwatch-test/system.slice/nested.service" {
		t.Errorf("the nested cgroup is %q, %v", got, ok)
	}
	if got, ok := tree.Path(number(t, tree.mount)); !ok || got != "/" {
		t.Errorf("the root is %q, %v", got, ok)
	}
	later := filepath.Join(root, "later.scope")
	if err := os.Mkdir(later, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(later)
	if got, ok := tree.Path(number(t, later)); ok {
		t.Errorf("a new cgroup is known as %q before the tree was read again", got)
	}
	tree.Begin()
	if got, ok := tree.Path(number(t, later)); !ok || got != "/sockwatch-test/later.scope" {
		t.Errorf("the new cgroup is %q, %v", got, ok)
	}
	if pids := tree.PIDs("/sockwatch-test/later.scope"); len(pids) != 0 {
		t.Errorf("processes of an empty cgroup: %v", pids)
	}
	if pids := tree.PIDs("/no/such"); len(pids) != 0 {
		t.Errorf("processes of no cgroup: %v", pids)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err == nil && strings.Contains("\n"+string(own), "\n0::/\n") && !slices.Contains(tree.PIDs("/"), os.Getpid()) {
		t.Error("this process is not in its cgroup")
	}
	if err := os.Remove(later); err != nil {
		t.Fatal(err)
	}
}
