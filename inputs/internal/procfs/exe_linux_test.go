package procfs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// copySleep copies the program sleep to a path.
func copySleep(t *testing.T, path string) {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, program, 0o700); err != nil {
		t.Fatal(err)
	}
}

// started starts a command that ends with the test. It returns its process when it
// is running the program named sleep.
func started(t *testing.T, f *FS, cmd *exec.Cmd) Process {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	p, err := f.Process(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if args, err := p.Cmdline(64); err == nil && string(args) == "sleep\x00600\x00" {
			return p
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not start")
		}
	}
}

func TestExe(t *testing.T) {
	f := open(t)
	for _, test := range []struct {
		name    string
		file    string
		after   func(path string) error
		want    string
		deleted bool
	}{
		{name: "a program", file: "x", after: nil, want: "x", deleted: false},
		{name: "deleted", file: "x", after: os.Remove, want: "x", deleted: true},
		{name: "named so", file: "x (deleted)", after: nil, want: "x (deleted)", deleted: false},
		{name: "named so and deleted", file: "x (deleted)", after: os.Remove, want: "x (deleted)", deleted: true},
		{name: "another name is left", file: "x", after: func(path string) error {
			if err := os.Link(path, path+"2"); err != nil {
				return err
			}
			return os.Remove(path)
		}, want: "x", deleted: true},
		{name: "replaced", file: "x", after: func(path string) error {
			if err := os.WriteFile(path+".new", nil, 0o600); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}, want: "x", deleted: true},
		{name: "deleted beside one that is named so", file: "x", after: func(path string) error {
			if err := os.WriteFile(path+" (deleted)", nil, 0o600); err != nil {
				return err
			}
			return os.Remove(path)
		}, want: "x", deleted: true},
		{name: "renamed to one that is named so", file: "x", after: func(path string) error {
			return os.Rename(path, path+" (deleted)")
		}, want: "x (deleted)", deleted: false},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, test.file)
			copySleep(t, path)
			cmd := exec.Command(path, "600")
			cmd.Args[0] = "sleep"
			p := started(t, f, cmd)
			if test.after != nil {
				if err := test.after(path); err != nil {
					t.Fatal(err)
				}
			}
			got, deleted, err := p.Exe()
			if want := filepath.Join(dir, test.want); err != nil || string(got) != want || deleted != test.deleted {
				t.Errorf("%q, deleted %v, %v; want %q, %v", got, deleted, err, want, test.deleted)
			}
		})
	}
}

// TestExeOfAnotherMountNamespace compares names as the process sees them.
func TestExeOfAnotherMountNamespace(t *testing.T) {
	f := open(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "x (deleted)")
	cmd := exec.Command("sh", "-c", `mount -t tmpfs none "$1" && cp "$(command -v sleep)" "$2" && exec -a sleep "$2" 600`, "sh", dir, path)
	cmd.Path, _ = exec.LookPath("bash") // for exec -a
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	p := started(t, f, cmd)
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Fatalf("it is seen here too: %v", err)
	}
	if got, deleted, err := p.Exe(); err != nil || string(got) != path || deleted {
		t.Errorf("%q, deleted %v, %v; want %q, false", got, deleted, err, path)
	}
}

// TestExeInMemory: the program never had a name.
func TestExeInMemory(t *testing.T) {
	f := open(t)
	fd, err := unix.MemfdCreate("name", unix.MFD_CLOEXEC)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(fd)
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	copySleep(t, path)
	cmd := exec.Command("/proc/self/fd/3", "600")
	cmd.Args[0] = "sleep"
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd.ExtraFiles = []*os.File{file}
	p := started(t, f, cmd)
	if got, deleted, err := p.Exe(); err != nil || string(got) != "/memfd:name" || !deleted {
		t.Errorf("%q, deleted %v, %v; want /memfd:name, true", got, deleted, err)
	}
}
