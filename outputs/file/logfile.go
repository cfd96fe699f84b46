package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"strconv"

	"sockwatch/outputs/internal/lines"
)

// A logFile is a file of whole lines that others may rename, remove or truncate,
// and that it renames itself when it has grown. gopkg.in/natefinch/lumberjack.v2
// was weighed for this and does not fit: it follows symbolic links, goes on
// writing to a file that logrotate has renamed, leaves half a line behind on a
// full disk, counts in whole megabytes, and never ends the goroutine it starts.
type logFile struct {
	log     *slog.Logger
	options *Options // of the last write

	file    *os.File // nil: not open
	regular bool     // it is a regular file, not a FIFO or device
	torn    bool     // its last line is half written and could not be cut off
	stuck   bool     // it cannot be rotated, which was logged
}

// pipeBytes is what a FIFO takes in one piece or not at all: PIPE_BUF of pipe(7).
const pipeBytes = 4096

// write appends whole lines, or the rest of the line that it tore last and whole
// lines. It returns how many bytes are in the file; on an error they end with a
// line too, unless what is behind that could not be cut off. All options are of the
// same path.
func (l *logFile) write(o *Options, b []byte) (written int, err error) {
	l.options = o
	for written < len(b) && err == nil {
		var n int
		n, err = l.writeSome(b[written:])
		written += n
	}
	return written, err
}

// writeSome writes as many lines of b as go into one file at once.
func (l *logFile) writeSome(b []byte) (int, error) {
	room := 0 // one line: the rest of a torn one goes where its beginning is
	if !l.torn {
		var err error
		if room, err = l.ready(lines.Cut(b, 0)); err != nil {
			return 0, err
		}
	}
	n, err := lines.Write(l.file, b[:lines.Cut(b, room)])
	if n == 0 {
		return 0, err
	}
	whole := bytes.LastIndexByte(b[:n], '\n') + 1
	if n > whole && !l.torn && l.regular && l.cut(n-whole) == nil {
		n = whole
	}
	l.torn = n > whole
	return n, err
}

// cut cuts n bytes off the end of the file.
func (l *logFile) cut(n int) error {
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	return l.file.Truncate(max(0, info.Size()-int64(n)))
}

