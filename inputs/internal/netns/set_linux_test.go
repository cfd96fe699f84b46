package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/inet"
)

// everywhere listens on a wildcard address.
var everywhere = []listener{{Addr: "0.0.0.0"}}

// reports returns the reports of all namespaces except the host's.
func reports(s *Set) (all []report) {
	for _, n := range s.All() {
		if !n.Host() {
			all = append(all, reportOf(n))
		}
	}
	return all
}

// newNetNS makes a network namespace with a public address, which is mounted at path.
func newNetNS(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	scratch := "/run/scratch"
	ip(t, "netns add scratch")
	scratch = "/run/netns/scratch"
	ip(t, "-n scratch link set lo up")
	ip(t, "-n scratch address add 203.0.113.7/32 dev lo")
	if err := unix.Mount(scratch, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	ip(t, "netns delete scratch")
	t.Cleanup(func() {
		unix.Unmount(path, unix.MNT_DETACH)
		os.Remove(path)
	})
}

// TestNamespacesAreFound finds a namespace whatever holds it: a listener in it is
// reported once.
func TestNamespacesAreFound(t *testing.T) {
	isolated(t)
	const mount = "/run/elsewhere/a b"
	tests := map[string]struct {
		hold     func(t *testing.T) // creates the namespace, with a listener
		byProcfs bool               // it has a process or thread, which procfs needs
		name     string             // "": its number
	}{
		"process": {
			hold: func(t *testing.T) {
				start(t, "", task{Listen: everywhere}, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
			},
			byProcfs: true,
		},
		"thread": {
			hold:     func(t *testing.T) { start(t, "", task{Listen: everywhere, Thread: true}, nil) },
			byProcfs: true,
		},
		"mount": {
			hold: func(t *testing.T) {
				newNetNS(t, mount)
				start(t, "", task{Listen: everywhere, In: []string{mount}}, nil)
			},
		},
		"named mount": {
			hold: func(t *testing.T) {
				newNetNS(t, `/run/netns/b\c`)
				start(t, "", task{Listen: everywhere, In: []string{`/run/netns/b\c`}}, nil)
			},
			name: `b\x5cc`,
		},
		"named mount and processes": {
			hold: func(t *testing.T) {
				newNetNS(t, "/run/netns/both")
				start(t, "/run/netns/both", task{Listen: everywhere}, nil)
				start(t, "/run/netns/both", task{Open: "/run/netns/both"}, nil)
			},
			byProcfs: true,
			name:     "both",
		},
		"mount of another mount namespace": {
			hold: func(t *testing.T) {
				newNetNS(t, mount)
				start(t, "", task{}, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS})
				start(t, "", task{Listen: everywhere, In: []string{mount}}, nil)
				if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
					t.Fatal(err)
				}
			},
		},
		"open file": {
			hold: func(t *testing.T) {
				cmd := start(t, "", task{Listen: everywhere}, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
				netns := fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)
				start(t, "", task{Open: netns}, nil)
				start(t, "", task{Listen: []listener{{Addr: "0.0.0.0", Port: port + 1}}, In: []string{netns}}, nil)
				cmd.End()
			},
		},
		"open file whose mount is gone": {
			hold: func(t *testing.T) {
				newNetNS(t, mount)
				start(t, "", task{Open: mount}, nil)
				start(t, "", task{Listen: everywhere, In: []string{mount}}, nil)
				if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
					t.Fatal(err)
				}
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.hold(t)
			for _, backend := range []string{Auto, Procfs} {
				s := open(t, options(backend))
				for range 3 {
					find(t, s)
					all := reports(s)
					if len(all) != 1 {
						t.Fatalf("by %s: %+v", backend, all)
					}
					r := all[0]
					if _, err := strconv.Atoi(r.Name); (test.name == "") != (err == nil) || err != nil && r.Name != test.name {
						t.Errorf("its name is %q, expected %q", r.Name, test.name)
					}
					switch {
					case backend == Procfs && !test.byProcfs:
						if want := ErrNoProcess.Error(); r.Error != want {
							t.Errorf("by procfs: error %q, expected %q", r.Error, want)
						}
					case r.Error != "" || len(r.Sockets) != 1 || r.Procfs != (backend == Procfs):
						t.Errorf("by %s: %+v", backend, r)
					}
				}
				s.Close()
			}
		})
	}
}

