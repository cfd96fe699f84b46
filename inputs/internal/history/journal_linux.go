package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A journal is the file of a Store. It is used by one goroutine at a time. Tests inject
// faults here.
type journal interface {
	// whole reports whether the next line must contain a snapshot.
	whole() bool
	// write makes a line durable. After an error the file is unchanged, as far as the disk
	// allows.
	write(l line) error
	// close closes the file. A later write opens it again.
	close()
}

// A journalFile is a journal on disk. It is locked while it is open, because no other process
// and no abandoned input may write to it. The whole file is replaced when its size has
// doubled, and after each fault.
type journalFile struct {
	path string
	log  *slog.Logger

	file  *os.File    // nil: closed
	ours  os.FileInfo // our most recent file; nil: none
	size  int64       // of the file; 0: it must be replaced
	limit int64       // the size at which it is replaced
}

// minLimit is the size below which the file is not replaced.
const minLimit = 64 << 10

var errInUse = errors.New("is in use by another process")

// newJournal returns a journal that replaces an existing file.
func newJournal(path string, log *slog.Logger) *journalFile {
	return &journalFile{path: path, log: log}
}

// openJournal reads the history in a file. If there is none, the content is nil. An
// unreadable file is set aside, and the error says so. The journal can be used in spite of
// the error, unless that is errInUse.
func openJournal(path string, log *slog.Logger) (*journalFile, *content, error) {
	j := newJournal(path, log)
	err := j.open()
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil, nil
	}
	if errors.Is(err, errInUse) {
		return nil, nil, err
	}
	var c *content
	if err == nil {
		c, err = read(j.file)
	}
	if err != nil {
		j.close()
		j.ours = nil
		aside, renamed := setAside(path, "damaged")
		if renamed != nil {
			return j, nil, fmt.Errorf("%s: %w; %w", path, err, renamed)
		}
		return j, nil, fmt.Errorf("%s: %w; renamed to %s", path, err, aside)
	}
	return j, c, nil
}

// open opens and locks the file at the path.
func (j *journalFile) open() error {
	for {
		f, err := openRegular(j.path)
		if err != nil {
			return err
		}
		if err := lock(f); err != nil {
			return errors.Join(err, f.Close())
		}
		if j.ours, err = f.Stat(); err != nil {
			return errors.Join(err, f.Close())
		}
		if j.file = f; j.isOurs() {
			return nil
		}
		j.close() // it was replaced before it was locked
	}
}

// isOurs reports whether the file at the path is ours.
func (j *journalFile) isOurs() bool {
	info, err := os.Lstat(j.path)
	return err == nil && j.ours != nil && os.SameFile(info, j.ours)
}

func (j *journalFile) whole() bool {
	if j.file != nil && j.size > 0 {
		info, err := j.file.Stat()
		if err == nil && info.Size() == j.size && j.isOurs() {
			return j.size >= j.limit
		}
		j.log.Warn("history removed, replaced or changed by something else, creating it again", "file", j.path)
		j.size = 0
	}
	return true
}

func (j *journalFile) write(l line) error {
	var err error
	if l.Snapshot != nil {
		if err = j.replace(line{Snapshot: l.Snapshot}); err == nil || l.all || j.file == nil || j.size == 0 {
			return err
		}
		j.limit = 2 * j.size // there is no space for two files: continue with this one
		l.Snapshot = nil
	}
	return j.append(l)
}

// append appends a line. On error it truncates the file to its former size.
func (j *journalFile) append(l line) error {
	length, err := writeLine(j.file, j.size, l)
	if err == nil {
		err = j.file.Sync()
	}
	if err == nil {
		j.size += length
		return nil
	}
	if undo := errors.Join(j.file.Truncate(j.size), j.file.Sync()); undo != nil {
		j.size = 0 // the content of the disk is unknown
	}
	return err
}

// replace creates the file again, with one line. If another file has taken its place, that
// file is set aside.
func (j *journalFile) replace(l line) error {
	if err := j.makeRoom(); err != nil {
		return err
	}
	f, err := create(j.path + ".new")
	if err != nil {
		return err
	}
	length, err := j.fill(f, l)
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	if j.file != nil {
		j.file.Close() // it is not read again
	}
	j.file, j.size, j.limit = f, length, max(2*length, minLimit)
	if err := syncDirectory(filepath.Dir(j.path)); err != nil {
		j.size = 0
		return err
	}
	return nil
}

// fill writes a new file and replaces the old one with it. It returns its length.
func (j *journalFile) fill(f *os.File, l line) (length int64, err error) {
	if err := lock(f); err != nil {
		return 0, err
	}
	if length, err = writeLine(f, 0, l); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if err := os.Rename(f.Name(), j.path); err != nil {
		return 0, err
	}
	j.ours = info
	return length, nil
}

// makeRoom sets aside a foreign file at our path, unless another process uses it. A link or
// a pipe is not kept but replaced.
func (j *journalFile) makeRoom() error {
	info, err := os.Lstat(j.path)
	if err != nil || !info.Mode().IsRegular() || j.file != nil && j.isOurs() {
		return nil
	}
	f, err := openRegular(j.path)
	if err == nil {
		err = lock(f)
		f.Close() // only read
	}
	if errors.Is(err, errInUse) {
		return fmt.Errorf("%s %w", j.path, err)
	}
	if j.isOurs() {
		return nil
	}
	aside, err := setAside(j.path, "replaced")
	if err == nil {
		j.log.Warn("a foreign file in place of the history was renamed", "file", j.path, "renamed_to", aside)
	}
	return err
}

func (j *journalFile) close() {
	if j.file != nil {
		j.file.Close() // the data has been synced
	}
	j.file, j.size = nil, 0
}

// create creates a file that must not exist yet. It also creates the directory again if that
// was removed.
func create(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	return f, err
}

// openRegular opens a regular file for reading. It follows no link and waits for no pipe.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("is not a regular file")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// lock locks a file until it is closed. It does nothing if the file system does not support
// locks.
func lock(f *os.File) error {
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == unix.EWOULDBLOCK {
		return errInUse
	}
	return nil
}

// maxAside limits how many files are set aside within one second.
const maxAside = 10

// setAside renames a foreign file at our path, unless it is a directory, which may contain
// somebody's data.
func setAside(path, why string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		return "", errors.New("a directory is left alone")
	}
	base := path + "." + why + "-" + time.Now().UTC().Format("20060102T150405Z")
	aside := base
	for n := 1; n <= maxAside; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			return aside, os.Rename(path, aside)
		}
		aside = fmt.Sprintf("%s.%d", base, n)
	}
	return "", fmt.Errorf("%d files from %s on are in the way: remove them", maxAside, base)
}

// syncDirectory makes the names in a directory durable.
func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close() // nothing is written to it
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// removeAll tries to remove files that are no longer needed.
func removeAll(paths []string) {
	for _, path := range paths {
		os.Remove(path) // no longer read, and the next start tries again
	}
}

// maxFirstSeen limits the size of the previous version's file.
const maxFirstSeen = 64 << 20

// readFirstSeen reads the previous version's file.
func readFirstSeen(path string) (map[string]int64, error) {
	f, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	var c struct {
		Version   int              `json:"version"`
		FirstSeen map[string]int64 `json:"first_seen"`
	}
	if err := json.NewDecoder(io.LimitReader(f, maxFirstSeen)).Decode(&c); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if c.Version != 1 {
		return nil, fmt.Errorf("read %s: version %d, expected 1", path, c.Version)
	}
	return c.FirstSeen, nil
}
