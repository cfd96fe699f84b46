package ifaces

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/inet"
)

// TestRead agrees with the interfaces that Go's own library finds.
func TestRead(t *testing.T) {
	table, err := Read(0)
	if err != nil {
		t.Fatal(err)
	}
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if table.Names[uint32(i.Index)] != i.Name {
			t.Errorf("interface %d is %q, expected %q", i.Index, table.Names[uint32(i.Index)], i.Name)
		}
		addresses, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addresses {
			addr := netip.MustParsePrefix(a.String()).Addr()
			found := slices.Contains(table.Addresses, inet.Address{Addr: addr, Device: uint32(i.Index)})
			if up := i.Flags&net.FlagUp != 0; found != up {
				t.Errorf("%v of %s, up %v, is found: %v", addr, i.Name, up, found)
			}
		}
	}
}

// TestOtherNamespace reads and watches a namespace of its own, made for a thread
// that is not used again.
func TestOtherNamespace(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip(err)
	}
	type result struct {
		before, after Table
		changed       []bool
		err           error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		var r result
		defer func() { done <- r }()
		if r.err = unix.Unshare(unix.CLONE_NEWNET); r.err != nil {
			return
		}
		ns, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			r.err = err
			return
		}
		defer ns.Close()
		w, err := NewWatch()
		if err != nil {
			r.err = err
			return
		}
		defer w.Close()
		r.changed = append(r.changed, w.Changed())
		if r.before, r.err = Read(int(ns.Fd())); r.err != nil {
			return
		}
		for _, arguments := range []string{"link set lo up", "address add 10.9.8.7/32 dev lo"} {
			if out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
				t.Errorf("ip %s: %v: %s", arguments, err, out)
			}
		}
		r.changed = append(r.changed, w.Changed(), w.Changed())
		r.after, r.err = Read(int(ns.Fd()))
	}()
	r := <-done
	if r.err != nil {
		t.Skip(r.err)
	}
	if len(r.before.Addresses) != 0 || r.before.Names[1] != "lo" {
		t.Errorf("a new namespace has %+v", r.before)
	}
	if !slices.Equal(r.changed, []bool{false, true, false}) {
		t.Errorf("changed: %v", r.changed)
	}
	for _, addr := range []string{"127.0.0.1", "10.9.8.7"} {
		if !slices.Contains(r.after.Addresses, inet.Address{Addr: netip.MustParseAddr(addr), Device: 1}) {
			t.Errorf("%s is not among %+v", addr, r.after.Addresses)
		}
	}
}

func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

func TestParseAddress(t *testing.T) {
	head := []byte{2, 32, 0, 0, 7, 0, 0, 0}
	peer, own := attribute(unix.IFA_ADDRESS, []byte{10, 0, 0, 2}), attribute(unix.IFA_LOCAL, []byte{10, 0, 0, 1})
	for name, attributes := range map[string][]byte{"peer first": append(slices.Clone(peer), own...), "own first": append(slices.Clone(own), peer...)} {
		a, err := parseAddress(append(slices.Clone(head), attributes...))
		if want := (inet.Address{Addr: netip.MustParseAddr("10.0.0.1"), Device: 7}); err != nil || a != want {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	if _, err := parseAddress(head[:7]); err == nil || err.Error() != "message of 7 bytes" {
		t.Error(err)
	}
	if _, err := parseLink(head); err == nil || err.Error() != "message of 8 bytes" {
		t.Error(err)
	}
}

// FuzzParse: both parsers take whatever comes.
func FuzzParse(f *testing.F) {
	f.Add(append([]byte{2, 32, 0, 0, 7, 0, 0, 0}, attribute(unix.IFA_LOCAL, []byte{10, 0, 0, 1})...))
	f.Add(append(make([]byte, unix.SizeofIfInfomsg), attribute(unix.IFLA_IFNAME, []byte("eth0\x00"))...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := parseLink(b); err == nil && len(l.name) > len(b) {
			t.Errorf("%+v in %d bytes", l, len(b))
		}
		if a, err := parseAddress(b); err == nil && a.Addr.IsValid() && len(b) < 16 {
			t.Errorf("%+v in %d bytes", a, len(b))
		}
	})
}
