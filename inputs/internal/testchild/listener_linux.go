package testchild

import (
	"errors"
	"net"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"
)

// A Listener says how to open a listening socket.
type Listener struct {
	Addr        string // with the zone, if it is link-local
	Port        int    // 0: the kernel chooses
	Count       int    // how many sockets, at this port and the next ones; 0: one
	Backlog     int    // 0: 1
	Device      string // the device to bind to
	V6Only      bool
	ReusePort   bool
	FreeBind    bool // the address need not be local
	MPTCP       bool // as Go programs listen, if the kernel can
	Transparent bool // IP_TRANSPARENT: the address need not even be routed to the host
}

// Open opens one socket, in the namespace of the calling thread, and returns its port.
func (l *Listener) Open() (fd, port int, err error) {
	addr, err := netip.ParseAddr(l.Addr)
	if err != nil {
		return 0, 0, err
	}
	family := unix.AF_INET6
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: addr.As16(), Port: l.Port, ZoneId: zone(addr.Zone())}
	if addr.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Addr: addr.As4(), Port: l.Port}
	}
	protocol := 0
	if l.MPTCP {
		protocol = unix.IPPROTO_MPTCP
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol); l.MPTCP && err != nil {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return 0, 0, err
	}
	set := func(level, option int, value bool) {
		if value {
			err = errors.Join(err, unix.SetsockoptInt(fd, level, option, 1))
		}
	}
	set(unix.SOL_SOCKET, unix.SO_REUSEPORT, l.ReusePort)
	set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, l.V6Only)
	set(unix.SOL_IP, unix.IP_FREEBIND, l.FreeBind)
	set(unix.SOL_IP, unix.IP_TRANSPARENT, l.Transparent)
	if l.Device != "" {
		err = errors.Join(err, unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, l.Device))
	}
	if err == nil {
		err = unix.Bind(fd, to)
	}
	if err == nil {
		err = unix.Listen(fd, max(l.Backlog, 1))
	}
	var name unix.Sockaddr
	if err == nil {
		name, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return 0, 0, err
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		port = name.Port
	case *unix.SockaddrInet6:
		port = name.Port
	}
	return fd, port, nil
}

// zone returns the index of a device; 0 if it does not exist: bind then returns the error.
func zone(name string) uint32 {
	device, err := net.InterfaceByName(name)
	if err != nil {
		return 0
	}
	return uint32(device.Index)
}

// OnSpareThread calls do on a thread that ends afterwards, for a call that changes the
// thread for good. The first thread of a process cannot end, so another one is used.
func OnSpareThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			err := OnSpareThread(do)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}
