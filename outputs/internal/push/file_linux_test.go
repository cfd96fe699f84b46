package push

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sockwatch/outputs/internal/push/pushtest"
)

// TestStalledMount has the token on a FUSE file system whose server never answers:
// every push ends within its timeout and names the file.
func TestStalledMount(t *testing.T) {
	t.Parallel()
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", device.Fd(), os.Getuid(), os.Getgid())
	if err := syscall.Mount("stalled", dir, "fuse", 0, options); err != nil {
		device.Close()
		t.Skip("mount: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
		device.Close() // releases requests that wait for an answer
	})
	path := filepath.Join(dir, "token")
	out, _ := newOutput(t, withToken("http://127.0.0.1:1", path))
	for range 3 {
		err := sendIn(t, out, 100*time.Millisecond, "m v=1i 1")
		if want := fmt.Sprintf("token_file: reading %q took too long: context deadline exceeded", path); fmt.Sprint(err) != want || pushtest.Kind(err) != "kept" {
			t.Fatalf("%s: error\n%v, want\n%s", pushtest.Kind(err), err, want)
		}
	}
}
