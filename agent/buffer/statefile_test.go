package buffer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFileIsReplacedAsAWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "out.json")
	if _, _, err := ReadFile(path, 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: error %v, want that it does not exist", err)
	}
	must(t, WriteFile(path, []byte("first")))
	must(t, os.WriteFile(path+".new", []byte("left behind by a crash"), 0o600))
	must(t, WriteFile(path, []byte("next")))
	content, modified, err := ReadFile(path, 4)
	must(t, err)
	if string(content) != "next" || time.Since(modified) > time.Minute {
		t.Errorf("read %q, modified at %v", content, modified)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("the directory holds %v, want only the file", entries)
	}
	if _, _, err := ReadFile(path, 3); err == nil || err.Error() != fmt.Sprintf("%q has more than 3 bytes", path) {
		t.Errorf("a file of 4 bytes with a limit of 3: error %v", err)
	}
}

// Neither reads nor writes follow a symbolic link that somebody has put in the file's place.
func TestFileIsNotASymbolicLink(t *testing.T) {
	dir := t.TempDir()
	secret, path := filepath.Join(dir, "secret"), filepath.Join(dir, "out.json")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	must(t, os.Symlink(secret, path))
	must(t, os.Symlink(secret, path+".new"))
	if _, _, err := ReadFile(path, 10); !errors.Is(err, errNotRegular) {
		t.Errorf("reading: error %v, want that it is not a regular file", err)
	}
	if err := WriteFile(path, []byte("new")); !errors.Is(err, errNotRegular) {
		t.Errorf("writing: error %v, want that it is not a regular file", err)
	}
	must(t, WriteFile(path, []byte("new")))
	for file, want := range map[string]string{secret: "secret", path: "new"} {
		if content, err := os.ReadFile(file); err != nil || string(content) != want {
			t.Errorf("%s holds %q, %v, want %q", file, content, err, want)
		}
	}
}
