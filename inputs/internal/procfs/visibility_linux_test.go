package procfs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
)

// tree creates files, and links if the text begins with "->".
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		if len(text) > 2 && text[:2] == "->" {
			err = os.Symlink(text[2:], path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func openTree(t *testing.T, files map[string]string) *FS {
	t.Helper()
	f, err := Open(host.Find(tree(t, files)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// stats are the stat files of a fake tree.
const (
	btime         = "btime 1700000000\n"
	kernelThread2 = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 24 0 0\n"
	userProcess2  = "2 (kthreadd) S 0 0 0 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 24 0 0\n"
)

func TestVisibility(t *testing.T) {
	self := fmt.Sprintf("->%d", os.Getpid())
	const all = "CapEff:\t000001ffffffffff\n"
	for _, test := range []struct {
		name   string
		files  map[string]string
		want   Visibility
		hidden string
	}{
		{
			name: "host",
			files: map[string]string{"1/stat": "", "2/stat": kernelThread2, "thread-self/uid_map": "0 0 4294967295\n", "thread-self/status": all,
				"thread-self/attr/apparmor/current": "unconfined\n"},
			want: Visibility{Capabilities: 1<<41 - 1},
		},
		{
			name: "docker, its own processes",
			files: map[string]string{"1/stat": "", "self": self, fmt.Sprintf("%d/ns/pid", os.Getpid()): "->pid:[4026532001]",
				"thread-self/uid_map": "0 0 4294967295\n", "thread-self/status": all, "thread-self/attr/apparmor/current": "docker-default (enforce)\n"},
			want:   Visibility{Capabilities: 1<<41 - 1, PIDNS: true, AppArmor: "docker-default"},
			hidden: "processes outside one pid namespace are not visible",
		},
		{
			name:   "a second process that calls itself kthreadd",
			files:  map[string]string{"1/stat": "", "2/stat": userProcess2, "thread-self/uid_map": "0 0 4294967295\n", "thread-self/status": all, "thread-self/attr/current": "unconfined\n"},
			want:   Visibility{Capabilities: 1<<41 - 1, PIDNS: true},
			hidden: "processes outside one pid namespace are not visible",
		},
		{
			name: "another host's, by its first process",
			files: map[string]string{"1/ns/pid": "->pid:[4026531836]", "thread-self/uid_map": "0 0 4294967295\n", "thread-self/status": all,
				"thread-self/attr/current": "sockwatch//&unconfined (kill)\n"},
			want: Visibility{Capabilities: 1<<41 - 1, AppArmor: "sockwatch//&unconfined"},
		},
		{
			name: "hidepid",
			files: map[string]string{"self": self, fmt.Sprintf("%d/ns/pid", os.Getpid()): "->pid:[4026531836]", "thread-self/uid_map": "0 0 4294967295\n",
				"thread-self/status": "CapEff:\t0\n", "thread-self/attr/current": "system_u:system_r:init_t:s0\x00"},
			want:   Visibility{HidePID: true},
			hidden: "processes of other users are not visible (hidepid)",
		},
		{
			name: "user namespace",
			files: map[string]string{"1/stat": "", "2/stat": kernelThread2, "thread-self/uid_map": "         0     100000      65536\n", "thread-self/status": all,
				"thread-self/attr/apparmor/current": "usr.bin.x (complain)\n"},
			want: Visibility{UserNS: true},
		},
		{
			name:   "nothing known",
			files:  map[string]string{"1/stat": "", "thread-self/uid_map": "", "thread-self/status": "", "thread-self/attr/current": ""},
			want:   Visibility{UserNS: true, PIDNS: true},
			hidden: "processes outside one pid namespace are not visible",
		},
	} {
		test.files["stat"] = btime
		got := openTree(t, test.files).Visibility()
		if diff := cmp.Diff(test.want, got); diff != "" || got.Hidden() != test.hidden {
			t.Errorf("%s: hidden %q, want %q (-want +got):\n%s", test.name, got.Hidden(), test.hidden, diff)
		}
	}
}

// TestVisibilityInAPIDNamespace: the constant equals the number of this program's own
// namespace.
func TestVisibilityInAPIDNamespace(t *testing.T) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		t.Fatal(err)
	}
	if got, want := open(t).Visibility().PIDNS, st.Ino != initPIDNS; got != want {
		t.Errorf("PIDNS %v in namespace %d, want %v", got, st.Ino, want)
	}
}
