package users

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
)

// text returns the start of an open file, or the error of opening it.
func text(t *testing.T, fd int, err error) string {
	t.Helper()
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	b := make([]byte, 100)
	n, err := unix.Read(fd, b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestLinksStayBelowTheRoot(t *testing.T) {
	if _, err := unix.Openat2(unix.AT_FDCWD, "", &unix.OpenHow{}); err == unix.ENOSYS {
		t.Skipf("openat2: %v", err)
	}
	f := newFakeHost(t)
	f.write("etc/real", "inside")
	outside := filepath.Join(filepath.Dir(f.root), "outside")
	if err := os.WriteFile(outside, []byte("outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ link, target, want, without string }{
		{link: "absolute", target: "/etc/real", want: "inside", without: syscall.ELOOP.Error()},
		{link: "relative", target: "real", want: "inside", without: syscall.ELOOP.Error()},
		{link: "out", target: "../../outside", want: syscall.ENOENT.Error(), without: syscall.ELOOP.Error()},
		{link: "up", target: "../../../../../../../../etc/real", want: "inside", without: syscall.ELOOP.Error()},
		{link: "magic", target: "/proc/self/root/etc/passwd", want: syscall.ENOENT.Error(), without: syscall.ELOOP.Error()},
	} {
		if err := os.Symlink(test.target, filepath.Join(f.root, "etc", test.link)); err != nil {
			t.Fatal(err)
		}
		fd, err := open(f.Host, "etc/"+test.link, unix.O_RDONLY)
		if got := text(t, fd, err); got != test.want {
			t.Errorf("%s: %q, expected %q", test.link, got, test.want)
		}
		dir, err := unix.Open(f.root, unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(dir)
		fd, err = openWithoutLinks(dir, "etc/"+test.link, unix.O_RDONLY)
		if got := text(t, fd, err); got != test.without {
			t.Errorf("%s without openat2: %q, expected %q", test.link, got, test.without)
		}
		fd, err = openWithoutLinks(dir, "etc/real", unix.O_RDONLY)
		if got := text(t, fd, err); got != "inside" {
			t.Errorf("without openat2: %q", got)
		}
	}
	if err := os.Symlink("etc", filepath.Join(f.root, "link")); err != nil {
		t.Fatal(err)
	}
	dir, err := unix.Open(f.root, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	if _, err := openWithoutLinks(dir, "link/real", unix.O_RDONLY); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("through a link without openat2: %v", err)
	}
}

func TestOwnFilesIfTheHostsRootIsRefused(t *testing.T) {
	want, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Skip(err)
	}
	fd, err := open(host.Host{Proc: t.TempDir()}, "etc/passwd", unix.O_RDONLY)
	if got := text(t, fd, err); got == "" || got != string(want[:min(100, len(want))]) {
		t.Errorf("got %q", got)
	}
}

func TestMissingFilesOfTheHostAreNotOurs(t *testing.T) {
	if _, err := open(newFakeHost(t).Host, "etc/passwd", unix.O_RDONLY); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
