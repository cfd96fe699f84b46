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

// DeadLetters keeps the records of one output that were rejected, each with the
// reason, one JSON object a line. The zero value keeps none. Its methods may be
// called by several goroutines.
type DeadLetters struct {
	path string
	mu   sync.Mutex
}

// maxDeadLetters is the size at which the file becomes the older generation.
const maxDeadLetters = 16 << 20

// NewDeadLetters returns the dead letters in the file at path, which Add makes; its
// directory as well (see MakeDirectory). "" keeps none.
func NewDeadLetters(path string) *DeadLetters { return &DeadLetters{path: path} }

// Path returns the path of the file; "": rejected records are not kept.
func (d *DeadLetters) Path() string { return d.path }

// A DeadLetter is a record and why it was rejected.
type DeadLetter struct {
	Record []byte
	Reason error
}

// deadLetterLine is the JSON of a dead letter: text as it is, anything else in
// base64.
type deadLetterLine struct {
	Time   time.Time `json:"time"`
	Error  string    `json:"error"`
	Record string    `json:"record,omitempty"`
	Binary []byte    `json:"record_base64,omitempty"`
}

// Add appends records and syncs them, so that they can leave the queue. On an error
// none is kept: the file is as it was. Something else in the place of the file is
// an error once: unless it is a directory, it is renamed, and the next Add makes
// the file again.
func (d *DeadLetters) Add(letters []DeadLetter) error {
	if d.path == "" || len(letters) == 0 {
		return nil
	}
	lines, err := appendDeadLetters(nil, letters, time.Now().UTC())
	if err != nil {
		return fmt.Errorf("dead letter: %w", err)
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
	defer dir.Close() // nothing is written to it
	f, err := d.open(dir, int64(len(lines)))
	if err != nil {
		return err
	}
	err = appendLines(f, lines, dir)
	return errors.Join(err, f.Close())
}

// open opens the file for n bytes more, and a new one if they would be too many.
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

// appendLines appends lines to a file and makes them and its name durable. On an
// error it takes them back.
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
		f.Truncate(info.Size()) // if this fails, a line may be torn: the next Add ends it
	}
	return err
}

// endsTorn reports whether the file ends inside of a line: a full disk or a crash
// cut it off.
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

func appendDeadLetters(dst []byte, letters []DeadLetter, now time.Time) ([]byte, error) {
	for _, l := range letters {
		line := deadLetterLine{Time: now, Error: l.Reason.Error(), Record: string(l.Record)}
		if !utf8.Valid(l.Record) {
			line.Record, line.Binary = "", l.Record
		}
		b, err := json.Marshal(line)
		if err != nil {
			return dst, err
		}
		dst = append(append(dst, b...), '\n')
	}
	return dst, nil
}
