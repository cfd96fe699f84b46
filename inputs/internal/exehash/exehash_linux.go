// Package exehash computes the SHA-256 sums of the executables of processes. It does so in the
// background, because a file may be large, or on a file system that hangs.
package exehash

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/lookup"
	"sockwatch/inputs/internal/procfs"
)

// MaxSize is the size in bytes of the largest executable that is read.
const MaxSize = 100 << 20

// A Process identifies a process that runs a program. Start, in ticks since boot, distinguishes
// it from other processes that had the same pid. Exe, the path of the program or "",
// distinguishes the programs that it executes one after the other.
type Process struct {
	PID   int
	Start uint64
	Exe   string
}

// Sums holds the sums of the executables of processes. A file that several processes run
// is read once. Update and Close must not be called concurrently.
type Sums struct {
	proc  string
	cache *lookup.Cache[Process]

	reads chan struct{} // holds a token for each read that has not returned

	mu    sync.Mutex
	files map[fileID]string
}

// maxReads limits how many goroutines can hang on file systems.
const maxReads = 4

var errHung = errors.New("earlier reads hang")

// A fileID identifies a file. It changes when the content of the file changes.
type fileID struct {
	dev, ino       uint64
	size           int64
	modified, meta unix.Timespec
}

// maxFiles limits how many sums are cached.
const maxFiles = 10_000

// New returns the Sums for the procfs that is mounted at proc. again is how often all executables
// are looked at again: a process can execute another file with the same path. The content is
// read only if the file is another one.
func New(proc string, again time.Duration) *Sums {
	s := &Sums{proc: proc, reads: make(chan struct{}, maxReads), files: make(map[fileID]string)}
	s.cache = lookup.New(s.read, lookup.Options{
		Workers: 1, Timeout: time.Minute, Wait: 500 * time.Millisecond, Again: again, Retry: 10 * time.Minute,
	})
	return s
}

// Update starts to read the executables of those processes that are not known yet, and waits
// briefly for the sums. It forgets all processes that are not listed.
func (s *Sums) Update(ctx context.Context, processes map[Process]bool, now time.Time) {
	s.cache.Update(ctx, processes, now)
}

// Sum returns the sum of the executable of a process in hexadecimal. It returns "" if the sum
// is not known (yet), or the executable is larger than MaxSize.
func (s *Sums) Sum(p Process) string { return s.cache.Name(p) }

// Close stops reading.
func (s *Sums) Close() { s.cache.Close() }

// read returns the sum of the executable of a process. It returns when ctx ends. If the file
// system hangs, the reading goroutine stays behind.
func (s *Sums) read(ctx context.Context, p Process) (string, error) {
	type answer struct {
		sum string
		err error
	}
	select {
	case s.reads <- struct{}{}:
	default:
		return "", errHung
	}
	answered := make(chan answer, 1)
	go func() {
		defer func() { <-s.reads }()
		sum, err := s.sum(ctx, p)
		answered <- answer{sum, err}
	}()
	select {
	case a := <-answered:
		return a.sum, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (s *Sums) sum(ctx context.Context, p Process) (string, error) {
	// The link refers to the file that is running, even if it has been deleted.
	file, err := os.OpenFile(s.proc+"/"+strconv.Itoa(p.PID)+"/exe", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if err := s.verify(p); err != nil {
		return "", err
	}
	before, err := identify(file)
	if err != nil || before.size > MaxSize {
		return "", err
	}
	s.mu.Lock()
	sum := s.files[before]
	s.mu.Unlock()
	if sum != "" {
		return sum, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, untilDone{ctx, io.LimitReader(file, MaxSize)}); err != nil {
		return "", err
	}
	if after, err := identify(file); err != nil || after != before {
		return "", fmt.Errorf("%s: changed while it was read", file.Name())
	}
	sum = hex.EncodeToString(h.Sum(nil))
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.files) >= maxFiles {
		clear(s.files)
	}
	s.files[before] = sum
	return sum, nil
}

// verify returns an error if the pid now belongs to another process.
func (s *Sums) verify(p Process) error {
	text, err := os.ReadFile(s.proc + "/" + strconv.Itoa(p.PID) + "/stat")
	if err != nil {
		return err
	}
	st, err := procfs.ParseStat(text)
	if err == nil && st.Start != p.Start {
		err = procfs.ErrExited
	}
	return err
}

func identify(file *os.File) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return fileID{}, &os.PathError{Op: "stat", Path: file.Name(), Err: err}
	}
	return fileID{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}, nil
}

// An untilDone is a Reader that fails when its context is done.
type untilDone struct {
	ctx context.Context
	io.Reader
}

func (r untilDone) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
