package influxdb

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestStalledMount has the token on a FUSE file system whose server never answers:
// every push ends within its timeout and names the file.
func TestStalledMount(t *testing.T) {
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
	out, _ := newOutput(t, v3("http://127.0.0.1:1", path))
	for range 3 {
		err := pushIn(t, out, 100*time.Millisecond)
		if want := fmt.Sprintf("token_file: reading %q took too long: context deadline exceeded", path); fmt.Sprint(err) != want || kind(err) != "kept" {
			t.Fatalf("%s: error\n%v, want\n%s", kind(err), err, want)
		}
	}
}
