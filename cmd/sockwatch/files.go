package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"sockwatch"
	"sockwatch/agent/config"
)

// systemDir is the default directory of the configuration: sockwatch.toml, then
// sockwatch.d/*.toml.
const systemDir = "/etc/sockwatch"

// A source is where the configuration comes from. It is chosen at the start. A reload
// reads the same files again: if one is missing, that is an error, not a reason to fall
// back to another source.
type source struct {
	prefix      string   // for errors
	files       []string // read in this order
	directories []string // whose *.toml are read next, sorted
	optional    bool     // files and directories that do not exist are skipped
	builtIn     string   // the configuration if none exists; "": that is an error

	required map[string]bool // optional paths that must exist now, since an adopted configuration used them
}

// newSource chooses the source: the paths in the flags, else $SOCKWATCH_CONFIG, else the
// files in systemDir or, if there are none, the built-in configuration.
func newSource(f configFlags, getenv func(string) (string, bool)) *source {
	fromEnv, _ := getenv("SOCKWATCH_CONFIG")
	switch {
	case len(f.Config)+len(f.ConfigDirectory) > 0:
		return &source{files: texts(f.Config), directories: texts(f.ConfigDirectory)}
	case fromEnv != "":
		return &source{prefix: "$SOCKWATCH_CONFIG: ", files: []string{fromEnv}}
	default:
		return systemSource(systemDir)
	}
}

func texts(paths []configPath) []string {
	all := make([]string, len(paths))
	for i, p := range paths {
		all[i] = string(p)
	}
	return all
}

func systemSource(dir string) *source {
	return &source{
		files:       []string{filepath.Join(dir, "sockwatch.toml")},
		directories: []string{filepath.Join(dir, "sockwatch.d")},
		optional:    true, builtIn: sockwatch.ExampleConfig,
	}
}

// adopted records that a configuration of these files is in force. From now on they must
// exist.
func (s *source) adopted(files []config.File) {
	if !s.optional || files[0].Name == builtInName {
		return
	}
	s.builtIn = ""
	s.required = map[string]bool{}
	for _, f := range files {
		for _, path := range s.files {
			s.required[path] = s.required[path] || f.Name == path
		}
		for _, dir := range s.directories {
			s.required[dir] = s.required[dir] || filepath.Dir(f.Name) == dir
		}
	}
}

const builtInName = "built-in configuration"

// read reads all files, and joins the errors of all that it cannot read. It calls visit
// with each path before it touches the path.
func (s *source) read(visit func(path string)) ([]config.File, error) {
	var files []config.File
	var errs []error
	fail := func(err error) { errs = append(errs, fmt.Errorf("%s%w", s.prefix, err)) }
	add := func(path string, optional bool) {
		visit(path)
		f, err := readConfig(path)
		switch {
		case err == nil:
			files = append(files, f)
		case !optional || !absent(path, err):
			fail(err)
		}
	}
	for _, path := range s.files {
		add(path, s.optional && !s.required[path])
	}
	for _, dir := range s.directories {
		visit(dir)
		entries, err := os.ReadDir(dir)
		if err != nil && (!s.optional || s.required[dir] || !absent(dir, err)) {
			fail(err)
		}
		for _, e := range entries {
			if name := e.Name(); strings.HasSuffix(name, ".toml") && !strings.HasPrefix(name, ".") {
				add(filepath.Join(dir, name), false)
			}
		}
	}
	if s.optional && errors.Is(errors.Join(errs...), fs.ErrPermission) {
		errs = append(errs, errors.New("run as root, or as a member of the group that owns the configuration, or pass another one with --config"))
	}
	switch {
	case len(files)+len(errs) > 0:
		return files, errors.Join(errs...)
	case s.builtIn != "":
		return []config.File{{Name: builtInName, Text: s.builtIn}}, nil
	default:
		fail(fmt.Errorf("%s: no *.toml files", strings.Join(slices.Concat(s.files, s.directories), ", ")))
		return nil, errors.Join(errs...)
	}
}

// absent reports whether err says that a path does not exist. It reports false for a
// dangling symbolic link in the path, which is a mistake.
func absent(path string, err error) bool {
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	for ; path != filepath.Dir(path); path = filepath.Dir(path) {
		if _, err := os.Lstat(path); err == nil {
			_, err := os.Stat(path)
			return err == nil
		}
	}
	return true
}

// maxConfig is far more than any configuration needs.
const maxConfig = 1 << 20

// readConfig reads one file, or a pipe.
func readConfig(path string) (config.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return config.File{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return config.File{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	switch {
	case errors.Is(err, syscall.EISDIR):
		err = fmt.Errorf("%w: use --config-directory to read every *.toml in it", err)
	case err == nil && len(text) > maxConfig:
		err = fmt.Errorf("%s: is larger than 1MiB", path)
	}
	return config.File{Name: path, Text: string(text), Shared: info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0}, err
}

// A sourceReader reads a source with a deadline: a FIFO without a writer or a stalled
// mount blocks only its goroutine. There is at most one read at a time.
type sourceReader struct {
	source   *source
	timeout  time.Duration
	includer *includer

	busy chan struct{} // holds a token during a read

	mu   sync.Mutex
	path string // being read
}

// readTimeout is the time limit for reading a configuration.
const readTimeout = 10 * time.Second

func newSourceReader(s *source, timeout time.Duration) *sourceReader {
	return &sourceReader{source: s, timeout: timeout, includer: newIncluder(timeout), busy: make(chan struct{}, 1)}
}

// read returns the files of the source. It returns early if ctx ends.
func (r *sourceReader) read(ctx context.Context) ([]config.File, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	files, err := within(ctx, r.busy, func() ([]config.File, error) { return r.source.read(r.visit) })
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return nil, fmt.Errorf("%s%s: %w", r.source.prefix, r.path, notRead(err, r.timeout))
	}
	return files, err
}

// within calls read, and returns ctx.Err() if ctx ends before read does. It leaves the
// token in busy until read has returned: however often it is called, one call hangs at most.
func within[T any](ctx context.Context, busy chan struct{}, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	select {
	case busy <- struct{}{}:
		go func() {
			value, err := read()
			done <- result{value, err}
			<-busy
		}()
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
	select {
	case got := <-done:
		return got.value, got.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// notRead says why a file was not read before its context ended.
func notRead(err error, timeout time.Duration) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("not read within %v: a stalled mount, or a pipe that nobody writes to?", timeout)
	}
	return fmt.Errorf("not read: %w", err)
}

func (r *sourceReader) visit(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.path = path
}
