package agent

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/agent/plugin"
)

// FIFREEZE and FITHAW of <linux/fs.h>: _IOWR('X', 119, int) and its next.
const fiFreeze, fiThaw = 0xc0045877, 0xc0045878

// freezable mounts a file system that freeze makes hang: writes to it wait until the end of
// the test, or longer than any test should take.
func freezable(t *testing.T) (dir string, freeze func()) {
	dir = t.TempDir()
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ioctl := func(request uint) {
		if err := unix.IoctlSetInt(int(f.Fd()), request, 0); err != nil {
			t.Error(err)
		}
	}
	thaw := func() {}
	t.Cleanup(func() {
		thaw()
		f.Close()
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, func() {
		ioctl(fiFreeze)
		thaw = sync.OnceFunc(func() { ioctl(fiThaw) })
		watchdog := time.AfterFunc(30*time.Second, func() { // otherwise the process would wait for the disk for ever
			t.Error("it hangs with the disk")
			thaw()
		})
		t.Cleanup(func() { watchdog.Stop() })
	}
}

// An askedPusher is a Pusher that reports when it is asked for its bound, which is when its
// queue is about to be opened.
type askedPusher struct {
	*fakePusher
	asked chan struct{}
}

func (p askedPusher) MaxBytes() int {
	close(p.asked)
	return 1 << 20
}

// A reload while the disk of the state directory hangs is adopted if it opens nothing
// there. Otherwise it waits for the disk, but the stop does not wait for it.
func TestStopAndReloadWhileTheStateDiskHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("waits a second for a disk")
	}
	t.Parallel()
	disk, freeze := freezable(t)
	r := newRig(t)
	r.agent.Options.StateDirectory = filepath.Join(disk, "state")
	r.agent.Options.ShutdownTimeout = plugin.Duration(time.Second)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	next := make(chan *Agent, 1)
	adopted, ended, ready := make(chan string, 2), make(chan error, 1), make(chan struct{})
	go func() {
		ended <- r.agent.Run(ctx, r.reload, func() (*Agent, error) { return <-next, nil }, func() { close(ready) })
	}()
	reload := func(name string, change func(*Agent)) {
		a := r.sibling()
		a.InForce = func() { adopted <- name }
		a.input("a", counting())
		change(a)
		next <- a
		r.reload <- struct{}{}
	}
	<-ready
	freeze()
	reload("nothing new", func(*Agent) {})
	if got := <-adopted; got != "nothing new" {
		t.Errorf("adopted %q", got)
	}
	asked := make(chan struct{})
	reload("a new queue", func(a *Agent) { onDisk(a.push("out", askedPusher{&fakePusher{}, asked})) })
	<-asked
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	want := "queue \\\"" + filepath.Join(disk, "state", "out") + "\\\": the disk is not responding"
	if !strings.Contains(r.log.String(), want) {
		t.Errorf("want %q in the log:\n%s", want, r.log)
	}
}

// A start on a disk that hangs can be ended.
func TestStopWhileTheStartHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("waits a second for a disk")
	}
	t.Parallel()
	disk, freeze := freezable(t)
	freeze()
	r := newRig(t)
	r.agent.Options.StateDirectory = filepath.Join(disk, "state")
	r.agent.Options.ShutdownTimeout = plugin.Duration(100 * time.Millisecond)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	err := r.agent.Run(ctx, nil, nil, nil)
	if want := `agent.state_directory: "` + r.agent.Options.StateDirectory + `": the disk is not responding`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
