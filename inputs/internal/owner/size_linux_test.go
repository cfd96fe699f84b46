package owner

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/agent/plugin/plugintest/soak"
	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/procfs"
)

var (
	filesOfOne = flag.Int("files", soak.Times(50_000), "open files of the one process that has very many")
	hostSize   = flag.Int("processes", 1000, "processes of a host that has very many")
)

// TestVeryManyFiles finds the listener among as many files as a process can have, with the
// same memory as for few; if the time ends inside the process, the report says so.
func TestVeryManyFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("opens very many files")
	}
	file, s := listen(t)
	_, other := listen(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// Every other file is the listener: there cannot be more to record.
	n := min(*filesOfOne, int(limit.Cur)-200)
	for i := range n {
		from := int(file.Fd())
		if i%2 == 0 {
			from = int(os.Stdin.Fd())
		}
		fd, err := unix.Dup(from)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	t.Logf("%d files", n)
	veryManyFiles(t, newFinder(t, rarely()), os.Getpid(), s, other)
}

// TestVeryManyFilesInADirectory does the same with more files than the limits of most hosts
// allow a process: links in a directory, which procfs shows in the same way.
func TestVeryManyFilesInADirectory(t *testing.T) {
	if testing.Short() {
		t.Skip("makes very many files")
	}
	root := fastDir(t)
	const pid = 100
	fds := filepath.Join(root, strconv.Itoa(pid), "fd")
	if err := os.MkdirAll(fds, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"stat":     "btime 1700000000\n",
		"100/stat": "100 (many) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 500 0 0\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, other := &Socket{Inode: 7}, &Socket{Inode: 8}
	for i := range *filesOfOne {
		target := "socket:[7]"
		switch {
		case i == *filesOfOne/2:
			target = "socket:[8]"
		case i%2 == 0:
			target = "socket:[9]"
		}
		if err := os.Symlink(target, filepath.Join(fds, strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	fs, err := procfs.Open(host.Find(root))
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewFinder(fs, rarely())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	veryManyFiles(t, f, pid, s, other)
}

// fastDir returns a directory in memory if there is one.
func fastDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sockwatch")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func veryManyFiles(t *testing.T, f *Finder, pid int, sockets ...*Socket) {
	t.Helper()
	for _, s := range sockets {
		f.Add(s)
	}
	now := time.Now()
	last := sockets[len(sockets)-1]
	heap := retains(func() {
		if report := f.Update(&limited{t.Context(), 1}, now); report.Partial == "" || last.Status != Pending {
			t.Errorf("cut: partial %q, %s", report.Partial, last.Status)
		}
		// The search continues where it stopped, inside the process.
		if report := f.Update(t.Context(), now); (report.Partial == "") == (last.Status == Pending) {
			t.Errorf("at the next update: partial %q, %s", report.Partial, last.Status)
		}
		f.Update(t.Context(), now)
	})
	for _, s := range sockets {
		expect(t, s, pid)
	}
	t.Logf("%d bytes retained", heap)
	if heap > 256<<10 {
		t.Errorf("%d bytes retained to search them", heap)
	}
}

// TestVeryManyProcesses searches all of them, also if that takes several
// updates, needs memory only for their pids, and finds every holder.
func TestVeryManyProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("starts very many processes")
	}
	file, s := listen(t)
	n := *hostSize
	t.Run("bystanders", func(t *testing.T) {
		spawn(t, n)
		search := func() (processes int, allocated uint64) {
			_, other := listen(t)
			f := newFinder(t, rarely())
			f.Add(other)
			all, err := f.fs.PIDs(nil) // others have processes too
			if err != nil {
				t.Fatal(err)
			}
			n := len(all)
			now := time.Now()
			allocated = allocates(func() {
				updates := 0
				for ; other.Status == Pending; updates++ {
					report := f.Update(&limited{t.Context(), n / 3}, now)
					if report.Partial == "" && other.Status == Pending {
						t.Errorf("partial %q, %s", report.Partial, other.Status)
					}
				}
				if updates > 10 { // two checks for each process
					t.Errorf("%d updates", updates)
				}
				f.refreshed = time.Time{}
				if report := f.Update(t.Context(), now.Add(never)); report.Partial != "" {
					t.Errorf("partial %q", report.Partial)
				}
			})
			expect(t, other, os.Getpid())
			return n, allocated
		}
		// Where others start processes meanwhile, the finder looks again.
		for attempt := 1; ; attempt++ {
			n, allocated := search()
			t.Logf("%d bytes allocated for each of %d processes", allocated/uint64(n), n)
			if allocated <= uint64(512*n)+256<<10 {
				break
			}
			if attempt == 5 {
				t.Fatalf("%d bytes allocated for %d processes", allocated, n)
			}
		}
	})
	t.Run("holders", func(t *testing.T) {
		spawn(t, n, file)
		f := newFinder(t, rarely())
		f.Add(s)
		now := time.Now()
		if report := f.Update(&limited{t.Context(), n / 2}, now); report.Partial == "" {
			t.Error("the report is not partial")
		}
		heap := retains(func() {
			if report := f.Update(t.Context(), now); report.Partial != "" {
				t.Errorf("partial %q", report.Partial)
			}
		})
		if got, want := s.Count(), n+1; got != want || s.Status != Resolved || s.Named().PID != os.Getpid() {
			t.Errorf("%s, %d holders, expected %d, of which %d is named", s.Status, got, want, s.Named().PID)
		}
		t.Logf("%d bytes retained for each of %d processes", heap/n, n)
		if heap > 1024*n+256<<10 {
			t.Errorf("%d bytes retained for %d processes", heap, n)
		}
	})
}

// spawn starts processes that hold files, and that end with the test's process.
func spawn(t *testing.T, n int, files ...*os.File) {
	t.Helper()
	end, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	var shells []*exec.Cmd
	t.Cleanup(func() {
		ours.Close()
		for _, sh := range shells {
			sh.Wait()
		}
	})
	const each = 100 // a shell is slow with more
	for left := n; left > 0; left -= each {
		const script = `for i in $(seq %d); do read x <&3 & done; echo; wait`
		sh := exec.Command("sh", "-c", fmt.Sprintf(script, min(left, each)-1))
		sh.ExtraFiles = append([]*os.File{end}, files...)
		ready, err := sh.StdoutPipe()
		if err == nil {
			err = sh.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		shells = append(shells, sh)
		if _, err := ready.Read(make([]byte, 1)); err != nil {
			t.Fatalf("%d processes: %v", n-left, err)
		}
	}
}

// retains returns by how many bytes the heap has grown.
func retains(do func()) int {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	do()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return int(after.HeapAlloc) - int(before.HeapAlloc)
}

// allocates returns how many bytes are allocated by do.
func allocates(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
