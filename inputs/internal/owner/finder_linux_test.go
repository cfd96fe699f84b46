package owner

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/procfs"
)

const envLeaderless = "SOCKWATCH_TEST_LEADERLESS"

func TestMain(m *testing.M) {
	if os.Getenv(envLeaderless) != "" {
		endFirstThread()
	}
	os.Exit(m.Run())
}

// endFirstThread ends the thread that has the process's pid, and continues in
// another one until standard input ends.
func endFirstThread() {
	go func() {
		for syscall.Kill(os.Getpid(), 0) == nil && !leaderEnded() {
			time.Sleep(time.Millisecond)
		}
		fmt.Println("ready")
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	for range 100 {
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() {
				unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
			}
			select {} // so that the next one gets another thread
		}()
	}
	select {}
}

func leaderEnded() bool {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return false
	}
	st, err := procfs.ParseStat(text)
	return err == nil && st.State == 'Z'
}

func newFinder(t *testing.T, options Options) *Finder {
	t.Helper()
	fs, err := procfs.Open(host.Find("/proc"))
	if err != nil {
		t.Fatal(err)
	}
	if searchKernel {
		options.Files = openFiles(t)
	}
	f, err := NewFinder(fs, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		fs.Close()
	})
	return f
}

// never is longer than any test.
const never = 1 << 60

func rarely() Options {
	return Options{Verify: never, Refresh: never, Members: func(string) []int { return nil }}
}

// listen opens a listener and returns a file of it, and the Socket.
func listen(t *testing.T) (*os.File, *Socket) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	t.Cleanup(func() { file.Close() })
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return file, &Socket{Inode: st.Ino}
}

// hold starts a process that holds a file until the test ends.
func hold(t *testing.T, file *os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.ExtraFiles = []*os.File{file}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	return cmd
}

