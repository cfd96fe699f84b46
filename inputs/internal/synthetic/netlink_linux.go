package synthetic

import (
	"encoding/binary"
	"reflect"

	"golang.org/x/sys/unix"
)

// RefuseNetlink makes every further socket(AF_NETLINK) in all threads fail with EPERM, as the
// system call filters of containers and services do.
func RefuseNetlink() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	// The kernel gets the addresses of the program and its header as numbers, so both are
	// outside Go's heap.
	memory, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	const (
		load       = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal      = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		give       = unix.BPF_RET | unix.BPF_K
		numberAt   = 0  // in struct seccomp_data
		argumentAt = 16 // the lower half of the first one
	)
	program := []unix.SockFilter{
		{Code: load, K: numberAt},
		{Code: equal, Jf: 3, K: unix.SYS_SOCKET},
		{Code: load, K: argumentAt},
		{Code: equal, Jf: 1, K: unix.AF_NETLINK},
		{Code: give, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: give, K: unix.SECCOMP_RET_ALLOW},
	}
	address := reflect.ValueOf(memory).Pointer()
	text := binary.NativeEndian.AppendUint64(nil, uint64(len(program)))
	text = binary.NativeEndian.AppendUint64(text, uint64(address)+16)
	for _, p := range program {
		text = binary.NativeEndian.AppendUint16(text, p.Code)
		text = binary.NativeEndian.AppendUint32(append(text, p.Jt, p.Jf), p.K)
	}
	copy(memory, text)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, address)
	if errno != 0 {
		return errno
	}
	return nil
}
