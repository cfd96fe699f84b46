package buffer

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMakeDirectory: anyone who can write to a directory can plant files in it.
func TestMakeDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("chown needs root")
	}
	// group is a group that root is not in.
	const user, group = 12345, 12345
	made := func(mode os.FileMode, uid, gid int) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.Chown(dir, uid, gid))
			must(t, os.Chmod(dir, mode))
		}
	}
	tests := []struct {
		name string
		make func(t *testing.T, dir string)
		want string // "": no error
	}{
		{"missing", func(*testing.T, string) {}, ""},
		{"ours", made(0o700, 0, 0), ""},
		{"ours, others may read it", made(0o755, 0, group), ""},
		{"ours, our group may write to it", made(0o775, 0, 0), ""},
		{"ours, others may write to it", made(0o757, 0, 0), `"DIR": others may write to it (mode 0757)`},
		{"ours, others may write to it, with the sticky bit", made(0o777|os.ModeSticky, 0, 0), `"DIR": others may write to it (mode 1777)`},
		{"ours, another group may write to it", made(0o770, 0, group), `"DIR": others may write to it (mode 0770)`},
		{"another user's", made(0o700, user, 0), `"DIR": belongs to user 12345, not to this user (0) or root`},
		{"a file", func(t *testing.T, dir string) {
			must(t, os.WriteFile(dir, nil, 0o600))
		}, `"DIR": not a directory (a symbolic link is not followed)`},
		{"a FIFO", func(t *testing.T, dir string) {
			must(t, unix.Mkfifo(dir, 0o600))
		}, `"DIR": not a directory (a symbolic link is not followed)`},
		{"a symbolic link", func(t *testing.T, dir string) {
			must(t, os.Symlink(t.TempDir(), dir))
		}, `"DIR": not a directory (a symbolic link is not followed)`},
		{"systemd's link", func(t *testing.T, dir string) {
			made(0o700, 0, 0)(t, filepath.Join(filepath.Dir(dir), "private"))
			made(0o700, 0, 0)(t, filepath.Join(filepath.Dir(dir), "private", "state"))
			must(t, os.Symlink("private/state", dir))
		}, ""},
		{"systemd's link to a directory of another user", func(t *testing.T, dir string) {
			made(0o700, 0, 0)(t, filepath.Join(filepath.Dir(dir), "private"))
			made(0o700, user, 0)(t, filepath.Join(filepath.Dir(dir), "private", "state"))
			must(t, os.Symlink("private/state", dir))
		}, `"PARENT/private/state": belongs to user 12345, not to this user (0) or root`},
		{"systemd's link to a link", func(t *testing.T, dir string) {
			made(0o700, 0, 0)(t, filepath.Join(filepath.Dir(dir), "private"))
			must(t, os.Symlink(t.TempDir(), filepath.Join(filepath.Dir(dir), "private", "state")))
			must(t, os.Symlink("private/state", dir))
		}, `"PARENT/private/state": not a directory (a symbolic link is not followed)`},
		{"a link to another private directory", func(t *testing.T, dir string) {
			made(0o700, 0, 0)(t, filepath.Join(filepath.Dir(dir), "private"))
			made(0o700, 0, 0)(t, filepath.Join(filepath.Dir(dir), "private", "other"))
			must(t, os.Symlink("private/other", dir))
		}, `"DIR": not a directory (a symbolic link is not followed)`},
		{"no parent", func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Dir(dir)))
		}, "mkdir DIR: no such file or directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parent := filepath.Join(t.TempDir(), "lib")
			dir := filepath.Join(parent, "state")
			must(t, os.Mkdir(parent, 0o755))
			tt.make(t, dir)
			got := ""
			if err := MakeDirectory(dir); err != nil {
				got = err.Error()
			}
			want := strings.NewReplacer("DIR", dir, "PARENT", parent).Replace(tt.want)
			if got != want {
				t.Fatalf("error %q, want %q", got, want)
			}
			if want != "" {
				return
			}
			if info, err := os.Stat(dir); err != nil || !info.IsDir() {
				t.Errorf("%v, %v", info, err)
			}
		})
	}
}

// TestMakeDirectoryIsForTheOwnerAlone, whatever the umask is.
func TestMakeDirectoryIsForTheOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	must(t, MakeDirectory(dir))
	if info, err := os.Stat(dir); err != nil || fmt.Sprint(info.Mode()) != "drwx------" {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestMakeDirectoryUnderAnUnreadableParent: a parent that can only be searched cannot be
// synced. That is not an error.
func TestMakeDirectoryUnderAnUnreadableParent(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "state")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.Chmod(filepath.Dir(parent), 0o755))
	must(t, os.Chmod(parent, 0o711))
	must(t, asNobody(t, func() error { return MakeDirectory(dir) }))
}