// TestNamespaceIsReleased closes the sockets kept open in a namespace as soon as nothing
// else holds it: a link into it then disappears as well.
func TestNamespaceIsReleased(t *testing.T) {
	isolated(t)
	s := open(t, options(Auto))
	tests := map[string]struct {
		hold func(t *testing.T) (netns string, release func())
	}{
		"process": {hold: func(t *testing.T) (string, func()) {
			c := start(t, "", task{Listen: everywhere}, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
			return strconv.Itoa(c.Process.Pid), c.End
		}},
		"mount": {hold: func(t *testing.T) (string, func()) {
			ip(t, "netns add released")
			return "released", func() { ip(t, "netns delete released") }
		}},
		"open file": {hold: func(t *testing.T) (string, func()) {
			c := start(t, "", task{}, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
			pid := strconv.Itoa(c.Process.Pid)
			holder := start(t, "", task{Open: "/proc/" + pid + "/ns/net"}, nil)
			ip(t, "netns attach attached "+pid)
			c.End()
			t.Cleanup(func() { os.Remove("/run/netns/attached") })
			return "attached", func() {
				ip(t, "netns delete attached")
				holder.End()
			}
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			netns, release := test.hold(t)
			ip(t, "link add here type veth peer name there netns "+netns)
			find(t, s)
			all := reports(s)
			if len(all) != 1 || all[0].Error != "" {
				t.Fatalf("%+v", all)
			}
			n := s.All()[1]
			if !n.location.pinned {
				t.Fatal("nothing is kept open in it")
			}
			release()
			find(t, s)
			if len(s.All()) != 1 || !n.Gone() {
				t.Errorf("%d namespaces, gone %t", len(s.All()), n.Gone())
			}
			soon(t, "the link is gone", func() bool {
				devices, err := net.Interfaces()
				return err == nil && !slices.ContainsFunc(devices, func(d net.Interface) bool { return d.Name == "here" })
			})
		})
	}
	if s.shared.free != keepLimit() {
		t.Errorf("sockets of %d namespaces are counted as open", keepLimit()-s.shared.free)
	}
}

// TestMovedProcessIsNotFollowed: a namespace is still listed if the process by which it was
// found has moved to another one. The other one is never listed under its name.
func TestMovedProcessIsNotFollowed(t *testing.T) {
	isolated(t)
	start(t, "", task{Listen: []listener{{Addr: "0.0.0.0", Port: port + 1}}}, nil)
	for _, backend := range []string{Netlink, Procfs} {
		t.Run(backend, func(t *testing.T) {
			first := start(t, "", task{}, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
			netns := fmt.Sprintf("/proc/%d/ns/net", first.Process.Pid)
			second := start(t, netns, task{Listen: everywhere}, nil)
			s := open(t, options(backend))
			find(t, s)
			n := s.All()[1]
			name := n.Name()
			n.location.process = processRef(os.Getpid()) // as if it had moved here
			if r := reportOf(n); r.Error != "" || !slices.Equal(r.Sockets, []string{"0.0.0.0:4000"}) || r.Name != name {
				t.Errorf("%+v", r)
			}
			n.release()
			n.location.process = processRef(first.Process.Pid)
			first.End()
			if r := reportOf(n); r.Error != "" || !slices.Equal(r.Sockets, []string{"0.0.0.0:4000"}) {
				t.Errorf("its process has ended: %+v", r)
			}
			n.release()
			second.End()
			if r := reportOf(n); !strings.Contains(r.Error, errEnded.Error()) || !n.Gone() {
				t.Errorf("all have ended: %+v, gone %t", r, n.Gone())
			}
			find(t, s)
			if len(s.All()) != 1 {
				t.Errorf("%d namespaces are left", len(s.All()))
			}
		})
	}
}

// TestPointersStay: a namespace keeps its pointer for as long as it exists, and its Local for
// as long as nothing changes.
func TestPointersStay(t *testing.T) {
	isolated(t)
	c := start(t, "", task{Listen: everywhere}, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
	s := open(t, options(Auto))
	find(t, s)
	n := s.All()[1]
	before, err := n.Local(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n.routes.stale = true
	if again, err := n.Local(t.Context()); err != nil || again != before {
		t.Errorf("another Local of what has not changed, %v", err)
	}
	newNetNS(t, "/run/netns/a") // sorted before numbers
	find(t, s)
	if !slices.Contains(s.All(), n) {
		t.Error("the namespace is another one")
	}
	if after, err := n.Local(t.Context()); err != nil || after != before {
		t.Errorf("another Local, %v", err)
	}
	ip(t, fmt.Sprintf("netns attach z %d", c.Process.Pid))
	t.Cleanup(func() { ip(t, "netns delete z") })
	find(t, s)
	if !slices.Contains(s.All(), n) || n.Name() != "z" {
		t.Errorf("after it was named it is %q", n.Name())
	}
	ip(t, "-n z address add 203.0.113.7/32 dev lo")
	// A read that took long on a busy machine is followed by a pause.
	soon(t, "another Local after a change", func() bool {
		after, err := n.Local(t.Context())
		return err == nil && after != before && after.Exposure(&inet.Socket{Addr: wildcardIPv4}) == inet.Public
	})
}

// TestOtherFilesAreNotNamespaces ignores files under /run/netns that are not network
// namespaces, without an error, and waits for none of them.
func TestOtherFilesAreNotNamespaces(t *testing.T) {
	isolated(t)
	ip(t, "netns add real")
	t.Cleanup(func() { ip(t, "netns delete real") })
	for name, make := range map[string]func(path string) error{
		"file":      func(path string) error { return os.WriteFile(path, nil, 0o644) },
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o644) },
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"broken":    func(path string) error { return os.Symlink("nowhere", path) },
		"pid": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o644), unix.Mount("/proc/self/ns/pid", path, "", unix.MS_BIND, ""))
		},
		"uts": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o644), unix.Mount("/proc/self/ns/uts", path, "", unix.MS_BIND, ""))
		},
	} {
		path := "/run/netns/" + name
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			unix.Unmount(path, unix.MNT_DETACH)
			os.Remove(path)
		})
	}
	s := open(t, options(Auto))
	find(t, s)
	var names []string
	for _, n := range s.All() {
		names = append(names, n.Name())
	}
	if diff := cmp.Diff([]string{"", "real"}, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestUnprivilegedUserFindsNamespaces finds the namespaces of other users' processes by
// their tables, once each, and lists them by procfs.
func TestUnprivilegedUserFindsNamespaces(t *testing.T) {
	if testing.Short() {
		t.Skip("starts several processes")
	}
	isolated(t)
	if err := os.Chmod("/run", 0o755); err != nil {
		t.Fatal(err)
	}
	newNetNS(t, "/run/netns/mounted")
	start(t, "/run/netns/mounted", task{Listen: everywhere}, nil)
	start(t, "/run/netns/mounted", task{}, nil)
	start(t, "", task{Listen: []listener{{Addr: "0.0.0.0", Port: port + 1}}, Thread: true}, nil)
	start(t, "", task{Listen: []listener{{Addr: "127.0.0.1", Port: port + 2}}}, nil)
	o := options(Auto)
	user := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	all := start(t, "", task{Report: &o}, user).reports(t)
	var got []string
	for _, r := range all {
		switch {
		case r.Host && r.Procfs || !r.Host && r.Error == "" && !r.Procfs:
			t.Errorf("listed by another backend: %+v", r)
		case r.Hidden && r.Reason == "":
			t.Errorf("no reason to be listed by procfs: %+v", r)
		case r.Error != "" && r.Name != "mounted": // the mount alone cannot be entered
			t.Errorf("%+v", r)
		}
		got = append(got, r.Sockets...)
	}
	slices.Sort(got)
	want := []string{"0.0.0.0:4000 public", "0.0.0.0:4001", "127.0.0.1:4002 loopback"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestHiddenNumbersAreUnited: a namespace that is mounted, and whose processes hide its
// number, is found once if it can be entered.
func TestHiddenNumbersAreUnited(t *testing.T) {
	isolated(t)
	newNetNS(t, "/run/netns/mounted")
	start(t, "/run/netns/mounted", task{Listen: everywhere}, nil)
	o := options(Auto)
	user := &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
	}
	all := start(t, "", task{Report: &o}, user).reports(t)
	want := []report{{Host: true}, {Name: "mounted", Sockets: []string{"0.0.0.0:4000 public"}}}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestProcfsIsReadIfNetlinkIsRefused: the result is the same, and the source has the
// reason.
func TestProcfsIsReadIfNetlinkIsRefused(t *testing.T) {
	isolated(t)
	newNetNS(t, "/run/netns/a")
	start(t, "/run/netns/a", task{Listen: []listener{{Addr: "0.0.0.0"}, {Addr: "203.0.113.7", Port: port + 1}, {Addr: "::1", Port: port + 2}}}, nil)
	start(t, "", task{Listen: []listener{{Addr: "::"}}}, nil)
	o := options(Auto)
	reason := "open a sock_diag socket: socket: operation not permitted"
	got := start(t, "", task{Report: &o, NoNetlink: true}, nil).reports(t)
	want := []report{
		{Host: true, Procfs: true, Reason: reason, Sockets: []string{"[::]:4000 loopback"}},
		{Name: "a", Procfs: true, Reason: reason, Sockets: []string{"0.0.0.0:4000 public", "203.0.113.7:4001 public", "[::1]:4002 loopback"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	o.Backend = Netlink
	for _, r := range start(t, "", task{Report: &o, NoNetlink: true}, nil).reports(t) {
		if !strings.HasPrefix(r.Error, reason) || r.Procfs || r.Reason != "" {
			t.Errorf("by netlink alone: %+v", r)
		}
	}
}

// TestThreadsReturn: no thread stays in another namespace.
func TestThreadsReturn(t *testing.T) {
	isolated(t)
	newNetNS(t, "/run/netns/a")
	s := open(t, options(Auto))
	find(t, s)
	reports(s)
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tasks {
		if link, err := os.Readlink(path); err == nil && link != own {
			t.Errorf("%s is %s, expected %s", path, link, own)
		}
	}
}

// TestKeptSocketsAreBounded: sockets stay open in as many namespaces as the limit allows;
// the others are listed as well.
func TestKeptSocketsAreBounded(t *testing.T) {
	isolated(t)
	for _, name := range []string{"a", "b", "c"} {
		newNetNS(t, "/run/netns/"+name)
		start(t, "/run/netns/"+name, task{Listen: everywhere}, nil)
	}
	s := open(t, options(Auto))
	s.shared.free = 2
	for range 3 {
		find(t, s)
		var got []string
		pinned := 0
		for _, n := range s.All()[1:] {
			got = append(got, n.Name()+" "+strings.Join(reportOf(n).Sockets, ","))
			if n.sockets.isOpen() {
				pinned++
			}
		}
		want := []string{"a 0.0.0.0:4000 public", "b 0.0.0.0:4000 public", "c 0.0.0.0:4000 public"}
		if diff := cmp.Diff(want, got); diff != "" || pinned != 2 {
			t.Errorf("%d are kept open (-want +got):\n%s", pinned, diff)
		}
	}
}

// TestHostProc: with the host's /proc mounted elsewhere, the host's namespace, its names,
// and the program's own namespace among the others are found.
func TestHostProc(t *testing.T) {
	isolated(t)
	newNetNS(t, "/run/netns/a")
	start(t, "/run/netns/a", task{Listen: everywhere}, nil)
	start(t, "", task{Listen: []listener{{Addr: "0.0.0.0", Port: port + 1}}}, nil)
	proc := t.TempDir()
	if err := unix.Mount("/proc", proc, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(proc, unix.MNT_DETACH)
	o := options(Auto)
	container := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	got := start(t, "", task{Report: &o, Proc: proc}, container).reports(t)
	for i := range got {
		if _, err := strconv.Atoi(got[i].Name); err == nil {
			got[i].Name = "number"
		}
	}
	want := []report{
		{Host: true, Sockets: []string{"0.0.0.0:4001 loopback"}},
		{Name: "number"},
		{Name: "a", Sockets: []string{"0.0.0.0:4000 public"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s, err := Open(host.Host{Proc: t.TempDir(), Root: "/"}, options(Auto))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Find(t.Context(), time.Now()); err == nil || !strings.HasPrefix(err.Error(), "network namespace of the host: ") {
		t.Errorf("a host without processes: %v", err)
	}
}

// TestNothingIsMissingThatWasNotLookedAt: if a pass cannot look, the known namespaces
// stay.
func TestNothingIsMissingThatWasNotLookedAt(t *testing.T) {
	isolated(t)
	c := start(t, "", task{Listen: everywhere}, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
	s := open(t, options(Auto))
	find(t, s)
	n := s.All()[1]
	if r := reportOf(n); r.Error != "" {
		t.Fatal(r.Error)
	}
	start(t, "", task{}, nil)
	c.End() // but another process may have moved into it
	over, cancel := context.WithCancel(t.Context())
	cancel()
	partial, err := s.Find(over, time.Now())
	if want := "network namespaces: stopped by the deadline with "; err != nil || !strings.HasPrefix(partial, want) {
		t.Errorf("partial %q, %v, expected %q", partial, err, want)
	}
	if !slices.Contains(s.All(), n) || n.Gone() {
		t.Error("the namespace is gone")
	}
	find(t, s)
	if len(s.All()) != 1 || !n.Gone() {
		t.Error("the namespace is not gone, though everything was looked at")
	}
}

// TestNothingIsMissingWithoutDescriptors: if no file can be opened, the known namespaces
// stay, and the reason is reported.
func TestNothingIsMissingWithoutDescriptors(t *testing.T) {
	isolated(t)
	newNetNS(t, "/run/netns/named")
	newNetNS(t, "/run/elsewhere/opened")
	start(t, "", task{Open: "/run/elsewhere/opened"}, nil)
	if err := unix.Unmount("/run/elsewhere/opened", unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	s := open(t, options(Auto))
	find(t, s)
	before := slices.Clone(s.All())
	if len(before) != 3 {
		t.Fatalf("%d namespaces", len(before))
	}
	if err := os.WriteFile("/run/netns/new", nil, 0o644); err != nil { // so that the mounts are read again
		t.Fatal(err)
	}
	defer os.Remove("/run/netns/new")
	next, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(next)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next), Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	partial, err := s.Find(t.Context(), time.Now())
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err != nil || !strings.HasSuffix(partial, "too many open files") {
		t.Errorf("partial %q, %v", partial, err)
	}
	if !slices.Equal(before, s.All()) {
		t.Errorf("%d namespaces, expected %d", len(s.All()), len(before))
	}
	find(t, s)
	if !slices.Equal(before, s.All()) {
		t.Errorf("afterwards %d namespaces, expected %d", len(s.All()), len(before))
	}
}

// TestLapsFindWhatIsNew: a namespace that only a thread holds is found within Refresh.
func TestLapsFindWhatIsNew(t *testing.T) {
	isolated(t)
	s := open(t, options(Auto))
	find(t, s)
	start(t, "", task{Listen: everywhere, Thread: true}, nil)
	find(t, s)
	if n := len(s.All()); n != 1 {
		t.Fatalf("%d namespaces: the lap is not due", n)
	}
	now := time.Now().Add(s.shared.options.Refresh)
	soon(t, "the lap has found it", func() bool {
		partial, err := s.Find(t.Context(), now)
		if err != nil || partial != "" {
			t.Fatalf("partial %q, %v", partial, err)
		}
		return len(s.All()) == 2
	})
	if r := reportOf(s.All()[1]); r.Error != "" || !slices.Equal(r.Sockets, []string{"0.0.0.0:4000"}) {
		t.Errorf("%+v", r)
	}
}

// TestLapIsResumed continues where it stopped, also inside a process with many open
// files.
func TestLapIsResumed(t *testing.T) {
	isolated(t)
	holder := start(t, "", task{}, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
	path := fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid)
	many := start(t, "", task{OpenMany: 2000, Open: path}, nil)
	start(t, "", task{Listen: everywhere, In: []string{path}}, nil)
	held, err := numberOf(path)
	if err != nil {
		t.Fatal(err)
	}
	holder.End()
	number, err := numberOf("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	own := &location{own: true, number: number}
	f, err := openFinder(host.Find("/proc"), own, own, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	f.lap.mounts = make(map[uint64]bool)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	calls := 0
	for ; calls < 100; calls++ {
		// The context ends inside the process: search checks it at its start and every 256 files.
		done, err := f.lap.search(t.Context(), &endsLater{Context: over}, many.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if done {
			break
		}
	}
	found := slices.ContainsFunc(f.known.all(), func(l *location) bool { return l.number == held })
	if want := 2000 / 256; calls != want || !found { // namespaces of other tests may be mounted
		t.Errorf("cut %d times, expected %d; the namespace was found: %t", calls, want, found)
	}
}

// An endsLater is done only when it is asked a second time.
type endsLater struct {
	context.Context
	asked bool
}

func (e *endsLater) Err() error {
	if !e.asked {
		e.asked = true
		return nil
	}
	return e.Context.Err()
}

// TestLostNamespaceIsSearched: if the last process of a namespace with listeners has ended,
// whatever else holds it is found at once.
func TestLostNamespaceIsSearched(t *testing.T) {
	isolated(t)
	c := start(t, "", task{}, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
	path := fmt.Sprintf("/proc/%d/ns/net", c.Process.Pid)
	start(t, "", task{Listen: everywhere, In: []string{path}}, nil)
	s := open(t, options(Auto))
	find(t, s)
	n := s.All()[1]
	if r := reportOf(n); r.Error != "" || len(r.Sockets) != 1 {
		t.Fatalf("%+v", r)
	}
	start(t, "", task{Open: path}, nil)
	c.End()
	find(t, s)
	if !slices.Contains(s.All(), n) {
		t.Error("the namespace is gone, but a file of it is open")
	}
	if r := reportOf(n); r.Error != "" || len(r.Sockets) != 1 {
		t.Errorf("%+v", r)
	}
}

// TestTimeIsShared: the host gets all of the time, and each other namespace a part.
func TestTimeIsShared(t *testing.T) {
	for _, test := range []struct {
		root    bool
		timeout time.Duration
		want    time.Duration
	}{
		{root: true, timeout: 10 * time.Second, want: 10 * time.Second},
		{timeout: 10 * time.Second, want: time.Second},
		{timeout: 2 * time.Second, want: 500 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), test.timeout)
			defer cancel()
			n := &Namespace{root: test.root}
			shared, cancelShared := n.share(ctx)
			defer cancelShared()
			deadline, ok := shared.Deadline()
			if !ok || time.Until(deadline) != test.want {
				t.Errorf("of %v it has %v, expected %v", test.timeout, time.Until(deadline), test.want)
			}
		})
	}
}

// TestFailingListingRests: it does not take the time of the others at every gather.
func TestFailingListingRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sockets{location: &location{}, backend: Procfs}
		slow := listing{begin: func() { time.Sleep(time.Second) }, visit: func(*inet.Socket) {}}
		calls := 0
		quick := listing{begin: func() { calls++ }, visit: func(*inet.Socket) {}}
		if _, err := s.list(t.Context(), slow); err != ErrNoProcess {
			t.Fatal(err)
		}
		if _, err := s.list(t.Context(), quick); err != ErrNoProcess || calls != 0 {
			t.Errorf("%v, listed %d times", err, calls)
		}
		time.Sleep(restFactor * time.Second)
		if _, err := s.list(t.Context(), quick); err != ErrNoProcess || calls != 1 {
			t.Errorf("after the rest: %v, listed %d times", err, calls)
		}
	})
}
