package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"sockwatch"
	"sockwatch/agent/config"
)

// systemConfig is read where nothing else is said.
const systemConfig = "/etc/sockwatch/sockwatch.toml"

// files reads the configuration: what the flags name, or else
// $SOCKWATCH_CONFIG, or else the system's, or else the built-in one.
func (p *program) files(f configFlags) ([]config.File, error) {
	fromEnv, _ := p.getenv("SOCKWATCH_CONFIG")
	switch {
	case len(f.Config)+len(f.ConfigDirectory) > 0:
		return named(f)
	case fromEnv != "":
		files, err := readAll([]string{fromEnv})
		if err != nil {
			err = fmt.Errorf("$SOCKWATCH_CONFIG: %w", err)
		}
		return files, err
	}
	files, err := readAll([]string{systemConfig})
	if errors.Is(err, fs.ErrNotExist) {
		return []config.File{{Name: "built-in configuration", Text: sockwatch.ExampleConfig}}, nil
	}
	return files, err
}

// named reads the files of the flags, and then the directories', sorted.
func named(f configFlags) ([]config.File, error) {
	paths := f.Config
	var errs []error
	for _, dir := range f.ConfigDirectory {
		entries, err := os.ReadDir(dir)
		if err != nil {
			errs = append(errs, err)
		}
		for _, e := range entries {
			if name := e.Name(); strings.HasSuffix(name, ".toml") && !strings.HasPrefix(name, ".") {
				paths = append(paths, filepath.Join(dir, name))
			}
		}
	}
	if len(paths)+len(errs) == 0 {
		return nil, fmt.Errorf("%s: no *.toml in it", strings.Join(f.ConfigDirectory, ", "))
	}
	files, err := readAll(paths)
	return files, errors.Join(append([]error{err}, errs...)...)
}

// readAll reads files; its error joins those of all that cannot be read.
func readAll(paths []string) ([]config.File, error) {
	var files []config.File
	var errs []error
	for _, path := range paths {
		f, err := read(path)
		if errors.Is(err, syscall.EISDIR) {
			err = fmt.Errorf("%w: --config-directory reads every *.toml of one", err)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files = append(files, f)
	}
	return files, errors.Join(errs...)
}

// maxConfig is far more than any configuration: what is larger is something else.
const maxConfig = 8 << 20

// read reads one file, or a pipe.
func read(path string) (config.File, error) {
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
	if err == nil && len(text) > maxConfig {
		err = fmt.Errorf("%s: larger than 8MiB: no configuration", path)
	}
	return config.File{Name: path, Text: string(text), Shared: info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0}, err
}
