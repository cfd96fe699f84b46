package main

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The packages install a configuration that only root and the group sockwatch may read. Telegraf's
// user, for example, is neither.
func TestUnreadableSystemConfigurationSaysWhoMayReadIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc")
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer unix.Setfsuid(os.Geteuid())
	if err := unix.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	if user, _ := unix.SetfsuidRetUid(-1); user != 65534 {
		t.Skip("cannot become another user")
	}
	want := "open DIR/sockwatch.toml: permission denied\nopen DIR/sockwatch.d: permission denied\n" +
		"run as root, or as a member of the group that owns the configuration, or pass another one with --config"
	if diff := cmp.Diff(want, readNames(systemSource(dir), dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
