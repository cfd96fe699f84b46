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

// A lap is one search of all processes for what else holds namespaces: threads, open
// files, and mounts of their mount namespaces. The first is done at once; the others
// are spread over several passes.
type lap struct {
	began  time.Time // zero before the first
	first  bool      // the first has ended
	pids   []int     // those that are left
	file   int       // of the first of them: the open file to go on with
	mounts map[uint64]bool
}

// A lap takes that share of the time between two passes, and at least minSlice.
const (
	lapShare = 50
	minSlice = 25 * time.Millisecond
)

// continueLap goes on with the lap, or begins the next one.
func (f *finder) continueLap(ctx context.Context, now time.Time, elapsed time.Duration) error {
	l := &f.lap
	if len(l.pids) == 0 {
		if l.first && now.Sub(l.began) < f.refresh {
			return nil
		}
		l.begin(now, f)
	}
	slice, cancel := ctx, context.CancelFunc(func() {})
	if l.first {
		slice, cancel = context.WithTimeout(ctx, max(minSlice, elapsed/lapShare))
	}
	defer cancel()
	for len(l.pids) > 0 {
		done, err := f.search(slice, l.pids[0])
		if err != nil {
			return err
		}
		if !done {
			if !l.first {
				return fmt.Errorf("cut by the deadline before the threads and open files of %d processes", len(l.pids))
			}
			return nil
		}
		l.pids, l.file = l.pids[1:], 0
	}
	l.first = true
	return nil
}

// searchAll does a whole lap at once, and returns the namespaces that are there.
func (f *finder) searchAll(ctx context.Context, now time.Time) ([]*place, error) {
	f.lap = lap{}
	err := f.continueLap(ctx, now, 0)
	return f.verify(), err
}

func (l *lap) begin(now time.Time, f *finder) {
	l.began, l.mounts = now, make(map[uint64]bool)
	l.pids = l.pids[:0:0]
	for _, p := range f.processes {
		if p.pid != f.self { // its threads and files are in other namespaces only to list them
			l.pids = append(l.pids, p.pid)
		}
	}
}

// search searches one process; done is false if the time is over.
func (f *finder) search(ctx context.Context, pid int) (done bool, err error) {
	if ctx.Err() != nil {
		return false, nil
	}
	dir := f.host.Proc + "/" + strconv.Itoa(pid)
	if f.lap.file == 0 {
		in, err := f.find(pid)
		if isExhausted(err) {
			return false, err
		}
		if i, ok := f.indexOf(pid); ok && err == nil {
			f.processes[i].in = in
		}
		if err := f.searchThreads(ctx, dir, pid, in); isExhausted(err) {
			return false, err
		}
		if err := f.searchMounts(ctx, dir, pid); isExhausted(err) {
			return false, err
		}
	}
	done, err = f.searchFiles(ctx, dir, pid)
	if isExhausted(err) {
		return false, err
	}
	return done || err != nil, nil // ended, or not permitted
}

// indexOf returns where a process stands among those that are known.
func (f *finder) indexOf(pid int) (int, bool) {
	lo, hi := 0, len(f.processes)
	for lo < hi {
		if mid := (lo + hi) / 2; f.processes[mid].pid < pid {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < len(f.processes) && f.processes[lo].pid == pid
}

// searchThreads looks for threads that are not where their process is.
func (f *finder) searchThreads(ctx context.Context, dir string, pid int, in *place) error {
	return withDir(dir+"/task", func(tasks int) error {
		var failed error
		err := numbers(tasks, func(tid int) bool {
			if tid == pid {
				return true
			}
			p, err := f.find(tid)
			if isExhausted(err) {
				failed = err
			}
			if err == nil && p != nil && p != in && p != f.own {
				p.keep(processRef(tid))
			}
			return failed == nil && ctx.Err() == nil
		})
		if failed != nil {
			return failed
		}
		return err
	})
}

// searchMounts looks for namespaces that are mounted in the mount namespace of a
// process, if it is one that this lap has not seen.
func (f *finder) searchMounts(ctx context.Context, dir string, pid int) error {
	var st unix.Stat_t
	if err := unix.Stat(dir+"/ns/mnt", &st); err != nil {
		return err
	}
	if f.lap.mounts[st.Ino] {
		return nil
	}
	file, err := os.Open(dir + "/mountinfo")
	if err != nil {
		return err
	}
	defer file.Close()
	err = lineReader{file: file, piece: 4096}.read(ctx, func(line []byte) (bool, error) {
		if number, path, ok := parseMount(line); ok {
			if p := f.placeOf(number); p != f.own && p.mount.mount == "" {
				p.keep(ref{pid: pid, fd: -1, mount: path})
			}
		}
		return true, nil
	})
	f.lap.mounts[st.Ino] = err == nil
	return err
}

// searchFiles looks for open files that are network namespaces.
func (f *finder) searchFiles(ctx context.Context, dir string, pid int) (done bool, err error) {
	done = true
	err = withDir(dir+"/fd", func(files int) error {
		if f.lap.file > 0 {
			if _, err := unix.Seek(files, int64(f.lap.file)+2, 0); err != nil { // after "." and ".."
				return err
			}
		}
		var b [64]byte
		n := 0
		return numbers(files, func(fd int) bool {
			if n++; n%256 == 0 && ctx.Err() != nil {
				f.lap.file, done = fd, false
				return false
			}
			size, err := unix.Readlinkat(files, strconv.Itoa(fd), b[:])
			if err != nil {
				return true
			}
			r := ref{pid: pid, fd: fd}
			number, ok := parseNumber(b[:size])
			if !ok && string(b[:size]) == "/" { // as of a mount that is gone
				number, err = r.networkNumber(f.host)
				ok = err == nil
			}
			if ok {
				if p := f.placeOf(number); p != f.own {
					p.keep(r)
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
