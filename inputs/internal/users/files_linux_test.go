package users

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOnlyRegularFilesAreRead(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"FIFO":      func(path string) error { return syscall.Mkfifo(path, 0o644) },
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"device":    func(path string) error { return syscall.Mknod(path, syscall.S_IFCHR|0o666, 1<<8|5) }, // zero
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeHost(t)
			f.write("etc/passwd", "web:x:1000:0:::\n")
			n := f.names()
			now := time.Now()
			n.Update(t.Context(), setOf(1000), now)
			for _, file := range []string{"etc/passwd", "etc/subuid"} {
				f.write(file, "")
				if err := replace(filepath.Join(f.root, file)); err != nil {
					t.Skip(err)
				}
			}
			n.Update(t.Context(), setOf(1000), now.Add(10*time.Minute))
			got := strings.ReplaceAll(n.Err().Error(), syscall.EACCES.Error(), "not a regular file") // devices on tmpfs
			if diff := cmp.Diff("/etc/passwd: not a regular file\n/etc/subuid: not a regular file", got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if n.Name(1000) != "web" {
				t.Errorf("the user is %q", n.Name(1000))
			}
		})
	}
}

func TestFilesystemHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := files{again: time.Hour}
		f.read = func(map[uint32]bool) tables {
			time.Sleep(3 * time.Second)
			return tables{names: map[uint32]string{7: "late"}}
		}
		for _, test := range []struct {
			sleep   time.Duration // before it
			uid     uint32
			changed bool
			took    time.Duration
		}{
			{sleep: 0, uid: 7, changed: false, took: wait},
			{sleep: 0, uid: 7, changed: false, took: 0},
			{sleep: 3 * time.Second, uid: 7, changed: true, took: 0},
			{sleep: 0, uid: 8, changed: false, took: 0}, // not waited for again
			{sleep: 4 * time.Second, uid: 8, changed: false, took: 0},
		} {
			time.Sleep(test.sleep)
			synctest.Wait()
			began := time.Now()
			changed := f.update(t.Context(), setOf(test.uid), began)
			if took := time.Since(began); changed != test.changed || took != test.took {
				t.Errorf("uid %d: changed %v, took %v, expected %v, %v", test.uid, changed, took, test.changed, test.took)
			}
		}
	})
}
