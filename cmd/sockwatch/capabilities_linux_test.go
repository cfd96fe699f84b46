package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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
