package procfs

import (
	"maps"
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
)

func stop() bool { return false }

// TestFilesContinueAtTheCursor visits each file once, however often it stops.
func TestFilesContinueAtTheCursor(t *testing.T) {
	want := make(map[int32]int)
	for range 3000 {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		want[int32(fd)] = 1
	}
	p, err := open(t).Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	got := make(map[int32]int)
	var c Cursor
	calls := 0
	for done := false; !done; calls++ {
		if done, err = p.Files(&c, stop, func(file File) {
			if want[file.FD] != 0 {
				got[file.FD]++
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if !maps.Equal(got, want) || calls < 3 {
		t.Errorf("%d of %d files in %d calls", len(got), len(want), calls)
	}
	// In another process with the same pid, it begins again.
	c.start--
	seen := 0
	if _, err := p.Files(&c, always, func(File) { seen++ }); err != nil || seen < len(want) {
		t.Errorf("%d files, %v, want all", seen, err)
	}
}

// TestThreadFiles visits the files of threads that do not share those of the process, whether
// or not kcmp(2) can tell.
func TestThreadFiles(t *testing.T) {
	ready, done := make(chan error), make(chan struct{})
	defer close(done)
	var own unix.Stat_t
	var thread func()
	thread = func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its files
		if unix.Gettid() == os.Getpid() {
			go thread()
			<-done
			return
		}
		err := unix.Unshare(unix.CLONE_FILES)
		if err == nil {
			var fd int
			if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
				err = unix.Fstat(fd, &own)
			}
		}
		ready <- err
		<-done
	}
	go thread()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	for _, ownPIDs := range []bool{true, false} {
		for _, more := range []func() bool{always, stop} {
			h := host.Find("/proc")
			h.OwnPIDs = ownPIDs
			f, err := Open(h)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			p, err := f.Process(os.Getpid())
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			var c Cursor
			found, threads, calls := 0, make(map[int32]bool), 0
			for done := false; !done && calls < 10000; calls++ {
				if done, err = p.ThreadFiles(&c, more, func(file File) {
					threads[file.TID] = true
					if file.Inode == own.Ino {
						found++
					}
				}); err != nil {
					t.Fatal(err)
				}
			}
			if found != 1 || ownPIDs && len(threads) != 1 || calls == 10000 {
				t.Errorf("own pids %v: found %d times among the files of %d threads in %d calls, want once", ownPIDs, found, len(threads), calls)
			}
		}
	}
}

// TestFilesThatCannotBeRead: the error says what it means.
func TestFilesThatCannotBeRead(t *testing.T) {
	f := openTree(t, map[string]string{"stat": btime, "7/fd": "no directory"})
	p, err := f.Process(7)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	want := "read " + f.Path() + "/7/fd: not a directory"
	if done, err := p.Files(&Cursor{}, always, func(File) {}); done || err == nil || err.Error() != want {
		t.Errorf("done %v, %v, want %s", done, err, want)
	}
	for errno, want := range map[unix.Errno]string{
		unix.EMFILE: "out of resources: too many open files", unix.ENFILE: "out of resources: too many open files in system",
		unix.ENOMEM: "out of resources: cannot allocate memory", unix.EACCES: "not permitted", unix.EPERM: "not permitted",
		unix.ESRCH: "process has exited", unix.ENOENT: "process has exited", unix.EIO: "read " + f.Path() + "/7/fd: input/output error",
	} {
		if err := f.processError(7, "fd", errno); err.Error() != want {
			t.Errorf("%s: %v, want %s", strconv.Itoa(int(errno)), err, want)
		}
	}
}
