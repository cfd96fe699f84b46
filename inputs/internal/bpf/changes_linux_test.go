//go:build amd64 || arm64

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/testchild"
)

// openChanges receives the changes in the background.
func openChanges(t *testing.T) (*Changes, <-chan Change) {
	t.Helper()
	c, err := OpenChanges(pidNamespace(t))
	skipWithout(t, err)
	received := make(chan Change, 1<<16)
	done := make(chan error, 1)
	go func() {
		for {
			change, err := c.Next()
			if err != nil {
				done <- err
				return
			}
			received <- change
		}
	}()
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, os.ErrClosed) {
			t.Errorf("Next returned %v, want %v", err, os.ErrClosed)
		}
	})
	return c, received
}

// ofProcess returns the next change that a process caused.
func ofProcess(t *testing.T, received <-chan Change, pid int) Change {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case c := <-received:
			if c.PID == pid {
				return c
			}
		case <-deadline:
			t.Fatalf("no change of process %d", pid)
		}
	}
}

func TestChangesAreReceived(t *testing.T) {
	_, received := openChanges(t)
	for _, test := range []struct {
		name  string
		child testchild.Listener
		netns uintptr
		want  Change
	}{
		{name: "IPv4", child: testchild.Listener{Addr: "127.0.0.1", Backlog: 7},
			want: Change{Addr: netip.MustParseAddr("127.0.0.1"), Limit: 7}},
		{name: "IPv6", child: testchild.Listener{Addr: "::"},
			want: Change{Addr: netip.MustParseAddr("::"), Limit: 1}},
		{name: "IPv6 only", child: testchild.Listener{Addr: "::1", V6Only: true},
			want: Change{Addr: netip.MustParseAddr("::1"), V6Only: true, Limit: 1}},
		{name: "bound to a device", child: testchild.Listener{Addr: "0.0.0.0", Device: "lo"},
			want: Change{Addr: netip.MustParseAddr("0.0.0.0"), Device: 1, Limit: 1}},
		{name: "another network namespace", child: testchild.Listener{Addr: "0.0.0.0", Port: 4000}, netns: unix.CLONE_NEWNET,
			want: Change{Addr: netip.MustParseAddr("0.0.0.0"), Limit: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var ports []int
			before := bootTime(t)
			child := start(t, task{Listen: []testchild.Listener{test.child}}, &syscall.SysProcAttr{Cloneflags: test.netns}, &ports)
			var netns, st unix.Stat_t
			if err := unix.Stat("/proc/"+pidText(child)+"/ns/net", &netns); err != nil {
				t.Fatal(err)
			}
			opened := ofProcess(t, received, child.Process.Pid)
			if opened.Time < before || opened.Time > bootTime(t) {
				t.Errorf("time %v, want one between %v and %v", opened.Time, before, bootTime(t))
			}
			if opened.Cookie == 0 || opened.Inode == 0 || opened.Start == 0 || opened.Start > uint64(opened.Time) {
				t.Errorf("cookie %d, inode %d, start %d", opened.Cookie, opened.Inode, opened.Start)
			}
			child.End()
			closed := ofProcess(t, received, child.Process.Pid)
			if closed.Listens || !closed.Shut || closed.Port != opened.Port || closed.Cookie != opened.Cookie || closed.Time < opened.Time {
				t.Errorf("closed: %+v after %+v", closed, opened)
			}
			if err := unix.Stat("/proc/self/cgroup", &st); err != nil {
				t.Fatal(err)
			}
			want := test.want
			want.Listens, want.Port, want.Netns = true, uint16(ports[0]), uint32(netns.Ino)
			want.PID, want.UID, want.Comm = child.Process.Pid, uint32(os.Getuid()), []byte("exe")
			want.Time, want.Cookie, want.Inode, want.Start, want.Cgroup = opened.Time, opened.Cookie, opened.Inode, opened.Start, opened.Cgroup
			if diff := cmp.Diff(want, opened, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("opened (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEndOfListening tells a socket that is closed from one that only listens no longer, by
// shutdown or because another socket had the address, and knows the port that listen chose.
func TestEndOfListening(t *testing.T) {
	_, received := openChanges(t)
	var fds []int
	for range 2 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			t.Fatal(err)
		}
	}
	listen := func(fd int, want error) {
		t.Helper()
		if err := unix.Listen(fd, 1); err != want {
			t.Errorf("listen: %v, want %v", err, want)
		}
	}
	check := func(listens, shut bool) (port uint16) {
		t.Helper()
		c := ofProcess(t, received, os.Getpid())
		if c.Listens != listens || c.Shut != shut {
			t.Errorf("%+v, want listens %v, shut %v", c, listens, shut)
		}
		return c.Port
	}
	listen(fds[0], nil)
	chosen := port(t, fds[0])
	check(true, false)
	if err := unix.Shutdown(fds[0], unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if got := check(false, false); got != chosen {
		t.Errorf("port %d, want %d", got, chosen)
	}
	for _, fd := range fds {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(chosen)}); err != nil {
			t.Fatal(err)
		}
	}
	listen(fds[0], nil)
	check(true, false)
	listen(fds[1], unix.EADDRINUSE)
	check(true, false)
	check(false, false)
	for _, fd := range fds {
		unix.Close(fd)
	}
	check(false, true)
}

func port(t *testing.T, fd int) uint16 {
	t.Helper()
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(name.(*unix.SockaddrInet4).Port)
}

func pidText(c *testchild.Child) string { return strconv.Itoa(c.Process.Pid) }

func bootTime(t *testing.T) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// TestNoChangeIsMissing counts the changes of short listeners.
func TestNoChangeIsMissing(t *testing.T) {
	c, received := openChanges(t)
	child, err := testchild.Start(task{OnLine: true, Listen: []testchild.Listener{{Addr: "127.0.0.1"}}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(child.End)
	const n = 2000
	var answer int
	if err := child.Tell(n); err != nil {
		t.Fatal(err)
	}
	if err := child.Hear(&answer); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * n {
		if change := ofProcess(t, received, child.Process.Pid); change.Listens != (i%2 == 0) {
			t.Fatalf("change %d: %+v", i, change)
		}
	}
	if lost, err := c.Lost(); lost != 0 || err != nil {
		t.Errorf("%d lost, %v", lost, err)
	}
	if sent, err := c.Sent(); sent < 2*n || err != nil { // others may listen, too
		t.Errorf("%d sent, %v, want %d", sent, err, 2*n)
	}
}

// TestLostChangesAreCounted fills the ring buffer while nobody reads it.
func TestLostChangesAreCounted(t *testing.T) {
	if testing.Short() {
		t.Skip("changes 10,000 sockets")
	}
	c, err := OpenChanges(pidNamespace(t))
	skipWithout(t, err)
	defer c.Close()
	child, err := testchild.Start(task{OnLine: true, Listen: []testchild.Listener{{Addr: "127.0.0.1"}}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(child.End)
	const n = 10_000
	var answer int
	if err := child.Tell(n); err != nil {
		t.Fatal(err)
	}
	if err := child.Hear(&answer); err != nil {
		t.Fatal(err)
	}
	lost, err := c.Lost()
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for c.reader.AvailableBytes() > 0 {
		if _, err := c.Next(); err != nil {
			t.Fatal(err)
		}
		kept++
	}
	// Others may listen and close, too.
	if kept == 0 || kept+int(lost) < 2*n {
		t.Errorf("%d kept and %d lost, want %d in all", kept, lost, 2*n)
	}
}

// TestChangeLayout parses a record as the generated type lays it out.
func TestChangeLayout(t *testing.T) {
	raw := listenersChange{
		Time: 1, Cookie: 2, Inode: 3, Start: 4, Cgroup: 5, Netns: 6, Pid: 7, Uid: 8, BacklogLimit: 9, Device: 10,
		Port: 11, Family: unix.AF_INET, Listens: 1, V6only: 1, Shut: 1, Address: [16]byte{192, 0, 2, 1}, Comm: [16]int8{'a', -1},
	}
	want := Change{
		Time: 1, Cookie: 2, Inode: 3, Start: 4, Cgroup: 5, Netns: 6, PID: 7, UID: 8, Limit: 9, Device: 10,
		Port: 11, Listens: true, V6Only: true, Shut: true, Addr: netip.MustParseAddr("192.0.2.1"), Comm: []byte("a\xff"),
	}
	got, err := parseChange(encode(t, raw))
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func encode(t testing.TB, raw listenersChange) []byte {
	t.Helper()
	var record bytes.Buffer
	if err := binary.Write(&record, binary.NativeEndian, raw); err != nil {
		t.Fatal(err)
	}
	return record.Bytes()
}

func TestBadChanges(t *testing.T) {
	good := encode(t, listenersChange{Family: unix.AF_INET})
	unknown := encode(t, listenersChange{Family: 7})
	for _, test := range []struct {
		data []byte
		want string
	}{
		{data: nil, want: "bpf: a change of 0 bytes, expected 104"},
		{data: good[:100], want: "bpf: a change of 100 bytes, expected 104"},
		{data: unknown, want: "bpf: a change of the address family 7"},
	} {
		if _, err := parseChange(test.data); err == nil || err.Error() != test.want {
			t.Errorf("error %v, want %v", err, test.want)
		}
	}
}

func FuzzParseChange(f *testing.F) {
	f.Add(encode(f, listenersChange{Family: unix.AF_INET}))
	f.Add(encode(f, listenersChange{Family: unix.AF_INET6, Comm: [16]int8{'a', 'b'}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseChange(data)
		if err == nil && (!c.Addr.IsValid() || len(c.Comm) > 16) {
			t.Errorf("%+v", c)
		}
	})
}
