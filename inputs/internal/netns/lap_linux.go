package netns

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A lap searches all processes once for everything else that holds namespaces: threads,
// open files, and mounts in their mount namespaces. The first lap is done at once; later
// ones are spread over several passes.
type lap struct {
	known   *registry
	refresh time.Duration
	found   func(pid int, in *location) // called with the namespace of each process

	began  time.Time       // zero before the first lap
	first  bool            // the first lap has ended
	pids   []int           // the processes that are left
	file   int             // the open file of the first of them to continue with
	mounts map[uint64]bool // the mount namespaces that this lap has seen
}

// A lap may use 1/lapShare of the time between two passes, and at least minSlice.
const (
	lapShare = 50
	minSlice = 25 * time.Millisecond
)

// resume continues the lap, or starts the next one over all pids when it is due.
func (l *lap) resume(ctx context.Context, now time.Time, elapsed time.Duration, pids func() []int) error {
	if len(l.pids) == 0 {
		if l.first && now.Sub(l.began) < l.refresh {
			return nil
		}
		l.began, l.pids, l.mounts = now, pids(), make(map[uint64]bool)
	}
	slice, cancel := ctx, context.CancelFunc(func() {})
	if l.first {
		slice, cancel = context.WithTimeout(ctx, max(minSlice, elapsed/lapShare))
	}
	defer cancel()
	for len(l.pids) > 0 {
		done, err := l.search(ctx, slice, l.pids[0])
		if err != nil {
			return err
		}
		if !done {
			if !l.first {
				return fmt.Errorf("stopped by the deadline before the threads and open files of %d processes", len(l.pids))
			}
			return nil
		}
		l.pids, l.file = l.pids[1:], 0
	}
	l.first = true
	return nil
}

// search searches one process. It searches the threads at once, and the open files until
// slice ends. done is false if the time is over.
func (l *lap) search(ctx, slice context.Context, pid int) (done bool, err error) {
	if slice.Err() != nil {
		return false, nil
	}
	dir := l.known.host.Proc + "/" + strconv.Itoa(pid)
	if l.file == 0 {
		in, err := l.known.find(pid)
		if isExhausted(err) {
			return false, err
		}
		if err == nil {
			l.found(pid, in)
		}
		if err := l.searchThreads(ctx, dir, pid, in); isExhausted(err) {
			return false, err
		}
		if err := l.searchMounts(ctx, dir, pid); isExhausted(err) {
			return false, err
		}
		if ctx.Err() != nil {
			return false, nil
		}
	}
	done, err = l.searchFiles(slice, dir, pid)
	if isExhausted(err) {
		return false, err
	}
	return done || err != nil, nil // ended, or not permitted
}

// searchThreads looks for threads in another namespace than their process.
func (l *lap) searchThreads(ctx context.Context, dir string, pid int, in *location) error {
	return withDir(dir+"/task", func(tasks int) error {
		var failed error
		err := numbers(tasks, func(tid int) bool {
			if tid == pid {
				return true
			}
			p, err := l.known.find(tid)
			if isExhausted(err) {
				failed = err
			}
			if err == nil && p != nil && p != in && p != l.known.own {
				p.addRef(processRef(tid))
			}
			return failed == nil && ctx.Err() == nil
		})
		if failed != nil {
			return failed
		}
		return err
	})
}

// searchMounts looks for namespaces that are mounted in the mount namespace of a process,
// unless this lap has already seen that mount namespace.
func (l *lap) searchMounts(ctx context.Context, dir string, pid int) error {
	var st unix.Stat_t
	if err := unix.Stat(dir+"/ns/mnt", &st); err != nil {
		return err
	}
	if l.mounts[st.Ino] {
		return nil
	}
	file, err := os.Open(dir + "/mountinfo")
	if err != nil {
		return err
	}
	defer file.Close()
	err = lineReader{file: file, piece: 4096}.read(ctx, func(line []byte) (bool, error) {
		if number, path, ok := parseMount(line); ok {
			if p := l.known.locationOf(number); p != l.known.own && p.mount.mount == "" {
				p.addRef(ref{pid: pid, fd: -1, mount: path})
			}
		}
		return true, nil
	})
	l.mounts[st.Ino] = err == nil
	return err
}

// searchFiles looks for open files that are network namespaces.
func (l *lap) searchFiles(ctx context.Context, dir string, pid int) (done bool, err error) {
	done = true
	err = withDir(dir+"/fd", func(files int) error {
		if l.file > 0 {
			if _, err := unix.Seek(files, int64(l.file)+2, 0); err != nil { // after "." and ".."
				return err
			}
		}
		var b [64]byte
		n := 0
		return numbers(files, func(fd int) bool {
			if n++; n%256 == 0 && ctx.Err() != nil {
				l.file, done = fd, false
				return false
			}
			size, err := unix.Readlinkat(files, strconv.Itoa(fd), b[:])
			if err != nil {
				return true
			}
			r := ref{pid: pid, fd: fd}
			number, ok := parseNumber(b[:size])
			if !ok && string(b[:size]) == "/" { // what a file of an unmounted nsfs shows
				number, err = r.networkNumber(l.known.host)
				ok = err == nil
			}
			if ok {
				if p := l.known.locationOf(number); p != l.known.own {
					p.addRef(r)
				}
			}
			return true
		})
	})
	return done, err
}

func withDir(path string, do func(dir int) error) error {
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(dir)
	return do(dir)
}
