//go:build amd64 || arm64

package bpf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/procfs"
)

// Holders finds all holders of listening sockets. It must be used by one goroutine.
type Holders struct {
	program   *ebpf.Program
	onlyRings *ebpf.Variable
	iter      *link.Iter
	buf       []byte
}

// OpenHolders loads the program. pidNamespace is the inode number of this program's own pid
// namespace, as in the link /proc/self/ns/pid: the kernel lists its processes only.
func OpenHolders(pidNamespace uint32) (*Holders, error) {
	var objects struct {
		Holders   *ebpf.Program  `ebpf:"holders"`
		OnlyRings *ebpf.Variable `ebpf:"only_rings"`
	}
	if err := load(pidNamespace, &objects); err != nil {
		return nil, err
	}
	iter, err := link.AttachIter(link.IterOptions{Program: objects.Holders})
	if err != nil {
		objects.Holders.Close()
		return nil, fmt.Errorf("bpf: attach the iterator of open files: %w", err)
	}
	return &Holders{program: objects.Holders, onlyRings: objects.OnlyRings, iter: iter, buf: make([]byte, 32<<10)}, nil
}

// Close releases the program.
func (h *Holders) Close() error { return errors.Join(h.iter.Close(), h.program.Close()) }

// Sockets calls visit for each open file that is a listening TCP socket of any network
// namespace, ordered by process and thread. Files that are opened or closed meanwhile may be
// missing. After an error, such as that of ctx, some have not been visited. The kernel looks
// at up to a million files before it looks at ctx again.
func (h *Holders) Sockets(ctx context.Context, visit func(pid int, file procfs.File)) error {
	return h.each(ctx, false, visit)
}

// Rings calls visit for each open file that is an io_uring, in the same way.
func (h *Holders) Rings(ctx context.Context, visit func(pid int, file procfs.File)) error {
	return h.each(ctx, true, visit)
}

func (h *Holders) each(ctx context.Context, rings bool, visit func(pid int, file procfs.File)) error {
	if err := h.onlyRings.Set(rings); err != nil {
		return fmt.Errorf("bpf: choose the files: %w", err)
	}
	file, err := h.iter.Open()
	if err != nil {
		return fmt.Errorf("bpf: open the iterator of open files: %w", err)
	}
	defer file.Close()
	rest := 0
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := file.Read(h.buf[rest:])
		switch {
		case errors.Is(err, io.EOF) && rest > 0:
			return fmt.Errorf("bpf: %d bytes after the last holder", rest)
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("bpf: read the iterator of open files: %w", err)
		}
		data := h.buf[:rest+n]
		for len(data) >= holderSize {
			visit(parseHolder(data[:holderSize]))
			data = data[holderSize:]
		}
		rest = copy(h.buf, data)
	}
}

var holderSize = binary.Size(listenersHolder{})

// parseHolder parses a record of holderSize bytes.
func parseHolder(data []byte) (pid int, file procfs.File) {
	n := binary.NativeEndian
	file = procfs.File{Inode: n.Uint64(data), TID: int32(n.Uint32(data[12:])), FD: int32(n.Uint32(data[16:]))}
	file.Ring = file.Inode == 0
	return int(n.Uint32(data[8:])), file
}