// ready opens the file if it is not open, was renamed or removed, or has no room for a
// line of that length. It returns how
// many bytes may be written now.
func (l *logFile) ready(line int) (room int, err error) {
	if l.file != nil && l.moved() {
		l.close()
	}
	if l.file == nil {
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	if !l.regular {
		return pipeBytes, nil
	}
	limit := int64(l.options.RotationMaxSize)
	if limit == 0 {
		return lines.MaxBytes, nil
	}
	info, err := l.file.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	if size > 0 && size+int64(line) > limit {
		if err := l.rotate(); err != nil {
			if !l.stuck {
				l.log.Warn("the file cannot be rotated and goes on growing", "error", err)
			}
			l.stuck = true
			return lines.MaxBytes, nil
		}
		l.stuck = false
		l.close()
		return l.ready(line)
	}
	return int(min(limit-size, lines.MaxBytes)), nil
}

// moved reports whether the path leads to another file than the open one,
// or to none: logrotate has renamed it, before it signals or without.
func (l *logFile) moved() bool {
	there, err := os.Lstat(l.options.Path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	open, err := l.file.Stat()
	return err == nil && !os.SameFile(there, open)
}

func (l *logFile) open() error {
	path := l.options.Path
	flags := os.O_RDWR | os.O_APPEND | os.O_CREATE | noFollow | nonBlock
	there, err := os.Lstat(path)
	if err == nil {
		if there.Mode()&fs.ModeSymlink != 0 {
			return fmt.Errorf("%q is a symbolic link, which is not followed", path)
		}
		if !there.Mode().IsRegular() { // opened for reading too, a FIFO would always have a reader
			flags = os.O_WRONLY | os.O_APPEND | nonBlock | noTerminal
		}
	}
	f, err := os.OpenFile(path, flags, 0o640)
	if err != nil {
		if there != nil && there.Mode()&fs.ModeNamedPipe != 0 && errors.Is(err, errNoReader) {
			return fmt.Errorf("%q is a FIFO that nobody reads: %w", path, err)
		}
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = l.endLastLine(f, info.Size())
	}
	if err != nil {
		f.Close()
		return err
	}
	l.file, l.regular = f, info.Mode().IsRegular()
	return nil
}

// maxHalfLine is how far from the end of what was written to a file its last newline
// is looked for.
const maxHalfLine = 64 << 10

// endLastLine sees to it that a file ends with a newline. What follows its last one
// is cut off if it is half a record of ours, or zeros, which are blocks that were
// allocated and never written: the end of the program or of the host has left them. If
// it may be anything else, or the file may only grow (chattr +a), the line is ended.
func (l *logFile) endLastLine(f *os.File, size int64) error {
	end, err := trimZeros(f, size)
	if err != nil {
		return err
	}
	tail := make([]byte, min(end, maxHalfLine))
	if _, err := f.ReadAt(tail, end-int64(len(tail))); err != nil {
		return err
	}
	whole := bytes.LastIndexByte(tail, '\n') + 1
	if whole == 0 && end > maxHalfLine {
		return fmt.Errorf("%q is not a file of lines: none ends in its last %d bytes", f.Name(), maxHalfLine)
	}
	last := tail[whole:]
	kind := classifyLine(l.options.DataFormat, tail[:whole], last)
	switch kind {
	case halfRecord:
		end -= int64(len(last))
	case foreign:
		end = size
	}
	ended := kind == nothing || kind == halfRecord
	if end < size {
		err := f.Truncate(end)
		switch {
		case err == nil:
			event := "removed zero bytes at the end of the file"
			if kind == halfRecord {
				event = "cut off half a line at the end of the file"
			}
			l.log.Warn(event, "file", f.Name(), "bytes", size-end)
		case errors.Is(err, fs.ErrPermission):
			ended = false
		default:
			return err
		}
	}
	if ended {
		return nil
	}
	_, err = lines.Write(f, []byte{'\n'})
	return err
}

// trimZeros returns the size of a file without the zeros at its end.
func trimZeros(f *os.File, size int64) (int64, error) {
	block := make([]byte, min(size, maxHalfLine))
	for size > 0 {
		b := block[:min(size, int64(len(block)))]
		if _, err := f.ReadAt(b, size-int64(len(b))); err != nil {
			return 0, err
		}
		n := len(bytes.TrimRight(b, "\x00"))
		size -= int64(len(b) - n)
		if n > 0 {
			break
		}
	}
	return size, nil
}

// The kinds of what follows the last newline of a file.
const (
	nothing    = iota
	record     // a whole one of ours, without its newline
	halfRecord // the beginning of one
	foreign    // it may be anything
)

var (
	jsonBegin = []byte(`{"name":"`)               // of every record
	influxEnd = regexp.MustCompile(` [0-9]{19}$`) // of every record: its time
)

// classifyLine returns the kind of the last line of a file, which does not have its
// newline. A record of line protocol may begin like any text: there, the line before
// must be one.
func classifyLine(dataFormat string, before, last []byte) int {
	if len(last) == 0 {
		return nothing
	}
	ours := influxEnd.Match(bytes.TrimSuffix(before, []byte{'\n'}))
	whole := influxEnd.Match(last)
	if dataFormat == "json" {
		n := min(len(last), len(jsonBegin))
		ours, whole = bytes.Equal(last[:n], jsonBegin[:n]), json.Valid(last)
	}
	switch {
	case !ours:
		return foreign
	case whole:
		return record
	default:
		return halfRecord
	}
}

// rotate renames the file and its archives: PATH to PATH.1, PATH.1 to PATH.2, and
// so on; the last one makes room.
func (l *logFile) rotate() error {
	keep := l.options.RotationMaxArchives
	if keep == 0 {
		return os.Remove(l.options.Path)
	}
	archive := func(n int) string {
		if n == 0 {
			return l.options.Path
		}
		return l.options.Path + "." + strconv.Itoa(n)
	}
	for n := keep; n > 0; n-- {
		if err := os.Rename(archive(n-1), archive(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// close closes the file. The kernel has what was written: there is nothing to lose.
func (l *logFile) close() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
