package main

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// protect keeps other processes of the user out of a program that holds
// capabilities, by which they could read what is not theirs: it cannot be traced
// any more and leaves no core (PR_SET_DUMPABLE, prctl(2)). Without capabilities
// there is nothing to gain, and /proc/self would belong to root.
func protect() error {
	held, err := capabilities()
	if err != nil || held == 0 {
		return err
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// mayReadProcesses reports whether the program holds the capabilities that open
// the processes of other users to it. Those of a user namespace do not.
func mayReadProcesses() bool {
	const needed = 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_DAC_READ_SEARCH
	held, err := capabilities()
	ids, _ := os.ReadFile("/proc/self/uid_map")
	confined := len(ids) > 0 && strings.Join(strings.Fields(string(ids)), " ") != "0 0 4294967295"
	return err == nil && held&needed == needed && !confined
}

// capabilities returns the permitted capabilities, a bit for each. Go programs do
// not lower the effective ones below them.
func capabilities() (uint64, error) {
	var halves [2]unix.CapUserData
	err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &halves[0])
	return uint64(halves[0].Permitted) | uint64(halves[1].Permitted)<<32, err
}
