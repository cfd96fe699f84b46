package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
)

// A deadLetterFile keeps the records of one output that its destination or its encoder
// rejected, each with the reason, as one JSON object a line.
type deadLetterFile struct {
	path string // "": they are not kept
	mu   sync.Mutex
}

// maxDeadLetters is the size at which the file becomes the older generation.
const maxDeadLetters = 16 << 20

func newDeadLetters(stateDir, output string) *deadLetterFile {
	if stateDir == "" {
		return &deadLetterFile{}
	}
	return &deadLetterFile{path: filepath.Join(stateDir, output+".rejected.jsonl")}
}

// A deadLetter is one rejected record.
type deadLetter struct {
	record []byte
	reason error
}

// deadLetters returns those of the records for which there is a reason, in order.
func deadLetters(records [][]byte, reasons map[int]error) []deadLetter {
	entries := make([]deadLetter, 0, len(reasons))
	for _, i := range slices.Sorted(maps.Keys(reasons)) {
		entries = append(entries, deadLetter{records[i], reasons[i]})
	}
	return entries
}

// excerpt returns the beginning of the record, for the log.
func (l *deadLetter) excerpt() string { return string(l.record[:min(len(l.record), 300)]) }

// A deadLetterEntry is a line of the file: the record as text, or in base64 if it is
// none.
type deadLetterEntry struct {
	Time   time.Time `json:"time"`
	Error  string    `json:"error"`
	Record string    `json:"record,omitempty"`
	Binary []byte    `json:"record_base64,omitempty"`
}

// add appends entries and syncs them; the records leave the queue thereafter. On an
// error the file is as it was.
func (d *deadLetterFile) add(entries []deadLetter) error {
	if d.path == "" {
		return nil
	}
	var lines []byte
	for _, e := range entries {
		l := deadLetterEntry{Time: time.Now().UTC(), Error: e.reason.Error(), Record: string(e.record)}
		if !utf8.Valid(e.record) {
			l.Record, l.Binary = "", e.record
		}
		line, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("dead-letter entry: %w", err)
		}
		lines = append(append(lines, line...), '\n')
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lockedAppend(lines)
}

func (d *deadLetterFile) lockedAppend(lines []byte) (err error) {
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
	if info.Size() > 0 && info.Size()+int64(len(lines)) > maxDeadLetters {
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
		f.Truncate(info.Size()) // if that fails, a line may be torn: the next one begins on a line of its own
	}
	return err
}

// endsTorn reports whether the file's last line has no end: a full disk or a crash cut
// it.
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
