//go:build amd64 || arm64

package bpf

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/procfs"
	"sockwatch/inputs/internal/synthetic"
	"sockwatch/inputs/internal/testchild"
)

func openHolders(t testing.TB) *Holders {
	t.Helper()
	h, err := OpenHolders(pidNamespace(t))
	skipWithout(t, err)
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// eventually calls check until it returns nil, at most a minute.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestHoldersAreFound finds listeners in the main program, in a thread with a table of files
// of its own, in a fork, in another network namespace, and below MPTCP; and no other sockets.
func TestHoldersAreFound(t *testing.T) {
	h := openHolders(t)
	localhost := []testchild.Listener{{Addr: "127.0.0.1"}}
	var ports []int
	plain := start(t, task{Listen: localhost}, nil, &ports)
	thread := start(t, task{Listen: localhost, Thread: true}, nil, &ports)
	elsewhere := start(t, task{Listen: []testchild.Listener{{Addr: "::", Port: 4000}}}, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}, &ports)
	for _, mptcp := range []bool{false, true} {
		config := net.ListenConfig{}
		config.SetMultipathTCP(mptcp)
		l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
	}
	own := map[int]int{plain.Process.Pid: 1, thread.Process.Pid: 1, elsewhere.Process.Pid: 1, os.Getpid(): 2}
	found := map[int]int{}
	if err := h.Sockets(t.Context(), func(f procfs.File, of procfs.State) {
		pid := of.PID
		if own[pid] == 0 {
			return // of others
		}
		found[pid]++
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/task/%d/fd/%d", pid, f.TID, f.FD))
		if want := fmt.Sprintf("socket:[%d]", f.Inode); err != nil || link != want {
			t.Errorf("%+v is %q, %v, want %q", f, link, err, want)
		}
		if (int(f.TID) == pid) == (pid == thread.Process.Pid) || f.Ring {
			t.Errorf("%+v of process %d", f, pid)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(own, found); diff != "" {
		t.Errorf("holders by process (-want +got):\n%s", diff)
	}
}

// TestRingsAreFound finds the io_urings and nothing else.
func TestRingsAreFound(t *testing.T) {
	h := openHolders(t)
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(new([120]byte))), 0)
	if errno != 0 {
		t.Skip("io_uring_setup: ", errno)
	}
	defer unix.Close(int(fd))
	var own []procfs.File
	if err := h.Rings(t.Context(), func(f procfs.File, of procfs.State) {
		if of.PID == os.Getpid() {
			own = append(own, f)
		}
	}); err != nil {
		t.Fatal(err)
	}
	want := []procfs.File{{TID: int32(os.Getpid()), FD: int32(fd), Ring: true}}
	if diff := cmp.Diff(want, own); diff != "" {
		t.Errorf("io_urings (-want +got):\n%s", diff)
	}
}

// TestHoldersStopWithTheContext does not look at files after the context has ended.
func TestHoldersStopWithTheContext(t *testing.T) {
	h := openHolders(t)
	ended := errors.New("ended")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(ended)
	if err := h.Sockets(ctx, func(f procfs.File, of procfs.State) { t.Error(of.PID, f) }); !errors.Is(err, ended) {
		t.Errorf("error %v, want %v", err, ended)
	}
}

// TestVeryManyHolders reads more records than one read returns.
func TestVeryManyHolders(t *testing.T) {
	h := openHolders(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const n = 5000
	for range n {
		fd, err := unix.Dup(int(file.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	found, last := 0, -1
	if err := h.Sockets(t.Context(), func(f procfs.File, of procfs.State) {
		if of.PID == os.Getpid() {
			found++
			if int(f.FD) <= last {
				t.Fatalf("file %d after %d", f.FD, last)
			}
			last = int(f.FD)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if found != n+2 {
		t.Errorf("%d holders, want %d", found, n+2)
	}
}

// verify returns the indexes of the files that Verify confirms, and their processes.
func verify(t *testing.T, h *Holders, files []procfs.File) (confirmed []int, processes []procfs.State) {
	t.Helper()
	if err := h.Verify(t.Context(), files, func(i int, of procfs.State) {
		confirmed, processes = append(confirmed, i), append(processes, of)
	}); err != nil {
		t.Fatal(err)
	}
	return confirmed, processes
}

// TestVerifyConfirmsWhatIsOpen confirms the files of a process and of a thread with a table of
// its own, and neither closed ones nor other sockets.
func TestVerifyConfirmsWhatIsOpen(t *testing.T) {
	h := openHolders(t)
	localhost := []testchild.Listener{{Addr: "127.0.0.1"}}
	var ports []int
	plain := start(t, task{Listen: localhost}, nil, &ports)
	thread := start(t, task{Listen: localhost, Thread: true}, nil, &ports)
	var files []procfs.File
	before := make(map[int]procfs.State)
	if err := h.Sockets(t.Context(), func(f procfs.File, of procfs.State) {
		if of.PID == plain.Process.Pid || of.PID == thread.Process.Pid {
			files = append(files, f)
			before[of.PID] = of
		}
	}); err != nil || len(files) != 2 {
		t.Fatalf("files %v, %v, want two", files, err)
	}
	slices.SortFunc(files, func(a, b procfs.File) int { return int(a.TID - b.TID) })
	all := []procfs.File{{TID: 1, FD: 0, Inode: 1}} // not its socket
	for _, f := range files {
		closed, other, beyond := f, f, f
		closed.FD, other.Inode, beyond.FD = 0, f.Inode+1, 1<<30
		all = append(all, closed, other, beyond, f)
	}
	all = append(all, procfs.File{TID: 1 << 30, FD: 3, Inode: 1}) // no such thread
	confirmed, processes := verify(t, h, all)
	if diff := cmp.Diff([]int{4, 8}, confirmed); diff != "" {
		t.Fatalf("confirmed files (-want +got):\n%s", diff)
	}
	for _, of := range processes {
		if diff := cmp.Diff(before[of.PID], of); diff != "" {
			t.Errorf("process (-as in Sockets +got):\n%s", diff)
		}
	}
	plain.End()
	if confirmed, _ := verify(t, h, files); len(confirmed) != 1 {
		t.Errorf("%v are confirmed after the end of a process, want one", confirmed)
	}
}

// TestVerifyOfVeryManyFiles asks the kernel in several pieces. What a task has beyond its limit
// stays unconfirmed, and takes nothing from the next task.
func TestVerifyOfVeryManyFiles(t *testing.T) {
	h := openHolders(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	own := procfs.File{TID: int32(os.Getpid()), FD: int32(file.Fd()), Inode: st.Ino}
	files := slices.Repeat([]procfs.File{own}, 2*maxChecks+10)
	confirmed, _ := verify(t, h, files)
	const perTask = 128 // MAX_CHECKS_PER_TASK
	if want := 2*perTask + 10; len(confirmed) != want || confirmed[len(confirmed)-1] != len(files)-1 {
		t.Errorf("%d files are confirmed, the last is %d, want %d, %d", len(confirmed), confirmed[len(confirmed)-1], want, len(files)-1)
	}
}

// TestStateHasTheName reports the name and start of this process.
func TestStateHasTheName(t *testing.T) {
	h := openHolders(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	want, err := procfs.ParseStat(text)
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	if err := h.Sockets(t.Context(), func(_ procfs.File, of procfs.State) {
		if of.PID != os.Getpid() {
			return
		}
		seen = true
		if comm, _, _ := bytes.Cut(of.Comm[:], []byte{0}); !bytes.Equal(comm, want.Comm) || procfs.Ticks(of.Start) != want.Start || of.CgroupSet == 0 {
			t.Errorf("%+v, want the name %q, the start %d, and a set of cgroups", of, want.Comm, want.Start)
		}
	}); err != nil || !seen {
		t.Fatal("this process was not visited: ", err)
	}
}

// TestHolderLayout parses a record as the generated type lays it out.
func TestHolderLayout(t *testing.T) {
	var record bytes.Buffer
	raw := listenersHolder{Inode: 1, Pid: 2, Tid: 3, Fd: 4, Held: 1}
	raw.Process.Start, raw.Process.Cgroup, raw.Process.CgroupSet, raw.Process.Comm = 5, 6, 7, [16]int8{8}
	if err := binary.Write(&record, binary.NativeEndian, raw); err != nil {
		t.Fatal(err)
	}
	file, process, held := parseHolder(record.Bytes())
	if diff := cmp.Diff(procfs.File{Inode: 1, TID: 3, FD: 4}, file); diff != "" || !held || record.Len() != holderSize {
		t.Errorf("%d bytes, held %t (-want +got):\n%s", record.Len(), held, diff)
	}
	want := procfs.State{PID: 2, Start: 5, Cgroup: 6, CgroupSet: 7, Comm: [16]byte{8}}
	if diff := cmp.Diff(want, process); diff != "" {
		t.Errorf("process (-want +got):\n%s", diff)
	}
}

// BenchmarkHolders measures the iterator alone, on a synthetic host.
func BenchmarkHolders(b *testing.B) {
	host, err := synthetic.Start(synthetic.Standard())
	if err != nil {
		b.Fatal(err)
	}
	defer host.Stop()
	h := openHolders(b)
	for b.Loop() {
		if err := h.Sockets(b.Context(), func(procfs.File, procfs.State) {}); err != nil {
			b.Fatal(err)
		}
	}
}
