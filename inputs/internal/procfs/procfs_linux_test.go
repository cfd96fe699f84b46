package procfs

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
)

func open(t *testing.T) *FS {
	t.Helper()
	f, err := Open(host.Find("/proc"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestWithoutProcfs: the error names the reason.
func TestWithoutProcfs(t *testing.T) {
	dir := t.TempDir()
	noTime := tree(t, map[string]string{"stat": "cpu 1 2 3\n"})
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "open " + filepath.Join(dir, "none") + ": no such file or directory",
		dir:                        dir + " is not a procfs: open stat: no such file or directory",
		noTime:                     noTime + " is not a procfs: no line btime",
	} {
		if _, err := Open(host.Find(path)); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestStartTimeIsUnknownWithoutStat: nothing else is missing in a procfs of processes alone.
func TestStartTimeIsUnknownWithoutStat(t *testing.T) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "subset", "pid"); err != nil {
		t.Skip(err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Skip(err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(mount)
	f, err := Open(host.Host{Proc: "/proc/self/fd/" + strconv.Itoa(mount), Root: "/"})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if start := f.StartTime(100); !start.IsZero() {
		t.Errorf("a start time of %v, want none", start)
	}
	if err := f.ReadBootTime(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v, want %v", err, unix.ENOENT)
	}
	if start, err := f.Start(os.Getpid()); err != nil || start == 0 {
		t.Errorf("started %d ticks after boot, %v", start, err)
	}
}

func TestOwnProcess(t *testing.T) {
	f := open(t)
	if !f.OwnPIDs() {
		t.Error("the pids of /proc are not this program's own")
	}
	pids, err := f.PIDs(nil)
	if err != nil || !slices.Contains(pids, os.Getpid()) {
		t.Errorf("this process is not among %v, %v", pids, err)
	}
	p, err := f.Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	st, err := p.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Since(f.StartTime(st.Start)); age < -2*time.Second || age > 10*time.Minute {
		t.Errorf("this process started %v ago", age)
	}
	exe, deleted, err := p.Exe()
	if want, _ := os.Executable(); err != nil || string(exe) != want || deleted {
		t.Errorf("this program is %q, deleted %v, %v; expected %q", exe, deleted, err, want)
	}
	if args, err := p.Cmdline(5); err != nil || len(args) != 5 {
		t.Errorf("five bytes of the arguments are %q, %v", args, err)
	}
	if text, err := p.Cgroup(); err != nil || len(text) == 0 {
		t.Errorf("the cgroups are %q, %v", text, err)
	}
}

func always() bool { return true }

// TestFiles finds a socket among the open files.
func TestFiles(t *testing.T) {
	f := open(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var files []*os.File
	defer func() {
		for _, file := range files {
			file.Close()
		}
	}()
	for range 500 {
		file, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(socket.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	inode := st.Ino
	p, err := f.Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var holding int32 = -1
	done, err := p.Files(&Cursor{}, always, func(file File) {
		if file.Inode == inode {
			holding = file.FD
		}
	})
	if err != nil || !done || holding < 0 {
		t.Fatalf("the listener's file is %d, done %v, %v", holding, done, err)
	}
	self := int32(os.Getpid())
	for _, test := range []struct {
		name string
		file File
		want bool
	}{
		{name: "the listener's", file: File{TID: self, FD: holding, Inode: inode}, want: true},
		{name: "another socket's", file: File{TID: self, FD: holding, Inode: inode + 1}, want: false},
		{name: "not open", file: File{TID: self, FD: 9999, Inode: inode}, want: false},
		{name: "an io_uring's", file: File{TID: self, FD: holding, Inode: inode, Ring: true}, want: false},
	} {
		for _, holds := range []func(File) (bool, error){p.Holds, f.Holds} {
			if held, err := holds(test.file); held != test.want || err != nil {
				t.Errorf("%s: held %v, %v, expected %v", test.name, held, err, test.want)
			}
		}
	}
}

// TestReusedPIDIsAnotherProcess: a process that gets the pid of an open one is another one.
func TestReusedPIDIsAnotherProcess(t *testing.T) {
	f := open(t)
	first := exec.Command("sleep", "600")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	pid := first.Process.Pid
	p, err := f.Process(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	first.Process.Kill()
	first.Wait()
	second := startAs(t, pid)
	defer func() {
		second.Process.Kill()
		second.Wait()
	}()
	if st, err := p.Stat(); !errors.Is(err, ErrExited) {
		t.Errorf("the first process's stat is that of %q, %v", st.Comm, err)
	}
	if _, err := p.Files(&Cursor{}, always, func(File) {}); !errors.Is(err, ErrExited) {
		t.Errorf("the first process's files: %v", err)
	}
	if exe, _, err := p.Exe(); !errors.Is(err, ErrExited) {
		t.Errorf("the first process's program is %q, %v", exe, err)
	}
}

// startAs starts a process that gets the pid of one that has ended.
func startAs(t *testing.T, pid int) *exec.Cmd {
	t.Helper()
	for range 200 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Skip(err)
		}
		cmd := exec.Command("sleep", "600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if cmd.Process.Pid == pid {
			return cmd
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Skip("the pid was always taken by others")
	return nil
}

// TestZombiesAndKernelThreadsCauseNoErrors: they are read without an error.
func TestZombiesAndKernelThreadsCauseNoErrors(t *testing.T) {
	f := open(t)
	zombie := exec.Command("true")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	defer zombie.Wait()
	p, err := f.Process(zombie.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		st, err := p.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if st.State == 'Z' {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it is not a zombie: %c", st.State)
		}
	}
	if _, err := p.Files(&Cursor{}, always, func(File) { t.Error("a zombie holds a socket") }); err != nil && !errors.Is(err, ErrRefused) {
		t.Errorf("a zombie's files: %v", err)
	}
	kernel, err := f.Process(2)
	if err != nil {
		t.Skip(err)
	}
	defer kernel.Close()
	if st, err := kernel.Stat(); err != nil || string(st.Comm) != "kthreadd" {
		t.Skipf("process 2 is %q, %v", st.Comm, err)
	}
	if done, err := kernel.Files(&Cursor{}, always, func(File) { t.Error("a kernel thread holds a socket") }); !done || err != nil {
		if !errors.Is(err, ErrRefused) {
			t.Errorf("a kernel thread's files: done %v, %v", done, err)
		}
	}
}

func TestOwnUIDAndNetworkNamespace(t *testing.T) {
	f := open(t)
	p, err := f.Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	link, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	uid, uidErr := p.UID()
	netns, err := p.Netns()
	if want := "net:[" + strconv.FormatUint(netns, 10) + "]"; err != nil || link != want {
		t.Errorf("network namespace %s, %v, want %s", want, err, link)
	}
	if uidErr != nil || int(uid) != os.Geteuid() {
		t.Errorf("uid %d, %v, want %d", uid, uidErr, os.Geteuid())
	}
}
