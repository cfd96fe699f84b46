// Package bpf reads from the kernel what procfs does not show, or shows only slowly: which open
// files of all processes are listening sockets, in one pass, and which of the known ones still are
// (Holders), and each socket that begins or ceases to listen, as it happens (Changes).
//
// Both need the capabilities CAP_BPF and CAP_PERFMON, and Linux 5.12 with BTF for the kernel
// itself (CONFIG_DEBUG_INFO_BTF). Without them the constructors return an error that
// says what is missing. Nothing is pinned: what was loaded ends with the process.
//
// The programs are in programs/listeners.c. "go generate", with Debian's clang-14, llvm-14 and
// libbpf-dev, compiles them into listeners_bpfel.o, which works on every little-endian machine.
package bpf

import (
	"errors"
	"net/netip"
	"time"
)

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -cflags "-O2 -Wall -Werror" -type change listeners programs/listeners.c

// ErrUnsupported means that sockwatch was built for an architecture without these programs.
var ErrUnsupported = errors.New("bpf: only on amd64 and arm64")

// A Change is a TCP socket that began or ceased to listen.
type Change struct {
	Listens bool          // it began
	Shut    bool          // it is being closed; false at an end: by shutdown, or because listen failed
	Time    time.Duration // when, on CLOCK_BOOTTIME
	Cookie  uint64        // of the socket, as sock_diag reports it
	Inode   uint64        // of the socket; 0 if it has no file, as when its last file was closed
	Netns   uint32        // inode number of the network namespace
	Addr    netip.Addr
	Port    uint16 // 0 at the beginning if the kernel chooses one in listen; the end has it
	Device  uint32 // index of the device that the socket is bound to, or 0
	V6Only  bool
	Limit   uint32 // of the accept queue

	UID uint32 // of the socket

	// The process that called listen, or closed the socket.
	PID    int    // 0 if it has none in the pid namespace
	Start  uint64 // in nanoseconds of CLOCK_BOOTTIME
	Comm   []byte // raw, at most 15 bytes
	Cgroup uint64 // inode number of its cgroup v2 directory
}
