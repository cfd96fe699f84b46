package tcplisten

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/ifaces"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/procfs"
	"sockwatch/inputs/internal/sockdiag"
)

// A space is one network namespace.
type space struct {
	name    string // the tag netns; "" of the host's
	backend string // auto until it is known which works
	log     *slog.Logger
	fs      *procfs.FS
	process string // a process of the namespace, for /proc/PROCESS/net
	diag    *sockdiag.Conn
	watch   *ifaces.Watch // nil where changes of addresses cannot be watched

	listeners map[uint64]*listener // by cookie
	stamp     uint64               // of the last listing
	ifaces    ifaces.Table
	local     uint32 // the version of ifaces
}

func (in *input) newSpace() *space {
	return &space{
		backend: in.options.Backend, log: in.env.Log, fs: in.fs, process: "self",
		listeners: make(map[uint64]*listener),
	}
}

func (sp *space) close() {
	if sp.diag != nil {
		sp.diag.Close()
	}
	if sp.watch != nil {
		sp.watch.Close()
	}
}

// list calls each for every listening socket of the namespace; twice for one that
// changes meanwhile.
func (sp *space) list(ctx context.Context, each func(*space, *inet.Socket)) error {
	if err := sp.readInterfaces(); err != nil {
		return err
	}
	if sp.backend != backendProcfs {
		err := sp.listNetlink(ctx, each)
		if err == nil || sp.backend == backendNetlink || !refused(err) {
			return err
		}
		sp.log.Warn("no netlink, listeners come from /proc/net/tcp: without backlog limits and devices", "reason", err.Error())
		sp.backend = backendProcfs
	}
	return sp.listProcfs(each)
}

func (sp *space) listNetlink(ctx context.Context, each func(*space, *inet.Socket)) error {
	if sp.diag == nil {
		diag, err := sockdiag.Dial(0)
		if err != nil {
			return err
		}
		sp.diag = diag
	}
	return sp.diag.Dump(ctx, sockdiag.Listen,
		func() { sp.stamp++ },
		func(s *inet.Socket) { each(sp, s) })
}

func (sp *space) listProcfs(each func(*space, *inet.Socket)) error {
	sp.stamp++
	var found []inet.Socket
	if err := sp.fs.TCP(sp.process, false, func(s *inet.Socket) { found = append(found, *s) }); err != nil {
		return err
	}
	v6only, err := sp.fs.BindV6Only()
	if err != nil {
		return err
	}
	inet.GuessV6Only(found, v6only)
	for i := range found {
		each(sp, &found[i])
	}
	return nil
}

// refused tells whether the kernel, or a filter before it, does not answer to
// netlink at all.
func refused(err error) bool {
	for _, e := range []error{
		unix.EPERM, unix.EACCES, unix.ENOSYS, unix.ENOENT, unix.EINVAL,
		unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.EOPNOTSUPP,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// readInterfaces reads the interfaces where they have changed, or may have.
func (sp *space) readInterfaces() error {
	if sp.watch == nil {
		sp.watch, _ = ifaces.NewWatch() // before the first Read: no change is missed
	} else if !sp.watch.Changed() {
		return nil
	}
	t, err := ifaces.Read(0)
	if err != nil && refused(err) {
		t.Addresses, err = sp.fs.LocalAddresses(sp.process)
	}
	if err != nil {
		return fmt.Errorf("interfaces: %w", err)
	}
	sp.ifaces = t
	sp.local++
	return nil
}
