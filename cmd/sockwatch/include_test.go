package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/config"
)

func TestGlobOfIncludedFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.toml", "a.toml", ".hidden.toml", "c.txt", "sub/d.toml"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for pattern, want := range map[string][]string{
		"*.toml":      {"a.toml", "b.toml"},
		".*.toml":     {".hidden.toml"},
		"s?b/*.toml":  {"sub/d.toml"},
		"none/*.toml": nil,
		"x*.toml":     nil,
	} {
		got, err := globFiles(filepath.Join(dir, pattern))
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
		}
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], dir+"/")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", pattern, diff)
		}
	}
	if _, err := globFiles(filepath.Join(dir, "[")); !errors.Is(err, filepath.ErrBadPattern) {
		t.Errorf("error %v, want %v", err, filepath.ErrBadPattern)
	}
	if _, err := globFiles(filepath.Join(dir, "a.toml", "*.toml")); err == nil {
		t.Error("a directory that is a file has no files")
	}
	link := filepath.Join(dir, "dangling")
	if err := os.Symlink(filepath.Join(dir, "gone"), link); err != nil {
		t.Fatal(err)
	}
	if _, err := globFiles(filepath.Join(link, "*.toml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("dangling link: error %v, want %v", err, fs.ErrNotExist)
	}
}

func TestIncludedFileIsRegularAndSmall(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rules.toml")
	if err := os.WriteFile(path, []byte("# rules"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := config.File{Name: path, Text: "# rules", Shared: true}
	if got, err := readRegular(path); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if err := os.WriteFile(path, make([]byte, maxConfig+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readRegular(path); err == nil || err.Error() != "is larger than 1MiB" {
		t.Errorf("large file: error %v", err)
	}
	if _, err := readRegular(dir); err == nil || err.Error() != `is a directory: write "`+dir+`/*.toml"` {
		t.Errorf("directory: error %v", err)
	}
	if _, err := readRegular(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: error %v", err)
	}
	if _, err := readRegular(os.DevNull); err == nil || err.Error() != "is not a regular file" {
		t.Errorf("device: error %v", err)
	}
}

// A mount that stalls delays one read; those after it fail at once.
func TestIncludedFileThatHangsIsGivenUp(t *testing.T) {
	i := newIncluder(10 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), i.timeout)
	defer cancel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	var reads atomic.Int32
	for range 3 {
		_, err := includeWithin(ctx, i, func() (string, error) {
			reads.Add(1)
			<-release
			return "", nil
		})
		if want := "not read within 10ms: a stalled mount, or a pipe that nobody writes to?"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	if len(i.busy) != 1 || reads.Load() > 1 {
		t.Errorf("%d reads, %d of them under way", reads.Load(), len(i.busy))
	}
}
