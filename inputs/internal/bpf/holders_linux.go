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
	files     *iterator // over the open files of all tasks
	onlyRings *ebpf.Variable
	tasks     *iterator // over all tasks, for Verify
	checks    checks
}

// OpenHolders loads the programs. pidNamespace is the inode number of this program's own pid
// namespace, as in the link /proc/self/ns/pid: the kernel lists its processes only.
func OpenHolders(pidNamespace uint32) (*Holders, error) {
	var objects struct {
		Holders    *ebpf.Program  `ebpf:"holders"`
		OnlyRings  *ebpf.Variable `ebpf:"only_rings"`
		Verify     *ebpf.Program  `ebpf:"verify"`
		Checks     *ebpf.Map      `ebpf:"checks"`
		ChecksEnd  *ebpf.Variable `ebpf:"checks_end"`
		ChecksNext *ebpf.Variable `ebpf:"checks_next"`
	}
	if err := load(pidNamespace, &objects); err != nil {
		return nil, err
	}
	h := &Holders{onlyRings: objects.OnlyRings, checks: checks{table: objects.Checks, end: objects.ChecksEnd, next: objects.ChecksNext}}
	var errs [3]error
	h.files, errs[0] = newIterator(objects.Holders, "open files")
	h.tasks, errs[1] = newIterator(objects.Verify, "tasks")
	h.checks.memory, errs[2] = objects.Checks.Memory()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, errors.Join(fmt.Errorf("bpf: %w", err), h.Close())
	}
	return h, nil
}

// Close releases the programs.
func (h *Holders) Close() error {
	return errors.Join(h.files.close(), h.tasks.close(), h.checks.table.Close())
}

// Sockets calls visit for each open file that is a listening TCP socket of any network
// namespace, with its process, ordered by process and thread. Files that are opened or closed meanwhile may be
// missing. After an error, such as that of ctx, some have not been visited. The kernel looks
// at up to a million files before it looks at ctx again.
func (h *Holders) Sockets(ctx context.Context, visit func(procfs.File, procfs.State)) error {
	return h.each(ctx, false, visit)
}

// Rings calls visit for each open file that is an io_uring, in the same way.
func (h *Holders) Rings(ctx context.Context, visit func(procfs.File, procfs.State)) error {
	return h.each(ctx, true, visit)
}

func (h *Holders) each(ctx context.Context, rings bool, visit func(procfs.File, procfs.State)) error {
	if err := h.onlyRings.Set(rings); err != nil {
		return fmt.Errorf("bpf: choose the files: %w", err)
	}
	return h.files.run(ctx, func(record []byte) {
		file, process, _ := parseHolder(record)
		visit(file, process)
	})
}

// Verify calls visit for each of the files that is still an open file of its thread, with its
// process; i is its index. The files are sockets, in ascending order of their threads. It may
// leave out some that are open: those are to be looked up elsewhere. After an error, some have
// not been visited.
func (h *Holders) Verify(ctx context.Context, files []procfs.File, visit func(i int, of procfs.State)) error {
	for first := 0; first < len(files); first += maxChecks {
		part := files[first:min(first+maxChecks, len(files))]
		if err := h.checks.write(part); err != nil {
			return fmt.Errorf("bpf: write the checks: %w", err)
		}
		if err := h.tasks.run(ctx, func([]byte) {}); err != nil {
			return err
		}
		if err := h.checks.read(len(part), func(i int, of procfs.State) { visit(first+i, of) }); err != nil {
			return fmt.Errorf("bpf: read the checks: %w", err)
		}
	}
	return nil
}

// checks are the files that the program verify looks at.
type checks struct {
	table     *ebpf.Map
	memory    *ebpf.Memory
	end, next *ebpf.Variable
	buf       []byte
}

// maxChecks is MAX_CHECKS of the program.
const maxChecks = 4096

func (c *checks) write(files []procfs.File) error {
	c.buf = c.buf[:0]
	for _, f := range files {
		record := [64]byte{}
		n := binary.NativeEndian
		n.PutUint64(record[0:], f.Inode)
		n.PutUint32(record[12:], uint32(f.TID))
		n.PutUint32(record[16:], uint32(f.FD))
		c.buf = append(c.buf, record[:]...)
	}
	_, err := c.memory.WriteAt(c.buf, 0)
	return errors.Join(err, c.end.Set(uint32(len(files))), c.next.Set(uint32(0)))
}

func (c *checks) read(n int, visit func(i int, of procfs.State)) error {
	if _, err := c.memory.ReadAt(c.buf, 0); err != nil {
		return err
	}
	for i := range n {
		if _, process, held := parseHolder(c.buf[i*holderSize:][:holderSize]); held {
			visit(i, process)
		}
	}
	return nil
}

// An iterator is a program that the kernel runs for each of its objects of one kind.
type iterator struct {
	kind    string
	program *ebpf.Program
	link    *link.Iter
	buf     []byte
}

// newIterator takes over the program. After an error the iterator can only be closed.
func newIterator(program *ebpf.Program, kind string) (*iterator, error) {
	it := &iterator{kind: kind, program: program, buf: make([]byte, 32<<10)}
	var err error
	if it.link, err = link.AttachIter(link.IterOptions{Program: program}); err != nil {
		return it, fmt.Errorf("attach the iterator of %s: %w", kind, err)
	}
	return it, nil
}

func (it *iterator) close() error {
	var err error
	if it.link != nil {
		err = it.link.Close()
	}
	return errors.Join(err, it.program.Close())
}

// run runs the program for all objects, and calls visit for each record that it writes.
func (it *iterator) run(ctx context.Context, visit func(record []byte)) error {
	file, err := it.link.Open()
	if err != nil {
		return fmt.Errorf("bpf: open the iterator of %s: %w", it.kind, err)
	}
	defer file.Close()
	rest := 0
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := file.Read(it.buf[rest:])
		switch {
		case errors.Is(err, io.EOF) && rest > 0:
			return fmt.Errorf("bpf: %d bytes after the last of the %s", rest, it.kind)
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("bpf: read the iterator of %s: %w", it.kind, err)
		}
		data := it.buf[:rest+n]
		for len(data) >= holderSize {
			visit(data[:holderSize])
			data = data[holderSize:]
		}
		rest = copy(it.buf, data)
	}
}

var holderSize = binary.Size(listenersHolder{})

// parseHolder parses a record of holderSize bytes.
func parseHolder(data []byte) (file procfs.File, process procfs.State, held bool) {
	n := binary.NativeEndian
	file = procfs.File{Inode: n.Uint64(data), TID: int32(n.Uint32(data[12:])), FD: int32(n.Uint32(data[16:]))}
	file.Ring = file.Inode == 0
	process = procfs.State{
		PID: int(n.Uint32(data[8:])), Start: n.Uint64(data[24:]), Cgroup: n.Uint64(data[32:]), CgroupSet: n.Uint64(data[40:]),
		Comm: [16]byte(data[48:]),
	}
	return file, process, n.Uint32(data[20:]) != 0
}
