package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sockwatch/agent/config"
)

// An includer reads the files that a configuration includes, such as rule files. A stalled
// mount blocks only its goroutine, and at most one.
type includer struct {
	timeout time.Duration // for all files of a configuration
	busy    chan struct{} // holds a token during a read
	skip    bool          // nothing is read: every file counts as one without a table
}

func newIncluder(timeout time.Duration) *includer {
	return &includer{timeout: timeout, busy: make(chan struct{}, 1)}
}

// lend sets the functions of a host that read files. They return early when ctx ends.
func (i *includer) lend(ctx context.Context, host *config.Host) {
	if i.skip {
		host.Glob = func(string) ([]string, error) { return nil, nil }
		host.ReadFile = func(string) (config.File, error) { return config.File{Text: "# not read\n"}, nil }
		return
	}
	host.Glob = func(pattern string) ([]string, error) {
		return includeWithin(ctx, i, func() ([]string, error) { return globFiles(pattern) })
	}
	host.ReadFile = func(path string) (config.File, error) {
		return includeWithin(ctx, i, func() (config.File, error) { return readRegular(path) })
	}
}

func includeWithin[T any](ctx context.Context, i *includer, read func() (T, error)) (T, error) {
	got, err := within(ctx, i.busy, read)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = notRead(err, i.timeout)
	}
	return got, err
}

// globFiles returns the paths that a pattern matches, sorted; those of hidden files only
// if the pattern begins with a dot, too. A directory that cannot be read is an error: its
// files are not absent.
func globFiles(pattern string) ([]string, error) {
	dir, name := filepath.Split(pattern)
	if _, err := filepath.Match(pattern, ""); err != nil {
		return nil, err
	}
	dirs := []string{dir}
	if strings.ContainsAny(dir, `*?[\`) {
		var err error
		if dirs, err = filepath.Glob(filepath.Clean(dir)); err != nil {
			return nil, err
		}
	}
	var paths []string
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !absent(filepath.Clean(dir), err) {
			return nil, err
		}
		for _, e := range entries {
			hidden := strings.HasPrefix(e.Name(), ".") && !strings.HasPrefix(name, ".")
			if matches, _ := filepath.Match(name, e.Name()); matches && !hidden {
				paths = append(paths, filepath.Join(dir, e.Name()))
			}
		}
	}
	return paths, nil
}

// readRegular reads a regular file. It does not wait for the writer of a pipe.
func readRegular(path string) (config.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return config.File{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return config.File{}, err
	case info.IsDir():
		return config.File{}, errors.New(`is a directory: write "` + strings.TrimSuffix(path, "/") + `/*.toml"`)
	case !info.Mode().IsRegular():
		return config.File{}, errors.New("is not a regular file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(text) > maxConfig {
		err = errors.New("is larger than 1MiB")
	}
	return config.File{Name: path, Text: string(text), Shared: info.Mode().Perm()&0o004 != 0}, err
}
