package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// readNames reads a source and returns the names of its files, or its error. A successful
// read is adopted.
func readNames(s *source, dir string) string {
	files, err := s.read(func(string) {})
	if err != nil {
		return strings.ReplaceAll(err.Error(), dir, "DIR")
	}
	s.adopted(files)
	var names []string
	for _, f := range files {
		names = append(names, strings.ReplaceAll(f.Name, dir, "DIR"))
	}
	return strings.Join(names, " ")
}

func TestSystemSource(t *testing.T) {
	write := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Dir(path), filepath.Base(path), smallConfig)
		}
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	link := func(target, name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			os.MkdirAll(dir, 0o700)
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	const missing = "open DIR/sockwatch.toml: no such file or directory"
	type step struct {
		do   func(*testing.T, string) // before it is read
		want string
	}
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"nothing there", []step{{nil, "built-in configuration"}}},
		{"a file", []step{{write("sockwatch.toml"), "DIR/sockwatch.toml"}}},
		{"drop-ins alone", []step{{write("sockwatch.d/a.toml"), "DIR/sockwatch.d/a.toml"}}},
		{"the file, then the drop-ins, sorted", []step{
			{write("sockwatch.d/b.toml"), "DIR/sockwatch.d/b.toml"},
			{write("sockwatch.d/a.toml"), "DIR/sockwatch.d/a.toml DIR/sockwatch.d/b.toml"},
			{write("sockwatch.d/c.conf"), "DIR/sockwatch.d/a.toml DIR/sockwatch.d/b.toml"},
			{write("sockwatch.toml"), "DIR/sockwatch.toml DIR/sockwatch.d/a.toml DIR/sockwatch.d/b.toml"},
		}},
		{"an empty drop-in directory", []step{
			{write("sockwatch.d/.hidden.toml"), "built-in configuration"},
		}},
		{"a file that is missing for a moment", []step{
			{write("sockwatch.toml"), "DIR/sockwatch.toml"},
			{remove("sockwatch.toml"), missing},
			{nil, missing},
			{write("sockwatch.d/a.toml"), missing},
			{write("sockwatch.toml"), "DIR/sockwatch.toml DIR/sockwatch.d/a.toml"},
		}},
		{"a directory that is missing for a moment", []step{
			{write("sockwatch.toml"), "DIR/sockwatch.toml"},
			{write("sockwatch.d/a.toml"), "DIR/sockwatch.toml DIR/sockwatch.d/a.toml"},
			{remove("sockwatch.d"), "open DIR/sockwatch.d: no such file or directory"},
			{write("sockwatch.d/b.toml"), "DIR/sockwatch.toml DIR/sockwatch.d/b.toml"},
			{remove("sockwatch.d/b.toml"), "DIR/sockwatch.toml"},
		}},
		{"the last drop-in removed", []step{
			{write("sockwatch.d/a.toml"), "DIR/sockwatch.d/a.toml"},
			{remove("sockwatch.d/a.toml"), "DIR/sockwatch.toml, DIR/sockwatch.d: no *.toml files"},
		}},
		{"written after a start without any", []step{
			{nil, "built-in configuration"},
			{write("sockwatch.toml"), "DIR/sockwatch.toml"},
			{remove("sockwatch.toml"), missing},
		}},
		{"a dangling link", []step{{link("gone.toml", "sockwatch.toml"), missing}}},
		{"a dangling link to the directory", []step{
			{link("gone", "sockwatch.d"), "open DIR/sockwatch.d: no such file or directory"},
		}},
		{"a link to a file", []step{
			{write("x/real.toml"), "built-in configuration"},
			{link("x/real.toml", "sockwatch.toml"), "DIR/sockwatch.toml"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "etc")
			s := systemSource(dir)
			for i, step := range test.steps {
				if step.do != nil {
					step.do(t, dir)
				}
				if diff := cmp.Diff(step.want, readNames(s, dir)); diff != "" {
					t.Errorf("step %d (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

func TestSystemDirectoryThatIsADanglingLink(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc")
	if err := os.Symlink("gone", dir); err != nil {
		t.Fatal(err)
	}
	want := "open DIR/sockwatch.toml: no such file or directory\nopen DIR/sockwatch.d: no such file or directory"
	if diff := cmp.Diff(want, readNames(systemSource(dir), dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A pipe that nobody writes to delays neither its reader for longer than the
// timeout, nor the next read once it has ended.
func TestReadOfAPipeWithoutAWriterEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.toml")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newSourceReader(&source{prefix: "$SOCKWATCH_CONFIG: ", files: []string{path}}, 50*time.Millisecond)
	want := "$SOCKWATCH_CONFIG: " + path + ": not read within 50ms: a stalled mount, or a pipe that nobody writes to?"
	for range 2 { // the second waits for the first, which hangs
		if _, err := r.read(t.Context()); err == nil || err.Error() != want {
			t.Fatalf("error %v, want %s", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.timeout = waitLimit
	want = "$SOCKWATCH_CONFIG: " + path + ": not read: context canceled"
	if _, err := r.read(ctx); err == nil || err.Error() != want {
		t.Fatalf("error %v, want %s", err, want)
	}

	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(smallConfig); err != nil {
		t.Fatal(err)
	}
	f.Close()
	select {
	case r.busy <- struct{}{}: // the read that hung has ended
	case <-time.After(waitLimit):
		t.Fatal("the read does not end")
	}
	r.source.files = []string{writeFile(t, t.TempDir(), "s.toml", smallConfig)}
	<-r.busy
	if files, err := r.read(t.Context()); err != nil || len(files) != 1 {
		t.Errorf("%v, %v after the pipe had a writer", files, err)
	}
}
