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
	// ErrNoProcess says that a namespace cannot be read: no process is in it, and the
	// program may not enter it.
	ErrNoProcess = errors.New("no process is known to be in it, and entering it needs netlink and CAP_SYS_ADMIN")

	// errEnded says that the ref of a namespace is gone, errMoved that it now leads to
	// another namespace.
	errEnded = errors.New("the network namespace is gone")
	errMoved = errors.New("its process has moved to another network namespace")
)

// A location is a namespace, with its numbers and the ways to reach it.
//
// A namespace has two numbers. Its own number can be read only by a program that may trace
// its processes. The inode of its net/tcp is different in every namespace, and every
// program may read it.
type location struct {
	host   host.Host
	number uint64 // 0 if it is hidden
	table  uint64 // the inode of net/tcp; 0 if no process has been seen in the namespace
	own    bool   // the program is in this namespace
	pinned bool   // the program has sockets in it, so its number cannot be reused
	name   string // under /run/netns, escaped

	process ref   // a process or thread in it; none unless isProcess
	mount   ref   // a mount in Host.Root; none if it has no path
	others  []ref // threads, open files, and mounts in other mount namespaces
}

// entry returns the ref by which the namespace can be entered.
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

// openTable opens a file in /proc/PID/net. The file belongs to the namespace in which the
// process was when it was opened, even if the process moves later.
func (p *location) openTable(name string) (*os.File, error) {
	if p.own {
		// /proc/self would be the first thread, which may be in another namespace for a
		// moment.
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

// isReused reports whether the namespace has ended, and its process is in another one that
// has got its number.
func (p *location) isReused() bool {
	if p.own || p.pinned || p.number == 0 || p.table == 0 {
		return false
	}
	table, err := tableNumber(p.host, p.process.pid)
	return err == nil && table != p.table
}

// prune removes the refs that no longer lead to the namespace. If no process is left in it,
// a thread takes that place.
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

// maxOthers limits how many refs are kept of one namespace.
const maxOthers = 8

// addRef adds a ref to others.
func (p *location) addRef(r ref) {
	if len(p.others) >= maxOthers {
		p.prune()
	}
	if len(p.others) < maxOthers && !slices.Contains(p.others, r) {
		p.others = append(p.others, r)
	}
}

// inside calls do on a thread in the namespace netns. Afterwards the thread returns to its
// old namespace, or ends.
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
			done <- errors.Join(err, fmt.Errorf("return: %w", back)) // the locked thread ends with the goroutine
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
