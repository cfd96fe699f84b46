package tcplisten

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// TestNamespaces finds the listeners of other network namespaces, of processes and
// of mounts, and shows the exposure that they have there.
func TestNamespaces(t *testing.T) {
	if elsewhere(t) {
		return
	}
	const name = "sockwatch-test"
	ip(t, "link set lo up")
	ip(t, "netns add "+name)
	ip(t, "-n "+name+" link set lo up")
	ip(t, "-n "+name+" address add 198.51.100.7/32 dev lo")
	mounted, err := os.Open("/run/netns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer mounted.Close()
	listen := []listenTask{{Addr: "0.0.0.0", Port: 4000}, {Addr: "127.0.0.1", Port: 4001}}
	start(t, task{Name: []byte("here"), Listen: listen})
	startIn(t, mounted, task{Name: []byte("mounted"), Listen: listen})
	unnamed, _ := startWith(t, task{Name: []byte("unnamed"), Listen: listen}, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Setpgid: true})
	inode, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", unnamed.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	inode = strings.Trim(inode, "net:[]")

	threads := namespaces(t)
	for _, backend := range []string{backendNetlink, backendProcfs} {
		t.Run(backend, func(t *testing.T) {
			options := Defaults()
			options.Namespaces, options.Backend = true, backend
			in := open(t, options).(*input)
			var got []string
			for range 3 {
				got = nil
				for _, p := range gather(t, in).Points {
					// Whatever else runs on this machine may have namespaces, too.
					ours := slices.Contains([]string{"", inode, name}, p.Tag("netns"))
					if port := p.Tag("port"); ours && (port == "4000" || port == "4001") {
						got = append(got, fmt.Sprintf("%s %s:%s %s %s", p.Tag("netns"), p.Tag("address"), port, p.Tag("exposure"), p.Tag("process")))
					}
				}
			}
			want := []string{
				" 0.0.0.0:4000 loopback here", " 127.0.0.1:4001 loopback here",
				inode + " 0.0.0.0:4000  unnamed", inode + " 127.0.0.1:4001 loopback unnamed",
				name + " 0.0.0.0:4000 public mounted", name + " 127.0.0.1:4001 loopback mounted",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if backend == backendNetlink {
				if after := namespaces(t); len(after) != 1 || after[0] != threads[0] {
					t.Errorf("threads are left in namespaces %v, the program's is %v", after, threads)
				}
			}
		})
	}

	ip(t, "netns add "+name+"-empty")
	options := Defaults()
	options.Namespaces, options.Backend = true, backendProcfs
	without, log := openLogging(t, options, plugin.Env{Name: pointListener})
	gather(t, without)
	gather(t, without)
	if n := strings.Count(log.String(), "netns="+name+"-empty"); n != 1 {
		t.Errorf("that a namespace is left out is said %d times: %s", n, log)
	}

	options.Backend = backendAuto
	opened, log := openLogging(t, options, plugin.Env{Name: pointListener})
	in := opened.(*input)
	gather(t, in)
	if err := in.findSpaces(); err != nil {
		t.Fatal(err)
	}
	end(unnamed) // before it is listed
	if err := in.listAll(t.Context(), in.sight); err != nil || log.Len() > 0 {
		t.Errorf("a namespace ends meanwhile: %v, logged: %s", err, log)
	}
	for _, p := range gather(t, in).Points {
		if p.Tag("netns") == inode {
			t.Errorf("a namespace that is gone has %s", p.Series())
		}
	}
	gather(t, in)
	for _, sp := range in.spaces {
		if sp.name == inode {
			t.Error("a namespace that is gone is remembered")
		}
	}
	if points := gather(t, open(t, Defaults())).Points; slices.ContainsFunc(points, func(p metric.Point) bool { return p.Tag("netns") != "" }) {
		t.Error("other namespaces are shown though that is off")
	}
}

// TestNamespaceIsLeft lists a namespace also when the process by which it was found
// has ended, or has moved to another one: by that name it never lists the other.
func TestNamespaceIsLeft(t *testing.T) {
	if elsewhere(t) {
		return
	}
	ip(t, "link set lo up")
	ip(t, "netns add left")
	start(t, task{Listen: []listenTask{{Addr: "127.0.0.1", Port: 4001}}})
	for _, backend := range []string{backendNetlink, backendProcfs} {
		for _, named := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, named %t", backend, named), func(t *testing.T) {
				options := Defaults()
				options.Namespaces, options.Backend = true, backend
				in := open(t, options).(*input)
				var door *exec.Cmd
				name := "left"
				if named {
					mounted, err := os.Open("/run/netns/left")
					if err != nil {
						t.Fatal(err)
					}
					defer mounted.Close()
					startNext(t, mounted, func() (*exec.Cmd, error) {
						var err error
						door, err = spawn(&task{}, nil, &syscall.SysProcAttr{Setpgid: true}, new([]int))
						return door, err
					})
				} else {
					door, _ = startWith(t, task{}, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Setpgid: true})
				}
				netns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", door.Process.Pid))
				if err != nil {
					t.Fatal(err)
				}
				defer netns.Close()
				if !named {
					link, err := os.Readlink(netns.Name())
					if err != nil {
						t.Fatal(err)
					}
					name = strings.Trim(link, "net:[]")
				}
				startIn(t, netns, task{Listen: []listenTask{{Addr: "0.0.0.0", Port: 4000}}})
				gather(t, in)
				space := func() *space {
					i := slices.IndexFunc(in.spaces, func(sp *space) bool { return sp.name == name })
					if i < 0 {
						t.Fatalf("no namespace %s", name)
					}
					return in.spaces[i]
				}
				listed := func() (got []string) {
					t.Helper()
					if err := in.listAll(t.Context(), in.sight); err != nil {
						t.Fatal(err)
					}
					for _, l := range in.listeners {
						if l.space == in.host || l.space.name == name {
							got = append(got, fmt.Sprintf("%s:%d %t", l.space.name, l.socket.Port, l.unseen()))
						}
					}
					slices.Sort(got)
					return got
				}
				want := []string{":4001 false", name + ":4000 false"}
				slices.Sort(want)

				sp := space()
				sp.process = strconv.Itoa(door.Process.Pid)
				if !named {
					sp.door = in.doorOf(sp.process)
				}
				end(door)
				if diff := cmp.Diff(want, listed()); diff != "" {
					t.Errorf("its process has ended (-want +got):\n%s", diff)
				}
				sp.process = strconv.Itoa(os.Getpid())
				if !named {
					sp.door = in.doorOf(sp.process)
				}
				if diff := cmp.Diff(want, listed()); diff != "" {
					t.Errorf("its process has moved to this one (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestInterfacesAreReadAgain finds the exposure out at the next gather where the
// interfaces could not be read at one.
func TestInterfacesAreReadAgain(t *testing.T) {
	if elsewhere(t) {
		return
	}
	ip(t, "link set lo up")
	start(t, task{Listen: []listenTask{{Addr: "0.0.0.0", Port: 4000}}})
	in := open(t, Defaults()).(*input)
	if p := one(t, gather(t, in), 4000); p.Tag("exposure") != "loopback" {
		t.Error(p.Series())
	}
	ip(t, "address add 8.8.8.8/32 dev lo")
	next, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(next)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: uint64(next), Max: limit.Max}
	soon(t, "a gather without a file to open", func() bool {
		unix.Setrlimit(unix.RLIMIT_NOFILE, &none)
		defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		_, err := in.Gather(t.Context())
		return err != nil && strings.Contains(err.Error(), "interfaces: ")
	})
	if p := one(t, gather(t, in), 4000); p.Tag("exposure") != "public" {
		t.Error(p.Series())
	}
}

// startIn starts a child in another network namespace.
func startIn(t *testing.T, netns *os.File, job task) {
	t.Helper()
	startNext(t, netns, func() (*exec.Cmd, error) {
		return spawn(&job, nil, &syscall.SysProcAttr{Setpgid: true}, new([]int))
	})
}

// startNext calls spawn on a thread that is in another network namespace, or in the
// test's own where that is nil, and ends the child with the test.
func startNext(t *testing.T, netns *os.File, spawn func() (*exec.Cmd, error)) {
	t.Helper()
	var cmd *exec.Cmd
	err := onSpareThread(func() (err error) {
		if netns != nil {
			if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
		}
		cmd, err = spawn()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
}

// onSpareThread calls do on a thread that ends afterwards. The first thread of a
// process cannot, so that another one is taken.
func onSpareThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			err := onSpareThread(do)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}

// namespaces returns the network namespaces that the threads of this process are
// in, without repetition.
func namespaces(t *testing.T) (all []string) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tasks {
		if ns, err := os.Readlink(path); err == nil && !slices.Contains(all, ns) {
			all = append(all, ns)
		}
	}
	return all
}

// TestExposureFollowsAddresses gives a wildcard the class of what is up now.
func TestExposureFollowsAddresses(t *testing.T) {
	if elsewhere(t) {
		return
	}
	start(t, task{Listen: []listenTask{{Addr: "0.0.0.0", Port: 4000}, {Addr: "::", Port: 4001}}})
	in := open(t, Defaults())
	for _, step := range []struct{ ip, v4, dual string }{
		{"link show lo", "", ""},
		{"link set lo up", "loopback", "loopback"},
		{"address add 10.1.2.3/32 dev lo", "private", "private"},
		{"address add 2001:db8::1/128 dev lo nodad", "private", "public"},
		{"address add 192.0.2.1/32 dev lo", "public", "public"},
		{"address delete 192.0.2.1/32 dev lo", "private", "public"},
		{"link set lo down", "", ""},
	} {
		ip(t, step.ip)
		// The kernel announces an IPv6 address a moment after ip has returned.
		soon(t, fmt.Sprintf("%q and %q after ip %s", step.v4, step.dual, step.ip), func() bool {
			b := gather(t, in)
			v4, dual := one(t, b, 4000), one(t, b, 4001)
			return v4.Tag("exposure") == step.v4 && dual.Tag("exposure") == step.dual
		})
	}
}

// TestHostProc finds the host's namespace by its /proc, mounted elsewhere.
func TestHostProc(t *testing.T) {
	if elsewhere(t) {
		return
	}
	dir := t.TempDir()
	if err := unix.Mount("/proc", dir, "", unix.MS_BIND, ""); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	start(t, task{Name: []byte("inside"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 4000}}})
	options := Defaults()
	options.Proc = dir
	in := open(t, options).(*input)
	b := gather(t, in)
	if in.host.process != "1" {
		t.Errorf("the host's namespace is that of process %s", in.host.process)
	}
	if len(at(b, 4000)) != 0 {
		t.Error("a listener of this test's own namespace is taken for one of the host")
	}
	options.Namespaces = true
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	own = strings.Trim(own, "net:[]")
	b = gather(t, open(t, options))
	found := slices.ContainsFunc(at(b, 4000), func(p metric.Point) bool {
		return p.Tag("netns") == own && p.Tag("process") == "inside"
	})
	if !found {
		t.Errorf("no listener of namespace %s", own)
	}
}

// TestHostProcOfOwnNamespace knows that the host's network namespace is the program's
// own without the right to see which that of pid 1 is.
func TestHostProcOfOwnNamespace(t *testing.T) {
	if elsewhere(t, unix.CLONE_NEWPID) {
		return
	}
	ip(t, "link set lo up")
	dir := t.TempDir()
	for _, up := range []string{dir, filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
		os.Chmod(up, 0o755)
	}
	if err := unix.Mount("proc", dir, "proc", 0, ""); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	start(t, task{Listen: []listenTask{{Addr: "127.0.0.1", Port: 4000}}})
	options := Defaults()
	options.Proc, options.Namespaces = dir, true
	f := gatherAs(t, task{Gather: &options}, as(nobody))
	want := []string{`tcp_listen{address="127.0.0.1",exposure="loopback",family="ipv4",owner="unreadable",port="4000",user="root"} sockets=1`}
	if diff := cmp.Diff(want, f.Points); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := strings.Count(f.Log, "\n"); n != 1 || !strings.Contains(f.Log, "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH") {
		t.Errorf("%d lines are logged:\n%s", n, f.Log)
	}
}
