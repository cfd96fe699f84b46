package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
)

var (
	// ErrNoProcess says that a namespace cannot be read: no process is in it, and it
	// may not be entered.
	ErrNoProcess = errors.New("no process is known to be in it, and to enter it takes netlink and CAP_SYS_ADMIN")

	// errEnded says that what led to a namespace has ended, errMoved that it leads to
	// another one by now.
	errEnded = errors.New("the network namespace has ended")
	errMoved = errors.New("its process has moved to another network namespace")
)

// A location is one namespace, as it is found and reached.
//
// A namespace is known by its number, which is hidden from whoever may not trace its
// processes, and by the inode of their net/tcp: it is another file in every
// namespace, and anybody may stat it.
type location struct {
	host   host.Host
	number uint64 // 0 if it is hidden
	table  uint64 // 0 if no process has been seen in it
	own    bool   // the program is in it
	pinned bool   // the program has sockets in it, so that its number is not given to another
	name   string // under /run/netns, escaped

	process ref   // a process or thread in it; none if it is not isProcess
	mount   ref   // a mount of Host.Root; none if it has no path
	others  []ref // threads, open files, and mounts of other mount namespaces
}

// entry returns by what the namespace is entered.
func (p *location) entry() (r ref, ok bool) {
	switch {
	case p.mount.mount != "":
		return p.mount, true
	case p.process.isProcess():
		return p.process, true
	case len(p.others) > 0:
		return p.others[0], true
	}
	return ref{}, false
}

// enter calls do on a thread that is in the namespace.
func (p *location) enter(do func() error) error {
	if p.own {
		return do()
	}
	r, ok := p.entry()
	if !ok {
		return errEnded
	}
	f, err := r.open(p.host, p.number)
	if isGone(err) {
		return errEnded
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return inside(f, do)
}

// openTable opens a file of /proc/PID/net. What it shows is decided as it is opened,
// and does not move with the process.
func (p *location) openTable(name string) (*os.File, error) {
	if p.own {
		// The program's own directory is its first thread's, which may be in another
		// namespace for a moment.
		return os.Open("/proc/thread-self/net/" + name)
	}
	if !p.process.isProcess() {
		return nil, ErrNoProcess
	}
	f, err := os.Open(fmt.Sprintf("%s/%d/net/%s", p.host.Proc, p.process.pid, name))
	in, hereErr := p.holds(p.process.pid)
	switch {
	case isGone(hereErr):
		hereErr = errEnded
	case hereErr == nil && !in:
		hereErr = errMoved
	}
	if hereErr != nil {
		if err == nil {
			f.Close()
		}
		return nil, hereErr
	}
	return f, err
}

// holds reports whether a process or thread is in the namespace.
func (p *location) holds(pid int) (bool, error) {
	number, err := processRef(pid).number(p.host)
	if err == nil && p.number != 0 {
		return number == p.number, nil
	}
	if err != nil && !isRefused(err) || p.table == 0 {
		return false, err
	}
	table, err := tableNumber(p.host, pid)
	return table == p.table, err
}

// isAnother reports whether the number of the namespace, in which its process is, has
// become that of another one.
func (p *location) isAnother() bool {
	if p.own || p.pinned || p.number == 0 || p.table == 0 {
		return false
	}
	table, err := tableNumber(p.host, p.process.pid)
	return err == nil && table != p.table
}

// prune removes what does not lead to the namespace any more. A thread serves as its
// process if there is no other.
func (p *location) prune() {
	p.others = slices.DeleteFunc(p.others, func(r ref) bool {
		if r.isProcess() {
			ok, err := p.holds(r.pid)
			if err == nil && ok && !p.process.isProcess() {
				p.process = r
			}
			return err != nil || !ok
		}
		number, err := r.number(p.host)
		return err != nil && !isExhausted(err) || err == nil && number != p.number
	})
}

// maxOthers bounds what is kept of one namespace.
const maxOthers = 8

func (p *location) keep(r ref) {
	if len(p.others) >= maxOthers {
		p.prune()
	}
	if len(p.others) < maxOthers && !slices.Contains(p.others, r) {
		p.others = append(p.others, r)
	}
}

// inside calls do on a thread that is in that namespace. Afterwards the thread is
// where it was, or ends.
func inside(netns *os.File, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter: %w", err)
			return
		}
		err = do()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			done <- errors.Join(err, fmt.Errorf("return: %w", back)) // and the thread ends, locked
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
