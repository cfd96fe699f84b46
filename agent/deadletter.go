package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unicode/utf8"
)

// deadLetters keeps the records of one output that its destination or its encoder
// rejected, with the reason, one JSON object a line.
type deadLetters struct {
	path string // "" where they are not kept
	mu   sync.Mutex
}

// maxLetters is the size at which the file becomes the older generation.
const maxLetters = 16 << 20

func newDeadLetters(stateDir, output string) *deadLetters {
	if stateDir == "" {
		return &deadLetters{}
	}
	return &deadLetters{path: filepath.Join(stateDir, output+".rejected.jsonl")}
}

// A letter is one rejected record: as text, or in base64 where it is none.
type letter struct {
	Time   time.Time `json:"time"`
	Error  string    `json:"error"`
	Record string    `json:"record,omitempty"`
	Binary []byte    `json:"record_base64,omitempty"`
}

// add appends records and syncs them; they leave the queue thereafter. On an error
// the file is as it was.
func (d *deadLetters) add(records [][]byte, cause error) error {
	if d.path == "" {
		return nil
	}
	var lines []byte
	for _, r := range records {
		l := letter{Time: time.Now().UTC(), Error: cause.Error(), Record: string(r)}
		if !utf8.Valid(r) {
			l.Record, l.Binary = "", r
		}
		line, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("dead letter: %w", err)
		}
		lines = append(append(lines, line...), '\n')
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lockedAppend(lines)
}

func (d *deadLetters) lockedAppend(lines []byte) (err error) {
	f, err := os.OpenFile(d.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() > 0 && info.Size()+int64(len(lines)) > maxLetters {
		if err := os.Rename(d.path, d.path+".1"); err != nil {
			return err
		}
		return d.lockedAppend(lines)
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
	if err != nil {
		f.Truncate(info.Size()) // where it fails, a line may be torn: the next one begins anew
	}
	return err
}

// endsTorn reports whether the file's last line lacks its end: a full disk or a
// crash cut it.
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
