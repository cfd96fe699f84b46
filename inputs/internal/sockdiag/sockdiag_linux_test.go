package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/inet"
)

// TestDump finds a listener of this test, and identifies it again.
func TestDump(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want := netip.MustParseAddrPort(l.Addr().String())
	c, err := Open(func(do func() error) error { return do() }, make([]byte, BufferSize)) // in the own namespace
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var found []inet.Socket
	dump := func() {
		t.Helper()
		err := c.Dump(t.Context(), Listen, 0, func() { found = nil }, func(s *inet.Socket) {
			if netip.AddrPortFrom(s.Addr, s.Port) == want {
				found = append(found, *s)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	dump()
	if len(found) != 1 {
		t.Fatalf("%v was found %d times", want, len(found))
	}
	s := found[0]
	if s.Cookie == 0 || s.Inode == 0 || !s.HasLimit || s.Limit == 0 || int(s.UID) != os.Getuid() {
		t.Errorf("a listener of this test is %+v", s)
	}
	dump()
	if diff := cmp.Diff(s, found[0], sameAddress); diff != "" {
		t.Errorf("the second dump differs:\n%s", diff)
	}
	l.Close()
	dump()
	if len(found) != 0 {
		t.Errorf("a closed listener is %+v", found)
	}
}

var sameAddress = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// TestConnectionsShareABuffer: there may be one for each of thousands of namespaces.
func TestConnectionsShareABuffer(t *testing.T) {
	const connections, most = 100, 8 << 10 // bytes of each
	buf := make([]byte, BufferSize)
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := memory()
	for range connections {
		c, err := Open(func(do func() error) error { return do() }, buf)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Dump(t.Context(), Listen, 0, func() {}, func(*inet.Socket) {}); err != nil {
			t.Fatal(err)
		}
	}
	if used := int64(memory()-before) / connections; used > most {
		t.Errorf("a connection takes %d bytes, want at most %d", used, most)
	}
}

// A kernel answers the n-th request of a dump with datagrams.
type kernel func(request int, sequence uint32) [][]byte

// dialKernel returns a connection to a fake kernel.
func dialKernel(t *testing.T, answer kernel) *Conn {
	t.Helper()
	var requests atomic.Int32
	c, err := dial(func() (transport, error) {
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		ours, err := fileConn(ends[0])
		if err != nil {
			return nil, err
		}
		theirs, err := fileConn(ends[1])
		if err != nil {
			return nil, err
		}
		go func() {
			defer theirs.Close()
			request := make([]byte, 128)
			for {
				n, err := theirs.Read(request)
				if err != nil || n != requestSize {
					return
				}
				number := requests.Add(1)
				for _, d := range answer(int(number), binary.NativeEndian.Uint32(request[8:])) {
					if _, err := theirs.Write(d); err != nil {
						return
					}
				}
			}
		}()
		return ours.(*net.UnixConn), nil
	}, make([]byte, BufferSize))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func fileConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "kernel")
	defer f.Close()
	return net.FileConn(f)
}

// Messages of a kernel.

func header(dst []byte, size int, kind, flags uint16, sequence uint32) []byte {
	native := binary.NativeEndian
	dst = native.AppendUint32(dst, uint32(size))
	dst = native.AppendUint16(dst, kind)
	dst = native.AppendUint16(dst, flags)
	dst = native.AppendUint32(dst, sequence)
	return native.AppendUint32(dst, 0)
}

func socketMessage(dst []byte, flags uint16, sequence uint32, port uint16, attributes ...byte) []byte {
	dst = header(dst, headerSize+messageSize+len(attributes), typeSockDiag, flags, sequence)
	b := make([]byte, messageSize)
	b[0], b[1] = familyIPv4, stateListen
	binary.BigEndian.PutUint16(b[4:], port)
	return append(append(dst, b...), attributes...)
}

func doneMessage(dst []byte, kind uint16, sequence uint32, errno syscall.Errno) []byte {
	return binary.NativeEndian.AppendUint32(header(dst, headerSize+4, kind, 2, sequence), uint32(-int32(errno)))
}

// TestInterruptedDumpIsRepeated covers faults in a dump: it is repeated or returns an
// error, and the sockets of an attempt are discarded before the next one.
func TestInterruptedDumpIsRepeated(t *testing.T) {
	whole := func(seq uint32) []byte {
		return doneMessage(socketMessage(socketMessage(nil, 2, seq, 80), 2, seq, 443), typeDone, seq, 0)
	}
	done := func(seq uint32) [][]byte { return [][]byte{doneMessage(nil, typeDone, seq, 0)} }
	for name, test := range map[string]struct {
		answer kernel
		want   []uint16
		err    string
	}{
		"two datagrams": {func(n int, seq uint32) [][]byte {
			if n == 2 {
				return done(seq)
			}
			return [][]byte{socketMessage(nil, 2, seq, 80), whole(seq)}
		}, []uint16{80, 80, 443}, ""},
		"interrupted once": {func(n int, seq uint32) [][]byte {
			switch n {
			case 1:
				return [][]byte{socketMessage(nil, 2, seq, 9), doneMessage(socketMessage(nil, 2|flagInterrupted, seq, 10), typeDone, seq, 0)}
			case 2:
				return [][]byte{whole(seq)}
			}
			return done(seq)
		}, []uint16{80, 443}, ""},
		"interrupted in its last message": {func(n int, seq uint32) [][]byte {
			switch n {
			case 1:
				return [][]byte{header(socketMessage(nil, 2, seq, 9), headerSize, typeDone, 2|flagInterrupted, seq)}
			case 2:
				return [][]byte{whole(seq)}
			}
			return done(seq)
		}, []uint16{80, 443}, ""},
		"interrupted always": {func(n int, seq uint32) [][]byte {
			return [][]byte{socketMessage(nil, 2|flagInterrupted, seq, 9)}
		}, nil, "dump sockets: interrupted by changes at every attempt"},
		"no buffers once": {func(n int, seq uint32) [][]byte {
			switch n {
			case 1:
				return [][]byte{socketMessage(nil, 2, seq, 9), doneMessage(nil, typeError, seq, syscall.ENOBUFS)}
			case 2:
				return [][]byte{whole(seq)}
			}
			return done(seq)
		}, []uint16{80, 443}, ""},
		"error in mid-dump": {func(n int, seq uint32) [][]byte {
			return [][]byte{doneMessage(socketMessage(nil, 2, seq, 9), typeError, seq, syscall.EPERM)}
		}, nil, "dump sockets: operation not permitted"},
		"error at the end": {func(n int, seq uint32) [][]byte {
			return [][]byte{doneMessage(socketMessage(nil, 2, seq, 9), typeDone, seq, syscall.EINVAL)}
		}, nil, "dump sockets: invalid argument"},
		"no IPv6": {func(n int, seq uint32) [][]byte {
			if n == 2 {
				return [][]byte{doneMessage(nil, typeError, seq, syscall.ENOENT)}
			}
			return [][]byte{whole(seq)}
		}, []uint16{80, 443}, ""},
		"truncated message": {func(n int, seq uint32) [][]byte {
			return [][]byte{whole(seq)[:100]}
		}, nil, "dump sockets: 12 bytes after the last message"},
		"message longer than the datagram": {func(n int, seq uint32) [][]byte {
			return [][]byte{whole(seq)[:60]}
		}, nil, "dump sockets: message of 88 bytes, but 60 are left"},
		"short message": {func(n int, seq uint32) [][]byte {
			return [][]byte{append(header(nil, headerSize+4, typeSockDiag, 2, seq), 1, 2, 3, 4)}
		}, nil, "dump sockets: message of 4 bytes, expected at least 72"},
		"answer to another request": {func(n int, seq uint32) [][]byte {
			return [][]byte{whole(seq + 7)}
		}, nil, "dump sockets: answer to request 8, expected 1"},
		"unknown message": {func(n int, seq uint32) [][]byte {
			return [][]byte{header(nil, headerSize, 77, 2, seq)}
		}, nil, "dump sockets: message of type 77"},
		"datagram larger than any": {func(n int, seq uint32) [][]byte {
			return [][]byte{make([]byte, 40<<10)}
		}, nil, "dump sockets: datagram of 40960 bytes"},
		"unknown attributes": {func(n int, seq uint32) [][]byte {
			if n == 2 {
				return done(seq)
			}
			return [][]byte{socketMessage(nil, 2, seq, 80, 8, 0, 99, 0, 1, 2, 3, 4, 5, 0, 98, 0, 1), done(seq)[0]}
		}, []uint16{80}, ""},
		"attribute longer than the message": {func(n int, seq uint32) [][]byte {
			return [][]byte{socketMessage(nil, 2, seq, 80, 9, 0, 11, 0, 1)}
		}, nil, "dump sockets: attribute 11 of 9 bytes, but 5 are left"},
		"attribute too short": {func(n int, seq uint32) [][]byte {
			return [][]byte{socketMessage(nil, 2, seq, 80, 8, 0, 21, 0, 1, 2, 3, 4)}
		}, nil, "dump sockets: attribute 21 of 8 bytes is too short"},
	} {
		t.Run(name, func(t *testing.T) {
			c := dialKernel(t, test.answer)
			var got []uint16
			err := c.Dump(t.Context(), Listen, 0, func() { got = nil }, func(s *inet.Socket) { got = append(got, s.Port) })
			if text := errorText(err); text != test.err {
				t.Fatalf("error %q, expected %q", text, test.err)
			}
			if err == nil {
				if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("ports (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestSilentKernel ends at the deadline if no answer comes.
func TestSilentKernel(t *testing.T) {
	c := dialKernel(t, func(int, uint32) [][]byte { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := c.Dump(ctx, Listen, 0, func() {}, func(*inet.Socket) {})
	if err == nil {
		t.Fatal("a dump without an answer returns no error")
	}
}

// TestTransparent compares the bit of IP_TRANSPARENT with the kernel.
func TestTransparent(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1); err != nil {
		t.Skip(err)
	}
	plain, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint16]bool{uint16(name.(*unix.SockaddrInet4).Port): true, uint16(plain.Addr().(*net.TCPAddr).Port): false}
	c, err := Open(func(do func() error) error { return do() }, make([]byte, BufferSize))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got map[uint16]bool
	err = c.Dump(t.Context(), Listen, 0, func() { got = make(map[uint16]bool) }, func(s *inet.Socket) {
		if _, ok := want[s.Port]; ok {
			got[s.Port] = s.Transparent
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("transparent (-want +got):\n%s", diff)
	}
}

// TestCanceledDump ends as soon as its context does, without a deadline, and the
// connection can be used for the next dump.
func TestCanceledDump(t *testing.T) {
	c := dialKernel(t, func(n int, seq uint32) [][]byte {
		if n == 1 {
			return nil
		}
		return [][]byte{doneMessage(nil, typeDone, seq, 0)}
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
	if err := c.Dump(ctx, Listen, 0, func() {}, func(*inet.Socket) {}); !errors.Is(err, cause) {
		t.Errorf("error %v, expected %v", err, cause)
	}
	if err := c.Dump(t.Context(), Listen, 0, func() {}, func(*inet.Socket) {}); err != nil {
		t.Error(err)
	}
}

// TestParseSocket reads a whole message.
func TestParseSocket(t *testing.T) {
	b := make([]byte, messageSize)
	b[0], b[1] = familyIPv6, stateListen
	binary.BigEndian.PutUint16(b[4:], 8080)
	addr := netip.MustParseAddr("fe80::1").As16()
	copy(b[8:], addr[:])
	for at, v := range map[int]uint32{40: 3, 44: 0x11223344, 48: 0x55667788, 56: 5, 60: 128, 64: 1000, 68: 4242} {
		binary.NativeEndian.PutUint32(b[at:], v)
	}
	b = append(b, 5, 0, attrV6Only, 0, 1, 0, 0, 0)
	b = append(b, 6, 0, attrOptions, 0, transparentBit(), 0, 0, 0)
	b = append(b, 12, 0, attrCgroupID, 0)
	b = binary.NativeEndian.AppendUint64(b, 99)
	var got inet.Socket
	if err := parseSocket(b, &got); err != nil {
		t.Fatal(err)
	}
	want := inet.Socket{
		Addr: netip.MustParseAddr("fe80::1"), Port: 8080, Device: 3, V6Only: true, Transparent: true, Cookie: 0x5566778811223344,
		Inode: 4242, UID: 1000, Cgroup: 99, Backlog: 5, Limit: 128, HasLimit: true,
	}
	if diff := cmp.Diff(want, got, sameAddress); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// FuzzParseDatagram: any datagram gives an error, or sockets that are in it, never more than
// fit.
func FuzzParseDatagram(f *testing.F) {
	f.Add(doneMessage(socketMessage(nil, 2, 1, 80), typeDone, 1, 0))
	f.Add(socketMessage(nil, 2, 1, 80, 5, 0, attrV6Only, 0, 1, 0, 0, 0))
	f.Add(socketMessage(nil, 2, 1, 80, 12, 0, attrCgroupID, 0, 1, 2, 3, 4, 5, 6, 7, 8))
	f.Add(doneMessage(nil, typeError, 1, syscall.EPERM))
	f.Add(header(nil, 0, typeSockDiag, 2, 1))
	f.Add(header(nil, 1<<31-1, typeSockDiag, 2, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		parseDatagram(b, 1, func(s *inet.Socket) {
			n++
			if !s.Addr.IsValid() {
				t.Errorf("a socket without an address: %+v", *s)
			}
		})
		if n > len(b)/(headerSize+messageSize) {
			t.Errorf("%d sockets in %d bytes", n, len(b))
		}
	})
}

// TestInterruptedCallIsRepeated repeats a call at once, without waiting for the poller.
func TestInterruptedCallIsRepeated(t *testing.T) {
	calls := 0
	n, err := uninterrupted(func() (int, error) {
		if calls++; calls < 3 {
			return -1, unix.EINTR
		}
		return 5, unix.EAGAIN
	})
	if n != 5 || err != unix.EAGAIN || calls != 3 {
		t.Errorf("%d, %v after %d calls, want 5, %v after 3", n, err, calls, unix.EAGAIN)
	}
}
