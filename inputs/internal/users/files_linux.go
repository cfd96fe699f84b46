package users

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
)

// tables is the result of one read of /etc/passwd and /etc/subuid.
type tables struct {
	names  map[uint32]string // nil if /etc/passwd could not be read
	absent bool              // there is no /etc/passwd
	ranges []uidRange        // sorted by first
	err    error
	noSubs bool // /etc/subuid could not be read
	slow   bool // the read took longer than wait
}

// readTables reads the ranges of subordinate uids, and the names of uids and of the uids that
// own a range.
func readTables(h host.Host, uids map[uint32]bool) tables {
	var t tables
	errSubuid := readFile(h, "etc/subuid", func(f *os.File) (err error) {
		t.ranges, err = parseSubuid(f)
		return err
	})
	if errors.Is(errSubuid, fs.ErrNotExist) {
		errSubuid = nil
	}
	t.noSubs = errSubuid != nil
	for _, r := range t.ranges {
		if r.name == "" {
			uids[r.uid] = true
		}
	}
	errPasswd := readFile(h, "etc/passwd", func(f *os.File) (err error) {
		t.names, err = parsePasswd(f, uids)
		return err
	})
	if errPasswd != nil {
		t.names, t.absent = nil, errors.Is(errPasswd, fs.ErrNotExist)
	}
	t.err = errors.Join(errPasswd, errSubuid)
	return t
}

// readFile reads a regular file below the host's root.
func readFile(h host.Host, path string, read func(*os.File) error) error {
	// With O_NONBLOCK, opening a FIFO does not wait for its writer.
	fd, err := open(h, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return fmt.Errorf("/%s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return fmt.Errorf("/%s: %w", path, err)
	} else if !info.Mode().IsRegular() {
		return fmt.Errorf("/%s: not a regular file", path)
	}
	if err := read(f); err != nil {
		return fmt.Errorf("/%s: %w", path, err)
	}
	return nil
}

// files caches /etc/passwd and /etc/subuid. They are read in a goroutine, since their file
// system may hang.
type files struct {
	read  func(uids map[uint32]bool) tables // may keep and change uids
	again time.Duration

	names   map[uint32]string // of the uids of the last read
	ranges  []uidRange
	longest []uint32 // the greatest last of all ranges up to this one
	err     error

	asked   map[uint32]bool // the uids of the last read
	looked  map[uint32]bool // the uids of the last read that did not fail
	due     time.Time       // when the files are due to be read again
	reading chan tables     // receives the result of the read in progress; nil if there is none
	slow    bool            // the last read took longer than wait
}

// update reads the files if a uid is new or the files are due again, and takes over the result
// of a read. It reports whether anything has changed.
func (f *files) update(ctx context.Context, uids map[uint32]bool, now time.Time) (changed bool) {
	if f.reading != nil {
		changed = f.receive(ctx, 0, now)
	}
	if f.reading != nil || containsAll(f.asked, uids) && now.Before(f.due) {
		return changed
	}
	f.start(uids, now)
	longest := wait
	if f.slow {
		longest = 0
	}
	return f.receive(ctx, longest, now) || changed
}

// receive waits for the read in progress and takes over its result.
func (f *files) receive(ctx context.Context, longest time.Duration, now time.Time) (changed bool) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	select {
	case t := <-f.reading:
		return f.take(t, now)
	case <-ctx.Done():
	}
	select { // both may have been ready
	case t := <-f.reading:
		return f.take(t, now)
	default:
		return false
	}
}

func (f *files) start(uids map[uint32]bool, now time.Time) {
	f.asked = maps.Clone(uids)
	f.due = now.Add(f.again)
	result := make(chan tables, 1)
	f.reading = result
	go func(uids map[uint32]bool) {
		began := time.Now()
		t := f.read(uids)
		t.slow = time.Since(began) > wait
		result <- t
	}(maps.Clone(uids))
}

// take takes over the result of a read. If a file could not be read, its old content stays.
func (f *files) take(t tables, now time.Time) (changed bool) {
	f.reading, f.err, f.slow = nil, t.err, t.slow
	if t.err != nil {
		f.due = now.Add(min(retry, f.again))
	}
	if t.names != nil || t.absent {
		f.looked = f.asked
	}
	if t.names != nil && !maps.Equal(f.names, t.names) {
		f.names, changed = t.names, true
	}
	if !t.noSubs && !slices.Equal(f.ranges, t.ranges) {
		f.ranges, changed = t.ranges, true
		f.longest = f.longest[:0]
		last := uint32(0)
		for _, r := range f.ranges {
			last = max(last, r.last)
			f.longest = append(f.longest, last)
		}
	}
	return changed
}

// rangeOf returns the range of subordinate uids that contains a uid, or nil. If there are
// several, it returns the one with the highest first uid, and of those the last in the file.
func (f *files) rangeOf(uid uint32) *uidRange {
	i := sort.Search(len(f.ranges), func(i int) bool { return f.ranges[i].first > uid }) - 1
	for ; i >= 0 && f.longest[i] >= uid; i-- {
		if f.ranges[i].last >= uid {
			return &f.ranges[i]
		}
	}
	return nil
}

// close waits briefly for the read in progress. A read that hangs cannot be stopped.
func (f *files) close() {
	if f.reading == nil {
		return
	}
	select {
	case <-f.reading:
	case <-time.After(wait):
	}
	f.reading = nil
}

func containsAll(set, keys map[uint32]bool) bool {
	for key := range keys {
		if !set[key] {
			return false
		}
	}
	return true
}
