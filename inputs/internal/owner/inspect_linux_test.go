package owner

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/procfs"
)

func TestInspectReadsAllButTheArguments(t *testing.T) {
	h := newFakeHost(t)
	h.process(70, 100, "/system.slice/x.service", 9)
	h.write("70/stat", "70 (a\nb) S 40 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 100 0 0\n")
	h.write("70/status", "Name:\ta\\nb\nUid:\t1\t33\t1\t1\n")
	h.write("70/loginuid", "1000")
	h.write("70/cmdline", "secret")
	h.write("70/ns/", "")
	h.process(40, 50, "/")
	for link, target := range map[string]string{"70/exe": "/usr/sbin/x", "70/ns/net": "net:[4026531840]", "40/exe": "/usr/bin/bash"} {
		if err := os.Symlink(target, filepath.Join(h.path, link)); err != nil {
			t.Fatal(err)
		}
	}
	fs, err := procfs.Open(host.Find(h.path))
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	got, err := Inspect(fs, 70, 100)
	if err != nil {
		t.Fatal(err)
	}
	want := &Inspection{
		Process: Process{
			PID: 70, Start: 100, Comm: `a\x0ab`, Exe: "/usr/sbin/x", Cgroup: cgroup.Name{Unit: "x.service"}, CgroupRead: true,
		},
		UID: 33, HasUID: true, CgroupPath: "/system.slice/x.service", Netns: 4026531840,
		Lineage: Lineage{ParentPID: 40, ParentComm: "p40", ParentExe: "/usr/bin/bash", LoginUID: 1000, HasLogin: true},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Process{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, gone := range []struct {
		pid   int
		start uint64
	}{{70, 99}, {71, 100}} { // 70 is another process by now
		if _, err := Inspect(fs, gone.pid, gone.start); !errors.Is(err, procfs.ErrExited) {
			t.Errorf("pid %d, start %d: error %v, want %v", gone.pid, gone.start, err, procfs.ErrExited)
		}
	}
}
