package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/agent/plugin/plugintest/servertest"
)

// smallDisk returns the root of a small file system, and skips the test if the user may not
// mount one.
func smallDisk(t *testing.T, flags uintptr, options string) string {
	t.Helper()
	dir := t.TempDir()
	if options != "" {
		options += ","
	}
	if err := unix.Mount("sockwatch-test", dir, "tmpfs", flags, options+"mode=0700"); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves a file system less than a page, and returns the file that uses the
// space.
func fill(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); ; {
		if _, err := f.Write(page); err != nil {
			return path
		}
	}
}

// The disk of the queue is full, and later freed, while the destination is down: the
// program keeps running, points counted as queued arrive, and the counters account for
// every point.
func TestFullDiskFreedAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("gathers for some seconds")
	}
	t.Parallel()
	s := newSink(t)
	s.stop()
	state := smallDisk(t, 0, "size=1m,mode=0700")
	address := servertest.FreeAddress(t)
	until := filepath.Join(t.TempDir(), "enough")
	c := delivery{state: state, url: s.URL, input: fmt.Sprintf("until = %q", until), flush: 500 * time.Millisecond,
		more: "[[outputs.prometheus]]\n  listen = \"" + address + "\"\n"}
	d := startDaemon(t, c.String())
	d.awaitQueued(t, 5*idsPerBatch)
	filler := fill(t, state)
	d.awaitLog(t, `"msg":"points dropped"`)
	if !strings.Contains(d.stderr.String(), "no space left on device") {
		t.Error("the log does not say why points are dropped")
	}
	dropped := gauge(page(address), "sockwatch_output_dropped_points_total", "influxdb")
	eventually(t, "more points dropped", func() bool {
		return gauge(page(address), "sockwatch_output_dropped_points_total", "influxdb") >= dropped+3*idsPerBatch
	})
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	d.awaitQueued(t, 5*idsPerBatch)
	s.start(t)
	writeFile(t, filepath.Dir(until), filepath.Base(until), "")
	counter := func(text, name string) int { return int(gauge(text, "sockwatch_output_"+name, "influxdb")) }
	eventually(t, "every point accounted for", func() bool {
		text := page(address)
		var batches int
		_, after, done := strings.Cut(text, "\nserial_batches{host=\"h\"} ")
		fmt.Sscan(after, &batches)
		return done && strings.Contains(text, "\nserial_done{host=\"h\"} 1\n") && counter(text, "queue_points") == 0 &&
			counter(text, "written_points_total")+counter(text, "dropped_points_total") == batches*idsPerBatch
	})
	queued := d.queued("outputs.influxdb")
	s.demand(t, queued)
	text := page(address)
	if got := counter(text, "written_points_total"); got != len(queued) || got != len(s.arrived) {
		t.Errorf("%d points queued, %d counted as written, %d stored", len(queued), got, len(s.arrived))
	}
	if counter(text, "rejected_points_total") != 0 || counter(text, "queue_bytes") != 0 || counter(text, "up") != 1 {
		t.Errorf("rejected %d, %d bytes queued, up %d", counter(text, "rejected_points_total"), counter(text, "queue_bytes"), counter(text, "up"))
	}
	d.stop(t)
}

// Killed on the full disk, the program starts again, delivers its queue, which frees space,
// and continues.
func TestStartOnAFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	s := newSink(t)
	s.stop()
	state := smallDisk(t, 0, "size=1m,mode=0700")
	c := delivery{state: state, url: s.URL}
	d := startDaemon(t, c.String())
	d.awaitQueued(t, 5*idsPerBatch)
	filler := fill(t, state)
	d.awaitLog(t, `"msg":"points dropped"`)
	d.Process.Kill()
	<-d.exited
	queued := d.queued("outputs.influxdb")

	d = startDaemon(t, c.String())
	d.awaitLog(t, `"msg":"points dropped"`)
	s.start(t)
	s.demand(t, queued)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	d.awaitQueued(t, 5*idsPerBatch)
	d.stop(t)
	s.demand(t, append(queued, d.queued("outputs.influxdb")...))
}

// A state directory that is missing, not a directory or not writable ends the start with
// an error that names it.
func TestUnusableStateDirectoryIsAnError(t *testing.T) {
	tests := []struct {
		name  string
		state func(t *testing.T) string
		want  string // with %s for the directory
	}{
		{"its parent missing", func(t *testing.T) string { return filepath.Join(t.TempDir(), "a", "b") },
			"sockwatch: agent.state_directory: mkdir %[1]s: no such file or directory\n"},
		{"a file", func(t *testing.T) string { return writeFile(t, t.TempDir(), "state", "") },
			"sockwatch: agent.state_directory: \"%[1]s\": not a directory (a symbolic link is not followed)\n"},
		{"writable by others", func(t *testing.T) string {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "sockwatch: agent.state_directory: \"%[1]s\": others may write to it (mode 0777)\n"},
		{"read-only", func(t *testing.T) string { return smallDisk(t, unix.MS_RDONLY, "") },
			"sockwatch: outputs.influxdb: queue \"%[1]s/influxdb\": mkdir %[1]s/influxdb: read-only file system\n"},
		{"full to the last inode", func(t *testing.T) string { return smallDisk(t, 0, "nr_inodes=1") },
			"sockwatch: outputs.influxdb: queue \"%[1]s/influxdb\": mkdir %[1]s/influxdb: no space left on device\n"},
		{"not writable", func(t *testing.T) string {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o555); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(dir, "x"), 0o700); err == nil {
				t.Skip("this user may write everywhere")
			}
			return dir
		}, "sockwatch: outputs.influxdb: queue \"%[1]s/influxdb\": mkdir %[1]s/influxdb: permission denied\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			state := tt.state(t)
			d := startDaemon(t, delivery{state: state, url: "http://127.0.0.1:1"}.String())
			if code := d.exitCode(t); code != exitFailed {
				t.Errorf("exit code %d", code)
			}
			if want := fmt.Sprintf(tt.want, state); !strings.HasSuffix(d.stderr.String(), want) {
				t.Errorf("stderr %q does not end in %q", d.stderr, want)
			}
		})
	}
}
