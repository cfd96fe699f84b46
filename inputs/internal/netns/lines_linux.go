package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// errTooLarge says that a file of /proc is longer than lineReader.most.
var errTooLarge = errors.New("file is too large")

// A lineReader reads a file of /proc/PID/net line by line.
type lineReader struct {
	file  *os.File
	piece int   // how much to read at once; the kernel returns at most a page
	most  int64 // how much to read in all; 0: no limit
}

// read calls visit for each line, without its end, until visit returns false.
func (r lineReader) read(ctx context.Context, visit func(line []byte) (more bool, err error)) error {
	err := r.readAll(ctx, visit)
	if pathErr := (*os.PathError)(nil); err != nil && !errors.As(err, &pathErr) {
		return fmt.Errorf("read %s: %w", r.file.Name(), err)
	}
	return err
}

func (r lineReader) readAll(ctx context.Context, visit func(line []byte) (more bool, err error)) error {
	buf := make([]byte, 16<<10)
	rest, total := 0, int64(0)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := r.file.Read(buf[rest:min(rest+r.piece, len(buf))])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == io.EOF && rest > 0 {
			return errors.New("the last line is incomplete")
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if total += int64(n); r.most > 0 && total > r.most {
			return errTooLarge
		}
		text := buf[:rest+n]
		for {
			line, after, whole := bytes.Cut(text, []byte{'\n'})
			if !whole {
				break
			}
			text = after
			if more, err := visit(line); err != nil || !more {
				return err
			}
		}
		if rest = copy(buf, text); rest == len(buf) {
			return fmt.Errorf("line of more than %d bytes", rest)
		}
	}
}
