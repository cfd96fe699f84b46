package host

import (
	"errors"
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

func TestIDs(t *testing.T) {
	dir := t.TempDir()
	h := Host{Proc: dir, Root: dir}
	if m, b := h.MachineID(), h.BootID(); m != "" || b != "" {
		t.Errorf("%q, %q without files", m, b)
	}
	for name, text := range map[string]string{"etc/machine-id": "0123456789abcdef0123456789abcdef\n", "sys/kernel/random/boot_id": "6a5c\nx"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if m, b := h.MachineID(), h.BootID(); m != "0123456789abcdef0123456789abcdef" || b != "6a5c" {
		t.Errorf("%q, %q", m, b)
	}
	if b := Find("/proc").BootID(); len(b) != 36 {
		t.Errorf("this boot is %q", b)
	}
}
