package buffer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unicode/utf8"
)

// DeadLetters is the dead-letter file of one output: its rejected records with the
// reasons, one JSON object per line. The zero value saves nothing. Its methods may be
// called concurrently.
type DeadLetters struct {
	path string
	mu   sync.Mutex
}

// maxDeadLetters is the size at which the file is rotated.
const maxDeadLetters = 16 << 20

// NewDeadLetters returns the dead-letter file at path. Add creates it, and its directory
// as MakeDirectory does. With an empty path nothing is saved.
func NewDeadLetters(path string) *DeadLetters { return &DeadLetters{path: path} }

// Path returns the path of the file, or "" if rejected records are not saved.
func (d *DeadLetters) Path() string { return d.path }

// A DeadLetter is a rejected record and the reason.
type DeadLetter struct {
	Record []byte
	Reason error
}

// deadLetterLine is the JSON of a DeadLetter. A record that is not UTF-8 is in base64.
type deadLetterLine struct {
	Time   time.Time `json:"time"`
	Error  string    `json:"error"`
	Record string    `json:"record,omitempty"`
	Binary []byte    `json:"record_base64,omitempty"`
}

// Add appends entries and syncs them, so that they can leave the queue. On an error the
// file is unchanged. If something else has taken the file's place, Add returns an error
// and renames it, unless it is a directory; the next Add creates the file again.
func (d *DeadLetters) Add(entries []DeadLetter) error {
	if d.path == "" || len(entries) == 0 {
		return nil
	}
	lines, err := appendDeadLetters(nil, entries, time.Now().UTC())
	if err != nil {
		return fmt.Errorf("dead-letter entry: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lockedAdd(lines)
}

func (d *DeadLetters) lockedAdd(lines []byte) error {
	dir, err := makeAgain(filepath.Dir(d.path))
	if err != nil {
		return err
	}
	defer dir.Close() // only opened to create and sync
	f, err := d.open(dir, int64(len(lines)))
	if err != nil {
		return err
	}
	err = appendLines(f, lines, dir)
	return errors.Join(err, f.Close())
}

// open opens the file to append n bytes. It rotates a file that would become too large.
func (d *DeadLetters) open(dir *os.File, n int64) (*os.File, error) {
	name := filepath.Base(d.path)
	f, err := openRegular(dir, name, os.O_RDWR|os.O_APPEND|os.O_CREATE)
	if errors.Is(err, errNotRegular) {
		return nil, setAside(d.path, err)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (info.Size() == 0 || info.Size()+n <= maxDeadLetters) {
		return f, nil
	}
	if err == nil {
		err = os.Rename(d.path, d.path+".1")
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return openRegular(dir, name, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL)
}

// appendLines appends lines to a file, and syncs the file and its directory. On an error
// it removes them again.
func appendLines(f *os.File, lines []byte, dir syncer) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if torn, err := endsTorn(f, info.Size()); err != nil {
		return err
	} else if torn {
		lines = append([]byte{'\n'}, lines...)
	}
	_, err = f.Write(lines)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = syncDirectory(dir)
	}
	if err != nil {
		f.Truncate(info.Size()) // if this fails, a line may be torn; the next Add terminates it
	}
	return err
}

// endsTorn reports whether the file ends in the middle of a line, after a full disk or a
// crash.
func endsTorn(f *os.File, size int64) (bool, error) {
	if size == 0 {
		return false, nil
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], size-1); err != nil {
		return false, err
	}
	return last[0] != '\n', nil
}

func appendDeadLetters(dst []byte, entries []DeadLetter, now time.Time) ([]byte, error) {
	for _, e := range entries {
		line := deadLetterLine{Time: now, Error: e.Reason.Error(), Record: string(e.Record)}
		if !utf8.Valid(e.Record) {
			line.Record, line.Binary = "", e.Record
		}
		b, err := json.Marshal(line)
		if err != nil {
			return dst, err
		}
		dst = append(append(dst, b...), '\n')
	}
	return dst, nil
}
