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

// A logFile is a file of whole lines. Others may rename, remove or truncate it, and it
// rotates itself by size. gopkg.in/natefinch/lumberjack.v2 does not fit: it follows
// symbolic links, keeps writing to a file that logrotate has renamed, leaves half a line
// on a full disk, counts in whole megabytes, and never ends the goroutine that it starts.
type logFile struct {
	log     *slog.Logger
	options *Options // of the last write

	file    *os.File // nil: not open
	regular bool     // it is a regular file, not a FIFO or device
	torn    bool     // its last line is incomplete and could not be cut off
	stuck   bool     // it cannot be rotated, and this was logged
}

// pipeBytes is the size up to which a FIFO accepts a write as a whole or not at all:
// PIPE_BUF in pipe(7).
const pipeBytes = 4096

// write appends whole lines. If the last write left an incomplete line, b begins with the
// rest of that. write returns how many bytes of b are in the file. Even after an error they
// end with a whole line, unless an incomplete one could not be cut off. The path is the same
// in every call.
func (l *logFile) write(o *Options, b []byte) (written int, err error) {
	l.options = o
	for written < len(b) && err == nil {
		var n int
		n, err = l.writeSome(b[written:])
		written += n
	}
	return written, err
}

// writeSome writes as many lines of b as fit into the current file.
func (l *logFile) writeSome(b []byte) (int, error) {
	room := 0 // only one line: the rest of a torn line must follow its beginning
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

// ready opens the file if it is not open or was renamed or removed, and rotates it if it
// has no room for a line of the given length. It returns how many bytes may be written now.
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
				l.log.Warn("cannot rotate the file, it keeps growing", "error", err)
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

// moved reports whether the open file is no longer at its path: logrotate has renamed it,
// or something has removed it.
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
			return fmt.Errorf("%q is a symbolic link, and links are not followed", path)
		}
		if !there.Mode().IsRegular() { // write only: a FIFO that is also open for reading would be its own reader
			flags = os.O_WRONLY | os.O_APPEND | nonBlock | noTerminal
		}
	}
	f, err := os.OpenFile(path, flags, 0o640)
	if err != nil {
		if there != nil && there.Mode()&fs.ModeNamedPipe != 0 && errors.Is(err, errNoReader) {
			return fmt.Errorf("%q is a FIFO without a reader: %w", path, err)
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

// maxHalfLine is how much of the end of a file is searched for its last newline.
const maxHalfLine = 64 << 10

// endLastLine makes a file end with a newline. After a crash, its last newline may be
// followed by half a record, or by zeros in blocks that were allocated but never written:
// both are cut off. Any other text is kept, and gets a newline. So does half a record if
// the file is append-only (chattr +a).
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
		return fmt.Errorf("%q is not a file of lines: no newline in its last %d bytes", f.Name(), maxHalfLine)
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
			event := "removed zero bytes from the end of the file"
			if kind == halfRecord {
				event = "removed half a line from the end of the file"
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

// What follows the last newline of a file.
const (
	nothing    = iota
	record     // a whole record of ours, without its newline
	halfRecord // the beginning of a record of ours
	foreign    // any other text
)

var (
	jsonBegin = []byte(`{"name":"`)               // how every JSON record begins
	influxEnd = regexp.MustCompile(` [0-9]{19}$`) // how every line protocol record ends: with its time
)

// classifyLine returns what the text after the last newline of a file is. A line protocol
// record can begin like any text, so the line before it must be a record too.
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

// rotate renames the file and its archives: PATH to PATH.1, PATH.1 to PATH.2, and so on.
// The last one is overwritten.
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

// close closes the file. Nothing can be lost, since the kernel has everything written.
func (l *logFile) close() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
