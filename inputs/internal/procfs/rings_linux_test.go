package procfs

import (
	"fmt"
	"os"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newRing returns an io_uring that holds files.
func newRing(t *testing.T, fds ...int32) int {
	t.Helper()
	params := make([]byte, 120)
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno != 0 {
		t.Skip("io_uring_setup: ", errno)
	}
	t.Cleanup(func() { unix.Close(int(ring)) })
	const registerFiles = 2 // IORING_REGISTER_FILES
	if len(fds) > 0 {
		_, _, errno = unix.Syscall6(unix.SYS_IO_URING_REGISTER, ring, registerFiles, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), 0, 0)
	}
	if errno != 0 {
		t.Fatal("io_uring_register: ", errno)
	}
	return int(ring)
}

// TestRingSockets finds a socket that an io_uring holds after its file was closed.
func TestRingSockets(t *testing.T) {
	f := open(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	fd32 := int32(newRing(t, int32(fd), -1, int32(os.Stdin.Fd())))
	unix.Close(fd)
	p, err := f.Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ring := File{TID: int32(os.Getpid()), FD: fd32, Ring: true}
	var files []File
	if _, err := p.Files(&Cursor{}, always, func(file File) {
		if file.FD == fd32 {
			files = append(files, file)
		}
	}); err != nil || len(files) != 1 || files[0] != ring {
		t.Fatalf("%v, %v, want %v alone", files, err, ring)
	}
	var sockets []File
	known, err := p.RingSockets(ring, func(file File) { sockets = append(sockets, file) })
	if f.rings == ringNames {
		if known || err != nil || len(sockets) != 0 {
			t.Errorf("an old kernel: %v, known %v, %v, want none and not known", sockets, known, err)
		}
		return
	}
	want := File{TID: ring.TID, FD: fd32, Inode: st.Ino, Ring: true}
	if !known || err != nil || len(sockets) != 1 || sockets[0] != want {
		t.Fatalf("%v, known %v, %v, want %v", sockets, known, err, want)
	}
	for _, holds := range []func(File) (bool, error){p.Holds, f.Holds} {
		if held, err := holds(want); !held || err != nil {
			t.Errorf("held %v, %v, want true", held, err)
		}
		if held, err := holds(File{TID: want.TID, FD: fd32, Inode: st.Ino + 1, Ring: true}); held || err != nil {
			t.Errorf("another socket: held %v, %v, want false", held, err)
		}
	}
	unix.Close(int(fd32))
	if known, err := p.RingSockets(ring, func(File) {}); !known || err != nil {
		t.Errorf("closed: known %v, %v, want true", known, err)
	}
}

// TestBusyRing: it is not known to hold no socket.
func TestBusyRing(t *testing.T) {
	f := openTree(t, map[string]string{"stat": btime, "7/fd/3": "->" + ringLink, "7/fdinfo/3": "pos:\t0\n"})
	f.rings = ringWhole
	p, err := f.Process(7)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ring := File{TID: 7, FD: 3, Ring: true}
	if known, err := p.RingSockets(ring, func(File) {}); known || err != nil {
		t.Errorf("known %v, %v, want false", known, err)
	}
	ring.Inode = 8
	if held, err := p.Holds(ring); held || err == nil || err.Error() != "read "+f.Path()+"/7/fd: io_uring does not list its files" {
		t.Errorf("held %v, %v, want false and an error", held, err)
	}
}

// TestStuckRing: a read that hangs is not waited for, and other io_urings are read again when
// it has ended.
func TestStuckRing(t *testing.T) {
	f := openTree(t, map[string]string{"stat": btime, "7/fd/3": "->" + ringLink, "7/fd/4": "->" + ringLink,
		"7/fdinfo/4": "UserFiles:\t1\n    0: socket:[9]\nUserBufs:\t0\n"})
	f.rings, f.ringReads.timeout = ringWhole, 10*time.Millisecond
	writer := makeHangingFile(t, f.Path()+"/7/fdinfo/3")
	p, err := f.Process(7)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	want := "read " + f.Path() + "/7/fd/%d: io_uring does not list its files"
	for _, fd := range []int32{3, 4} {
		if known, err := p.RingSockets(File{TID: 7, FD: fd, Ring: true}, func(File) {}); known || err == nil || err.Error() != fmt.Sprintf(want, fd) {
			t.Errorf("file %d: known %v, %v", fd, known, err)
		}
	}
	writer.Write([]byte("x\n"))
	writer.Close() // the end of the file, for the read that waits
	f.ringReads.timeout = time.Minute
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		var sockets []uint64
		known, err := p.RingSockets(File{TID: 7, FD: 4, Ring: true}, func(file File) { sockets = append(sockets, file.Inode) })
		if known && err == nil && len(sockets) == 1 && sockets[0] == 9 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v, known %v, %v, want 9", sockets, known, err)
		}
	}
}
