//go:build amd64 || arm64

package bpf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/procfs"
)

// Holders finds all holders of listening sockets. It must be used by one goroutine.
type Holders struct {
	pidNamespace uint32
	files        *iterator // over the open files of all tasks
	onlyRings    *ebpf.Variable
	verifier     *verifier // nil before the first Verify
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
	files, err := newIterator(objects.Holders, "open files")
	if err != nil {
		return nil, err
	}
	return &Holders{pidNamespace: pidNamespace, files: files, onlyRings: objects.OnlyRings}, nil
}

// Close releases the programs.
func (h *Holders) Close() error {
	err := h.files.close()
	if h.verifier != nil {
		err = errors.Join(err, h.verifier.close())
	}
	return err
}

// Sockets calls visit for each open file that is a listening TCP socket of any network
// namespace, with its process, ordered by process and thread. Files that are opened or closed
// meanwhile may be missing. After an error, such as that of ctx, some have not been visited. The
// kernel looks at up to a million files before it looks at ctx again.
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
// not been visited. The first call loads the program, which the first search needs not wait for.
func (h *Holders) Verify(ctx context.Context, files []procfs.File, visit func(i int, of procfs.State)) (err error) {
	if h.verifier == nil {
		if h.verifier, err = openVerifier(h.pidNamespace); err != nil {
			return err
		}
	}
	for first := 0; first < len(files); first += maxChecks {
		part := files[first:min(first+maxChecks, len(files))]
		if err := h.verifier.run(ctx, part, func(i int, of procfs.State) { visit(first+i, of) }); err != nil {
			return err
		}
	}
	return nil
}

// A verifier confirms that files are still open.
type verifier struct {
	tasks     *iterator
	checks    *ebpf.Map // the files
	memory    *ebpf.Memory
	end, next *ebpf.Variable
	buf       []byte
}

// maxChecks is MAX_CHECKS of the program.
const maxChecks = 4096

func openVerifier(pidNamespace uint32) (*verifier, error) {
	var objects struct {
		Verify *ebpf.Program  `ebpf:"verify"`
		Checks *ebpf.Map      `ebpf:"checks"`
		End    *ebpf.Variable `ebpf:"checks_end"`
		Next   *ebpf.Variable `ebpf:"checks_next"`
	}
	if err := load(pidNamespace, &objects); err != nil {
		return nil, err
	}
	v := &verifier{checks: objects.Checks, end: objects.End, next: objects.Next}
	var err error
	if v.tasks, err = newIterator(objects.Verify, "tasks"); err != nil {
		return nil, errors.Join(err, v.checks.Close())
	}
	if v.memory, err = v.checks.Memory(); err != nil {
		return nil, errors.Join(fmt.Errorf("bpf: map the files to verify: %w", err), v.close())
	}
	return v, nil
}

func (v *verifier) close() error { return errors.Join(v.tasks.close(), v.checks.Close()) }

// run verifies at most maxChecks files.
func (v *verifier) run(ctx context.Context, files []procfs.File, visit func(i int, of procfs.State)) error {
	v.buf = slices.Grow(v.buf[:0], len(files)*holderSize)[:len(files)*holderSize]
	clear(v.buf)
	n := binary.NativeEndian
	for i, f := range files {
		record := v.buf[i*holderSize:]
		n.PutUint64(record, f.Inode)
		n.PutUint32(record[12:], uint32(f.TID))
		n.PutUint32(record[16:], uint32(f.FD))
	}
	_, err := v.memory.WriteAt(v.buf, 0)
	if err := errors.Join(err, v.end.Set(uint32(len(files))), v.next.Set(uint32(0))); err != nil {
		return fmt.Errorf("bpf: write the files to verify: %w", err)
	}
	if err := v.tasks.run(ctx, func([]byte) {}); err != nil {
		return err
	}
	if _, err := v.memory.ReadAt(v.buf, 0); err != nil {
		return fmt.Errorf("bpf: read the verified files: %w", err)
	}
	for i := range files {
		if _, process, held := parseHolder(v.buf[i*holderSize:][:holderSize]); held {
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

// newIterator takes over the program.
func newIterator(program *ebpf.Program, kind string) (*iterator, error) {
	attached, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		program.Close()
		return nil, fmt.Errorf("bpf: attach the iterator of %s: %w", kind, err)
	}
	return &iterator{kind: kind, program: program, link: attached, buf: make([]byte, 32<<10)}, nil
}

func (it *iterator) close() error { return errors.Join(it.link.Close(), it.program.Close()) }

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
