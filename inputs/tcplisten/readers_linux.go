package tcplisten

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/bpf"
	"sockwatch/inputs/internal/cgroup"
	"sockwatch/inputs/internal/exehash"
	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/netns"
	"sockwatch/inputs/internal/owner"
	"sockwatch/inputs/internal/procfs"
	"sockwatch/inputs/internal/users"
)

// readers holds everything that the input keeps open to read the host's state.
type readers struct {
	procfs     *procfs.FS
	namespaces *netns.Set
	owners     *owner.Finder
	holders    *bpf.Holders // nil if owners are searched in procfs
	asked      bool         // holders were opened, or cannot be
	cgroups    *cgroup.Tree // nil if no cgroup2 is mounted
	users      userNames
	sums       *exehash.Sums // nil without exe_sha256
	bootRead   time.Time     // when the host's boot time was last read
}

// userNames is implemented by users.Names.
type userNames interface {
	Update(ctx context.Context, uids map[uint32]bool, now time.Time) (changed bool)
	Name(uid uint32) string
	Pending(uid uint32) bool
	Person(uid uint32) string
	Err() error
	Close()
}

// openReaders opens everything at the first gather and keeps it open.
func (in *input) openReaders() (err error) {
	if in.open != nil {
		return nil
	}
	path := in.options.procPath(os.Getenv)
	h := host.Find(path)
	r := &readers{users: users.New(h, time.Duration(in.options.OwnerRefresh))}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.procfs, err = procfs.Open(h); err != nil {
		return fmt.Errorf("proc %q: %w", path, err)
	}
	r.namespaces, err = netns.Open(h, netns.Options{
		Backend: in.options.Backend,
		Others:  in.options.Namespaces,
		Refresh: time.Duration(in.options.OwnerRefresh),
	})
	if err != nil {
		return err
	}
	// Without a cgroup2 hierarchy, unit and container are known only from the owners.
	r.cgroups, _ = cgroup.OpenTree(path + "/self/mountinfo")
	r.owners, err = owner.NewFinder(r.procfs, owner.Options{
		Verify:  time.Duration(in.options.OwnerVerify),
		Refresh: time.Duration(in.options.OwnerRefresh),
		Cmdline: in.options.cmdlineBytes(),
		Members: r.members,
	})
	if err != nil {
		return err
	}
	if in.options.ExeSHA256 {
		r.sums = exehash.New(path, time.Duration(in.options.OwnerRefresh))
	}
	if in.recorder == nil {
		in.recorder = openRecorder(&in.options, in.rules, in.env, h)
	} else {
		in.recorder.reopen(&in.options, in.rules, in.env, h)
	}
	in.open = r
	return nil
}

// openHolders opens the kernel's list of holders, unless owners are searched in procfs. It is
// called after the sockets are listed: on a busy host, loading the programs takes seconds that a
// listing must not wait for.
func (in *input) openHolders(ctx context.Context) error {
	r := in.open
	if r.asked || in.options.OwnerSource == ownerSourceProcfs || ctx.Err() != nil {
		return nil
	}
	pids, err := pidNamespace(r.procfs.OwnPIDs())
	if err == nil {
		r.holders, err = bpf.OpenHolders(pids)
	}
	switch {
	case err == nil:
		r.owners.Use(r.holders)
	case in.options.OwnerSource == ownerSourceBPF:
		return fmt.Errorf("owner_source: %w", err)
	default:
		in.noteWithoutBPF(err)
	}
	r.asked = true
	return nil
}

func (r *readers) closeHolders() (err error) {
	if r.holders != nil {
		err = r.holders.Close()
		r.holders = nil
	}
	return err
}

// openChanges opens the kernel's changes of listeners.
func openChanges(proc string) (*bpf.Changes, error) {
	pids, err := pidNamespace(host.Find(proc).OwnPIDs)
	if err != nil {
		return nil, err
	}
	return bpf.OpenChanges(pids)
}

// pidNamespace returns the inode number of the pid namespace of the procfs. own: its pids are
// those of this program's own pid namespace.
func pidNamespace(own bool) (uint32, error) {
	if !own {
		return 0, errors.New("proc shows another pid namespace than that of sockwatch")
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0, fmt.Errorf("pid namespace: %w", err)
	}
	return uint32(st.Ino), nil
}

// members returns the processes of a cgroup. It returns none for the root cgroup, which
// may have most of the host's processes.
func (r *readers) members(path string) []int {
	if r.cgroups == nil || path == "/" {
		return nil
	}
	return r.cgroups.PIDs(path)
}

func (r *readers) close() error {
	var errs []error
	r.users.Close()
	if r.sums != nil {
		r.sums.Close()
	}
	if r.owners != nil {
		errs = append(errs, r.owners.Close())
	}
	errs = append(errs, r.closeHolders())
	if r.namespaces != nil {
		errs = append(errs, r.namespaces.Close())
	}
	if r.procfs != nil {
		errs = append(errs, r.procfs.Close())
	}
	return errors.Join(errs...)
}