func end(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

func pids(s *Socket) (all []int) {
	for _, h := range s.Holders {
		all = append(all, h.Process.PID)
	}
	slices.Sort(all)
	return all
}

func expect(t *testing.T, s *Socket, want ...int) {
	t.Helper()
	slices.Sort(want)
	if got := pids(s); !slices.Equal(got, want) || s.Status != Resolved {
		t.Errorf("%s, held by %v, expected %v", s.Status, got, want)
	}
}

// TestManyHoldersAreCounted: all holders of one socket are counted, and the same one is named
// every time.
func TestManyHoldersAreCounted(t *testing.T) {
	f := newFinder(t, rarely())
	file, s := listen(t)
	a, b := hold(t, file), hold(t, file)
	f.Add(s)
	now := time.Now()
	for i := range 5 {
		report := f.Update(t.Context(), now.Add(time.Duration(i)*time.Second))
		if report.Partial != "" || report.Walked != (i == 0) {
			t.Errorf("gather %d: %+v", i, report)
		}
		expect(t, s, os.Getpid(), a.Process.Pid, b.Process.Pid)
		if s.Named().PID != os.Getpid() {
			t.Errorf("%d is named, expected the one that started first, %d", s.Named().PID, os.Getpid())
		}
	}
}

// TestExit: an exit is noticed without a search of files, and causes one.
func TestExit(t *testing.T) {
	for _, watched := range []bool{true, false} {
		t.Run(fmt.Sprintf("pidfd %v", watched), func(t *testing.T) {
			f := newFinder(t, rarely())
			if !watched {
				f.processes.exits.spare = 0
			}
			file, s := listen(t)
			a := hold(t, file)
			f.Add(s)
			f.Update(t.Context(), time.Now())
			expect(t, s, os.Getpid(), a.Process.Pid)
			version := s.Version
			if report := f.Update(t.Context(), time.Now()); report.Walked {
				t.Error("files were searched though nothing had changed")
			}
			end(a)
			report := f.Update(t.Context(), time.Now())
			expect(t, s, os.Getpid())
			if !report.Walked || s.Version == version {
				t.Errorf("walked %v, version %d, before %d", report.Walked, s.Version, version)
			}
			f.Remove(s)
			f.Update(t.Context(), time.Now())
			if len(f.processes.byPID)+len(f.processes.list)+len(f.scanner.sockets)+len(f.sockets)+f.processes.unwatched != 0 {
				t.Errorf("of a socket that is gone there remain %d processes, %d sockets, %d unwatched processes", len(f.processes.list), len(f.sockets), f.processes.unwatched)
			}
		})
	}
}

// TestVerify notices that a running process has closed the socket.
func TestVerify(t *testing.T) {
	options := rarely()
	options.Verify = time.Minute
	f := newFinder(t, options)
	file, s := listen(t)
	a := hold(t, file)
	f.Add(s)
	now := time.Now()
	f.Update(t.Context(), now)
	expect(t, s, os.Getpid(), a.Process.Pid)
	file.Close()
	for range 6 {
		now = now.Add(10 * time.Second)
		f.Update(t.Context(), now)
	}
	expect(t, s, a.Process.Pid)
}

// TestRefresh finds a process that got the socket later, when a refresh is due.
func TestRefresh(t *testing.T) {
	options := rarely()
	options.Refresh = 5 * time.Minute
	f := newFinder(t, options)
	file, s := listen(t)
	f.Add(s)
	now := time.Now()
	f.Update(t.Context(), now)
	a := hold(t, file)
	f.Update(t.Context(), now.Add(4*time.Minute))
	expect(t, s, os.Getpid())
	f.Update(t.Context(), now.Add(5*time.Minute))
	expect(t, s, os.Getpid(), a.Process.Pid)
}

// TestNear searches the cgroup of a socket first, and the whole host only if that
// does not find an owner.
func TestNear(t *testing.T) {
	options := rarely()
	var asked []string
	members := map[string][]int{"/a": {os.Getpid()}}
	options.Members = func(cgroup string) []int {
		asked = append(asked, cgroup)
		return members[cgroup]
	}
	f := newFinder(t, options)
	_, first := listen(t)
	f.Add(first)
	f.Update(t.Context(), time.Now()) // a walk over all
	walked := f.refreshed
	file, near := listen(t)
	near.Cgroup = "/a"
	hold(t, file) // not in the cgroup: found at the next refresh
	f.Add(near)
	f.Update(t.Context(), time.Now().Add(time.Second))
	expect(t, near, os.Getpid())
	if !f.refreshed.Equal(walked) || !slices.Equal(asked, []string{"/a"}) {
		t.Errorf("asked %v, walked over all: %v", asked, !f.refreshed.Equal(walked))
	}
	_, far := listen(t)
	far.Cgroup = "/b"
	f.Add(far)
	f.Update(t.Context(), time.Now().Add(2*time.Second))
	expect(t, far, os.Getpid())
	if f.refreshed.Equal(walked) {
		t.Error("a socket whose cgroup does not hold it was found without a walk over all")
	}
}

// TestReusedPIDIsAnotherProcess: a process is distinguished from the one that had its pid
// before, even if nothing else shows that this one has exited.
func TestReusedPIDIsAnotherProcess(t *testing.T) {
	f := newFinder(t, rarely())
	file, s := listen(t)
	first := hold(t, file)
	f.Add(s)
	f.Update(t.Context(), time.Now())
	before := f.processes.byPID[first.Process.Pid]
	end(first)
	other, later := listen(t)
	second := holdAs(t, first.Process.Pid, other)
	f.Add(later)
	f.search(t.Context(), time.Now()) // without checking who has exited
	after := f.processes.byPID[second.Process.Pid]
	if after == before || after == nil || !before.gone || after.gone {
		t.Fatalf("the same process: %v", after == before)
	}
	f.Update(t.Context(), time.Now())
	expect(t, s, os.Getpid())
	expect(t, later, os.Getpid(), second.Process.Pid)
	if f.processes.unwatched != 0 {
		t.Errorf("%d processes are not watched", f.processes.unwatched)
	}
}

// holdAs is hold, by a process that gets the pid of one that has ended.
func holdAs(t *testing.T, pid int, file *os.File) *exec.Cmd {
	t.Helper()
	time.Sleep(20 * time.Millisecond) // start times have a resolution of 10 ms
	for range 200 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Skip(err)
		}
		cmd := hold(t, file)
		if cmd.Process.Pid == pid {
			return cmd
		}
		end(cmd)
	}
	t.Skip("the pid was always taken by others")
	return nil
}

