package owner

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// exits reports when processes exit. It is an epoll over their pidfds.
type exits struct {
	epoll int
	spare int // how many more pidfds may be opened
}

func newExits(ownPIDs bool) (exits, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return exits{}, fmt.Errorf("create an epoll: %w", err)
	}
	e := exits{epoll: epoll}
	// On a host with very many servers, pidfds must not use up the file descriptors of the
	// rest of the program. Processes without a pidfd are checked by their start times.
	var limit unix.Rlimit
	if ownPIDs && unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		e.spare = int(min(limit.Cur/4, 1<<16))
	}
	return e, nil
}

func (e *exits) close() error { return unix.Close(e.epoll) }

// watch opens a pidfd and watches it. It returns -1 if that is not possible.
func (e *exits) watch(pid int) int {
	if e.spare <= 0 {
		return -1
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1
	}
	// The event carries the pid. Only one process with that pid is watched at a time: see
	// processes.identify.
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(pid)}
	if err := unix.EpollCtl(e.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		unix.Close(fd)
		return -1
	}
	e.spare--
	return fd
}

func (e *exits) unwatch(pidfd int) {
	if pidfd >= 0 {
		unix.Close(pidfd)
		e.spare++
	}
}

// each calls exited for every process that has exited. exited must call unwatch.
func (e *exits) each(exited func(pid int)) {
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(e.epoll, events, 0)
		if err == unix.EINTR {
			continue
		}
		for _, event := range events[:max(n, 0)] {
			exited(int(event.Fd))
		}
		if n < len(events) {
			return
		}
	}
}
