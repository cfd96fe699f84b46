package host

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFindOwn(t *testing.T) {
	want := Host{Proc: "/proc", Root: "/", OwnPIDs: true, OwnNetNS: true}
	if diff := cmp.Diff(want, Find("/proc/")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFindElsewhere(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("1", filepath.Join(dir, "self")); err != nil {
		t.Fatal(err)
	}
	want := Host{Proc: dir, Root: dir + "/1/root"}
	if diff := cmp.Diff(want, Find(dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
