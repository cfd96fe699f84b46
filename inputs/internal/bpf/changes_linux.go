//go:build amd64 || arm64

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Changes receives the changes of all network namespaces.
type Changes struct {
	program *ebpf.Program
	buffer  *ebpf.Map
	sent    *ebpf.Variable
	lost    *ebpf.Variable
	link    link.Link
	reader  *ringbuf.Reader
	record  ringbuf.Record
}

// OpenChanges loads the program. From then on the kernel keeps the changes, up to about 7,000,
// until Next returns them. pidNamespace is as in OpenHolders.
func OpenChanges(pidNamespace uint32) (*Changes, error) {
	var objects struct {
		ListenChanges *ebpf.Program  `ebpf:"listen_changes"`
		Changes       *ebpf.Map      `ebpf:"changes"`
		Sent          *ebpf.Variable `ebpf:"sent"`
		Lost          *ebpf.Variable `ebpf:"lost"`
	}
	if err := load(pidNamespace, &objects); err != nil {
		return nil, err
	}
	c := &Changes{program: objects.ListenChanges, buffer: objects.Changes, sent: objects.Sent, lost: objects.Lost}
	var err error
	if c.reader, err = ringbuf.NewReader(c.buffer); err != nil {
		return nil, errors.Join(fmt.Errorf("bpf: open the ring buffer: %w", err), c.Close())
	}
	if c.link, err = link.AttachTracing(link.TracingOptions{Program: c.program}); err != nil {
		return nil, errors.Join(fmt.Errorf("bpf: attach to inet_sock_set_state: %w", err), c.Close())
	}
	return c, nil
}

// Close detaches the program. A Next in progress returns os.ErrClosed.
func (c *Changes) Close() error {
	var errs []error
	if c.link != nil {
		errs = append(errs, c.link.Close())
	}
	if c.reader != nil {
		errs = append(errs, c.reader.Close())
	}
	return errors.Join(append(errs, c.buffer.Close(), c.program.Close())...)
}

// Next waits for the next change. After Close it returns os.ErrClosed. It must be called by
// one goroutine.
func (c *Changes) Next() (Change, error) {
	if err := c.reader.ReadInto(&c.record); err != nil {
		if errors.Is(err, ringbuf.ErrClosed) {
			return Change{}, os.ErrClosed
		}
		return Change{}, fmt.Errorf("bpf: read the ring buffer: %w", err)
	}
	return parseChange(c.record.RawSample)
}

// Sent returns how many changes Next has returned or is about to return. The kernel counts a
// socket before it lists it.
func (c *Changes) Sent() (n uint64, err error) {
	if err := c.sent.Get(&n); err != nil {
		return 0, fmt.Errorf("bpf: read the number of changes: %w", err)
	}
	return n, nil
}

// Lost returns how many changes found the ring buffer full since OpenChanges.
func (c *Changes) Lost() (n uint64, err error) {
	if err := c.lost.Get(&n); err != nil {
		return 0, fmt.Errorf("bpf: read the number of lost changes: %w", err)
	}
	return n, nil
}

// parseChange parses a record of the ring buffer.
func parseChange(data []byte) (Change, error) {
	var raw listenersChange
	if _, err := binary.Decode(data, binary.NativeEndian, &raw); err != nil {
		return Change{}, fmt.Errorf("bpf: a change of %d bytes, expected %d", len(data), binary.Size(raw))
	}
	c := Change{
		Listens: raw.Listens != 0, Shut: raw.Shut != 0, Time: time.Duration(raw.Time), Cookie: raw.Cookie, Inode: raw.Inode, Netns: raw.Netns,
		Port: raw.Port, Device: raw.Device, V6Only: raw.V6only != 0, Limit: raw.BacklogLimit,
		PID: int(raw.Pid), Start: raw.Start, UID: raw.Uid, Cgroup: raw.Cgroup,
	}
	switch raw.Family {
	case unix.AF_INET:
		c.Addr = netip.AddrFrom4([4]byte(raw.Address[:4]))
	case unix.AF_INET6:
		c.Addr = netip.AddrFrom16(raw.Address)
	default:
		return Change{}, fmt.Errorf("bpf: a change of the address family %d", raw.Family)
	}
	comm := make([]byte, len(raw.Comm))
	for i, b := range raw.Comm {
		comm[i] = byte(b)
	}
	c.Comm, _, _ = bytes.Cut(comm, []byte{0})
	return c, nil
}
