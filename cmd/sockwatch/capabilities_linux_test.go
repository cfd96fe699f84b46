package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	libcap "kernel.org/pub/linux/libs/security/libcap/cap"
)

// printDumpable protects the process and prints whether it can be dumped and what
// capabilities it holds.
func printDumpable() int {
	if err := protect(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_, permitted, _ := strings.Cut(string(status), "CapPrm:\t")
	permitted, _, _ = strings.Cut(permitted, "\n")
	fmt.Println(dumpable, permitted)
	return 0
}

func TestNotDumpableWithCapabilities(t *testing.T) {
	p := start(t, "protected", nil)
	if code := p.exitCode(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.stderr)
	}
	var dumpable int
	var permitted uint64
	if _, err := fmt.Sscanf(p.stdout.String(), "%d %x", &dumpable, &permitted); err != nil {
		t.Fatalf("%q: %v", p.stdout, err)
	}
	if (dumpable == 0) != (permitted != 0) {
		t.Errorf("dumpable %d with capabilities %#x", dumpable, permitted)
	}
}

// printRaised leaves the process with permitted capabilities only, raises them, and prints
// the permitted and the effective ones of each thread.
func printRaised() int {
	var ready, done sync.WaitGroup
	defer done.Wait()
	end := make(chan struct{})
	defer close(end)
	for range 8 { // threads that exist already
		ready.Add(1)
		done.Go(func() {
			runtime.LockOSThread()
			ready.Done()
			<-end
		})
	}
	ready.Wait()
	set, err := libcap.GetPID(0)
	if err == nil {
		err = set.ClearFlag(libcap.Effective)
	}
	if err == nil {
		err = set.SetProc()
	}
	if err == nil {
		err = raise()
	}
	statuses, _ := filepath.Glob("/proc/self/task/*/status")
	for _, file := range statuses {
		var status []byte
		if err == nil {
			status, err = os.ReadFile(file)
		}
		m := regexp.MustCompile(`CapPrm:\t(\w+)\nCapEff:\t(\w+)`).FindSubmatch(status)
		if m != nil {
			fmt.Printf("%s %s\n", m[1], m[2])
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestPermittedCapabilitiesBecomeEffective(t *testing.T) {
	p := start(t, "raised", nil)
	if code := p.exitCode(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.stderr)
	}
	threads := strings.Split(strings.TrimSpace(p.stdout.String()), "\n")
	if len(threads) < 8 {
		t.Fatalf("%d threads, want 8 at least:\n%s", len(threads), p.stdout)
	}
	if threads[0] == "0000000000000000 0000000000000000" {
		t.Skip("there is nothing to raise: the test runs without capabilities")
	}
	for _, thread := range threads {
		if permitted, effective, _ := strings.Cut(thread, " "); permitted != effective {
			t.Errorf("a thread has %s of %s", effective, permitted)
		}
	}
}
