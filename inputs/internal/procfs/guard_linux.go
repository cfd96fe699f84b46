package procfs

import (
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// A guard bounds the time of reads that another process can make hang. A read that takes longer
// than the timeout is abandoned, and no other one is started until it has ended.
type guard struct {
	timeout time.Duration // hangTimeout, except in tests
	stuck   chan struct{} // closed when the abandoned read has ended; nil if there is none
}

// hangTimeout is how long to wait for one read.
const hangTimeout = 2 * time.Second

// ErrHangs says that a read takes too long, or was not tried because an earlier one has not ended.
var ErrHangs = errors.New("read hangs")

// guarded opens a file in a directory, and calls read with it in a goroutine.
func guarded[T any](g *guard, dir int, name string, read func(fd int) (T, error)) (answer T, err error) {
	if g.hangs() {
		return answer, ErrHangs
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return answer, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	type result struct {
		answer T
		err    error
	}
	results, ended := make(chan result, 1), make(chan struct{})
	go func() {
		defer close(ended)
		defer unix.Close(fd)
		a, err := read(fd)
		results <- result{a, err}
	}()
	timeout := time.NewTimer(g.timeout)
	defer timeout.Stop()
	select {
	case r := <-results:
		return r.answer, r.err
	case <-timeout.C:
		g.stuck = ended
		return answer, ErrHangs
	}
}

// hangs reports whether an abandoned read has not ended yet.
func (g *guard) hangs() bool {
	if g.stuck == nil {
		return false
	}
	select {
	case <-g.stuck:
		g.stuck = nil
		return false
	default:
		return true
	}
}