// asNobody runs a function with the file permissions of nobody, on its own thread.
func asNobody(t *testing.T, do func() error) error {
	t.Helper()
	var become, err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread, which changes its user, ends here
		if become = unix.Setfsuid(65534); become == nil {
			err = do()
		}
	}()
	if <-done; become != nil {
		t.Skipf("setfsuid: %v", become)
	}
	return err
}

// TestNamesSurviveALossOfPower: also the name of a directory that existed, because a kill
// may have kept it from being synced, and of a dead-letter file.
func TestNamesSurviveALossOfPower(t *testing.T) {
	if testing.Short() {
		t.Skip("formats a disk, and stops it many times")
	}
	tests := []struct {
		name string
		make func(t *testing.T, dir string)
		want []string // below dir
	}{
		{"a new directory", func(t *testing.T, dir string) {
			must(t, MakeDirectory(filepath.Join(dir, "state")))
		}, []string{"state"}},
		{"a directory that existed", func(t *testing.T, dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "state"), 0o700))
			must(t, MakeDirectory(filepath.Join(dir, "state")))
		}, []string{"state"}},
		{"a new queue directory", func(t *testing.T, dir string) {
			_, err := OpenDisk(filepath.Join(dir, "q"), 1<<20, discard())
			must(t, err)
		}, []string{"q", "q/acks.v1"}},
		{"a queue directory that existed", func(t *testing.T, dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "q"), 0o700))
			_, err := OpenDisk(filepath.Join(dir, "q"), 1<<20, discard())
			must(t, err)
		}, []string{"q", "q/acks.v1"}},
		{"a dead-letter file", func(t *testing.T, dir string) {
			must(t, addEntry(NewDeadLetters(filepath.Join(dir, "state", "out")), "x", "why"))
		}, []string{"state", "state/out"}},
		{"a dead-letter file after a kill", func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "out"), []byte("{}\n"), 0o600))
			must(t, addEntry(NewDeadLetters(filepath.Join(dir, "out")), "x", "why"))
		}, []string{"out"}},
		{"a dead-letter file that is rotated", func(t *testing.T, dir string) {
			d := NewDeadLetters(filepath.Join(dir, "out"))
			must(t, addEntry(d, "x", "why"))
			must(t, os.Truncate(d.path, maxDeadLetters))
			must(t, addEntry(d, "y", "why"))
		}, []string{"out", "out.1"}},
	}
	disk := newPowerDisk(t)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(disk.dir, fmt.Sprint(i))
			must(t, os.Mkdir(dir, 0o700))
			unix.Sync()
			tt.make(t, dir)
			disk.losePower(t)
			for _, name := range tt.want {
				if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A powerDisk is an ext4 file system that can lose its power.
type powerDisk struct{ dir, image string }

func newPowerDisk(t *testing.T) *powerDisk {
	t.Helper()
	d := &powerDisk{dir: t.TempDir(), image: filepath.Join(t.TempDir(), "image")}
	must(t, os.WriteFile(d.image, nil, 0o600))
	must(t, os.Truncate(d.image, 32<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", d.image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v %s", err, out)
	}
	if err := d.mount(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(d.dir, unix.MNT_DETACH)) })
	must(t, os.Chmod(d.dir, 0o700))
	return d
}

func (d *powerDisk) mount() error {
	if out, err := exec.Command("mount", "-o", "loop", d.image, d.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mount: %w %s", err, out)
	}
	return nil
}

// losePower stops all writes to the disk at once, and mounts its content again.
func (d *powerDisk) losePower(t *testing.T) {
	t.Helper()
	d.stop(t)
	d.restart(t)
}

func (d *powerDisk) stop(t *testing.T) {
	t.Helper()
	const shutdown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN of linux/fs/ext4/ext4.h
	f, err := os.Open(d.dir)
	must(t, err)
	err = unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noLogFlush)
	must(t, f.Close())
	if err != nil {
		t.Skipf("shut the file system down: %v", err)
	}
}

// restart mounts a copy: files of the stopped disk may still be open.
func (d *powerDisk) restart(t *testing.T) {
	t.Helper()
	must(t, unix.Unmount(d.dir, unix.MNT_DETACH))
	left, err := os.ReadFile(d.image)
	must(t, err)
	must(t, os.Remove(d.image)) // what is still mounted keeps it
	must(t, os.WriteFile(d.image, left, 0o600))
	must(t, d.mount())
}