// TestFirstThreadEnded: the holder is found even if its first thread has ended.
func TestFirstThreadEnded(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the directory of such a process belongs to root")
	}
	f := newFinder(t, Options{Verify: time.Second, Refresh: never, Members: func(string) []int { return nil }})
	file, s := listen(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envLeaderless+"=1", "GOMAXPROCS=4") // one of them is lost with the thread
	cmd.ExtraFiles = []*os.File{file}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	file.Close()
	f.Add(s)
	now := time.Now()
	for i := range 3 { // verified each time
		f.Update(t.Context(), now.Add(time.Duration(i)*time.Second))
		expect(t, s, cmd.Process.Pid)
		if exe, err := os.Executable(); s.Named() == nil || s.Named().Exe != exe || s.Named().ExeDeleted {
			t.Errorf("the owner is %+v, want program %q, %v", s.Named(), exe, err)
		}
	}
}

// TestExec: the facts of a process are read again within Options.Verify.
func TestExec(t *testing.T) {
	f := newFinder(t, Options{Verify: time.Minute, Refresh: never, Members: func(string) []int { return nil }})
	file, s := listen(t)
	cmd := exec.Command("sh", "-c", "read x; exec sleep 600")
	cmd.ExtraFiles = []*os.File{file}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	file.Close()
	f.Add(s)
	now := time.Now()
	f.Update(t.Context(), now)
	if s.Named() == nil || s.Named().Comm != "sh" {
		t.Fatalf("the owner is %+v", s.Named())
	}
	version := s.Version
	fmt.Fprintln(in)
	for range 500 {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
		if string(text) == "sleep\n" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.Update(t.Context(), now.Add(time.Minute))
	if s.Named().Comm != "sleep" || s.Version == version {
		t.Errorf("the owner is %+v, version %d, before %d", s.Named(), s.Version, version)
	}
}

// TestShare: every element is visited once within a period, evenly.
func TestShare(t *testing.T) {
	for _, test := range []struct {
		n               int
		elapsed, period time.Duration
		want            int
	}{
		{n: 1000, elapsed: 10 * time.Second, period: time.Minute, want: 167},
		{n: 1000, elapsed: 7 * time.Second, period: time.Minute, want: 125},
		{n: 5, elapsed: 10 * time.Second, period: time.Minute, want: 1},
		{n: 1000, elapsed: 2 * time.Minute, period: time.Minute, want: 1000},
		{n: 1000, elapsed: time.Second, period: 0, want: 1000},
		{n: 0, elapsed: time.Second, period: time.Minute, want: 0},
		{n: 1000, elapsed: 0, period: time.Minute, want: 0},
		{n: 1000, elapsed: -time.Second, period: time.Minute, want: 0},
	} {
		if got := share(test.n, test.elapsed, test.period); got != test.want {
			t.Errorf("of %d after %v in %v: %d, expected %d", test.n, test.elapsed, test.period, got, test.want)
		}
		if test.n > 0 && test.elapsed > 0 && test.elapsed < test.period {
			if gathers := int(test.period / test.elapsed); gathers*test.want < test.n {
				t.Errorf("%d gathers of %d do not reach all %d", gathers, test.want, test.n)
			}
		}
	}
}

func TestCompact(t *testing.T) {
	keep := func(n int) bool { return n%2 == 0 }
	for next, want := range []int{0, 0, 1, 1, 2} {
		list, moved := compact([]int{0, 1, 2, 3, 4}, next, keep)
		if !slices.Equal(list, []int{0, 2, 4}) || moved != want {
			t.Errorf("%v, %d went to %d, expected %d", list, next, moved, want)
		}
	}
	if list, moved := compact([]int{1, 3}, 1, keep); len(list) != 0 || moved != 0 {
		t.Errorf("%v, %d", list, moved)
	}
}

func TestCompare(t *testing.T) {
	manager := cgroup.Name{Manager: true}
	order := []*Process{{PID: 7, Start: 5}, {PID: 9, Start: 5}, {PID: 2, Start: 6}, {PID: 1, Start: 0}, {PID: 5, Start: 1, Cgroup: manager}, {PID: 4, Start: 2, Cgroup: manager}}
	for i, a := range order {
		for j, b := range order {
			if got := Compare(a, b); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("Compare(%d, %d) = %d", a.PID, b.PID, got)
			}
		}
	}
}

