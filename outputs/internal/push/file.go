package push

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// A file is a small regular file that may be replaced while the program runs. Each read
// has its own goroutine, because the file's mount may hang. Methods must not be called
// concurrently.
type file struct {
	option string // the option that names the file, for errors
	path   string
	open   func() (fileContent, error)
	// pending receives the result of a read that did not return in time, or is nil. A
	// read that hangs cannot be canceled, so no second one is started.
	pending chan fileResult
}

type fileContent struct {
	data []byte
	mode fs.FileMode
}

type fileResult struct {
	content fileContent
	err     error
}

// newFile returns the file of an option. More than limit bytes are an error.
func newFile(option, path string, limit int64) *file {
	return &file{option: option, path: path, open: func() (fileContent, error) { return readRegular(path, limit) }}
}

// readTimeout is longer than reading from a local disk ever takes.
const readTimeout = 5 * time.Second

// read returns the current content of the file. It gives up after readTimeout or when ctx
// is done. Errors name the option and the file.
func (f *file) read(ctx context.Context) (fileContent, error) {
	select {
	case <-f.pending: // this result is old: read again
		f.pending = nil
	default:
	}
	if f.pending == nil {
		results := make(chan fileResult, 1)
		f.pending = results
		go func() {
			content, err := f.open()
			results <- fileResult{content, err}
		}()
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	select {
	case r := <-f.pending:
		f.pending = nil
		if r.err != nil {
			return fileContent{}, fmt.Errorf("%s: %w", f.option, r.err)
		}
		return r.content, nil
	case <-ctx.Done():
		return fileContent{}, fmt.Errorf("%s: reading %q took too long: %w", f.option, f.path, ctx.Err())
	}
}

// readRegular reads a regular file, or a link to one. Anything else, such as a FIFO without
// a writer, is an error and is not waited for.
func readRegular(path string, limit int64) (fileContent, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fileContent{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fileContent{}, err
	}
	if !info.Mode().IsRegular() {
		return fileContent{}, fmt.Errorf("%q is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return fileContent{}, err
	}
	if int64(len(data)) > limit {
		return fileContent{}, fmt.Errorf("%q is larger than %d bytes", path, limit)
	}
	return fileContent{data, info.Mode()}, nil
}