// TestKnownOwnersStayWithoutDescriptors: they stay although none is left to verify them, and
// each Update reports that once.
func TestKnownOwnersStayWithoutDescriptors(t *testing.T) {
	for _, watched := range []bool{true, false} {
		t.Run(fmt.Sprintf("pidfd %v", watched), func(t *testing.T) { testWithoutDescriptors(t, watched) })
	}
}

func testWithoutDescriptors(t *testing.T, watched bool) {
	options := Options{Verify: time.Second, Refresh: time.Second, Members: func(string) []int { return nil }}
	f := newFinder(t, options)
	if !watched {
		f.processes.exits.spare = 0
	}
	file, s := listen(t)
	a := hold(t, file)
	f.Add(s)
	now := time.Now()
	f.Update(t.Context(), now)
	expect(t, s, os.Getpid(), a.Process.Pid)
	before, version := *s.Named(), s.Version

	lowest, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(lowest)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	for spare := range uint64(3) {
		none := unix.Rlimit{Cur: uint64(lowest) + spare, Max: limit.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			now = now.Add(2 * time.Second)
			report := f.Update(t.Context(), now)
			expect(t, s, os.Getpid(), a.Process.Pid)
			if spare < 2 && (!errors.Is(report.OutOfResources, unix.EMFILE) || report.Partial != "owners: out of resources: too many open files") {
				t.Errorf("with %d descriptors: %+v", spare, report)
			}
		}
	}
	if s.Named().Exe != before.Exe || s.Version != version {
		t.Errorf("version %d, %+v; want %d, %+v", s.Version, s.Named(), version, before)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	end(a)
	if report := f.Update(t.Context(), now.Add(time.Minute)); report.OutOfResources != nil || report.Partial != "" {
		t.Errorf("with descriptors again: %+v", report)
	}
	expect(t, s, os.Getpid())
}

// TestKnownHolderStaysUnreadable: if its files cannot be read any more, it stays until
// it exits.
func TestKnownHolderStaysUnreadable(t *testing.T) {
	h := newFakeHost(t)
	h.process(10, 1, "/a.service", 7)
	h.process(20, 2, "/b.service", 7)
	s := &Socket{Inode: 7}
	f := h.finder(Options{Verify: time.Second, Refresh: time.Second, Members: func(string) []int { return nil }}, s)
	now := time.Now()
	f.Update(t.Context(), now)
	expect(t, s, 10, 20)
	h.remove("10/fd")
	h.write("10/fd", "")
	for range 3 {
		now = now.Add(10 * time.Second)
		report := f.Update(t.Context(), now)
		expect(t, s, 10, 20)
		if want := "owners: read " + h.path + "/10/fd: not a directory"; report.Partial != want || report.Refused != 1 {
			t.Errorf("partial %q, %d refused; want %q, 1", report.Partial, report.Refused, want)
		}
	}
	h.remove("20/fd/0")
	f.Update(t.Context(), now.Add(20*time.Second))
	expect(t, s, 10)
	h.remove("10")
	f.Update(t.Context(), now.Add(30*time.Second))
	if s.Status != None || len(s.Holders) != 0 {
		t.Errorf("%s, held by %v, want none", s.Status, pids(s))
	}
}

// TestIOURing finds a socket that only an io_uring holds, and keeps it as long as that does.
func TestIOURing(t *testing.T) {
	file, s := listen(t)
	ring := newRing(t, int32(file.Fd()))
	file.Close()
	if text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", ring)); err != nil || !strings.Contains(string(text), "socket:[") {
		t.Skip("this kernel, older than 6.15, does not print which sockets an io_uring holds: ", err)
	}
	f := newFinder(t, Options{Verify: time.Second, Refresh: time.Minute, Members: func(string) []int { return nil }})
	f.Add(s)
	now := time.Now()
	for range 3 {
		f.Update(t.Context(), now)
		expect(t, s, os.Getpid())
		now = now.Add(30 * time.Second) // every other time it is verified, then searched
	}
	unix.Close(ring)
	f.Update(t.Context(), now)
	if s.Status != None && s.Status != Unreadable || len(s.Holders) != 0 {
		t.Errorf("closed: %s, held by %v", s.Status, pids(s))
	}
}

// newRing returns an io_uring that holds a file.
func newRing(t *testing.T, fd int32) int {
	t.Helper()
	params := make([]byte, 120)
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno != 0 {
		t.Skip("io_uring_setup: ", errno)
	}
	t.Cleanup(func() { unix.Close(int(ring)) })
	const registerFiles = 2 // IORING_REGISTER_FILES
	_, _, errno = unix.Syscall6(unix.SYS_IO_URING_REGISTER, ring, registerFiles, uintptr(unsafe.Pointer(&fd)), 1, 0, 0)
	if errno != 0 {
		t.Fatal("io_uring_register: ", errno)
	}
	return int(ring)
}

// TestManagerIsNamedLast: the service that a manager activates is named, and a manager has
// no unit.
func TestManagerIsNamedLast(t *testing.T) {
	h := newFakeHost(t)
	h.remove("1")
	h.process(1, 1, "/system.slice/x.service", 7)
	h.process(20, 2, "/user.slice/user-1000.slice/user@1000.service/init.scope", 7)
	h.process(30, 5, "/system.slice/sshd.service", 7)
	s := &Socket{Inode: 7}
	f := h.finder(rarely(), s)
	f.Update(t.Context(), time.Now())
	expect(t, s, 1, 20, 30)
	if p := s.Named(); p.PID != 30 || p.Cgroup.Unit != "sshd.service" {
		t.Errorf("%d of unit %q is named", p.PID, p.Cgroup.Unit)
	}
	for i, pid := range []int{1, 20} {
		if p := s.Holders[i+1].Process; p.PID != pid || !p.CgroupRead || p.Cgroup.Unit != "" || p.Cgroup.UserUnit != "" {
			t.Errorf("manager %d: %+v", pid, p)
		}
	}
}

// TestManagerIsSearchedFurther: if the search in the cgroup has found only a manager, a walk
// searches for the service.
func TestManagerIsSearchedFurther(t *testing.T) {
	h := newFakeHost(t)
	h.process(20, 2, "/lxc.payload.a/init.scope", 7)
	h.process(30, 5, "/lxc.payload.a/system.slice/sshd.service", 7)
	options := rarely()
	options.Members = func(string) []int { return []int{20} }
	f := h.finder(options)
	f.Add(&Socket{Inode: 9})
	h.process(40, 6, "/a.service", 9)
	f.Update(t.Context(), time.Now()) // the initial walk
	s := &Socket{Inode: 7, Cgroup: "/lxc.payload.a/init.scope"}
	f.Add(s)
	f.Update(t.Context(), time.Now())
	expect(t, s, 20, 30)
	if s.Named().PID != 30 {
		t.Errorf("%d is named, want 30", s.Named().PID)
	}
}
