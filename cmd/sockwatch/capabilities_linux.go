package main

import (
	"golang.org/x/sys/unix"
	libcap "kernel.org/pub/linux/libs/security/libcap/cap"
)

// raise makes the permitted capabilities effective, in every thread. The file of the
// program in a container image has them as permitted only: an effective one that the
// container is not granted would keep the program from starting (capabilities(7),
// "Safety checking for capability-dumb binaries").
func raise() error {
	permitted, effective, err := capabilities()
	if err != nil || permitted == effective {
		return err
	}
	set, err := libcap.GetPID(0)
	if err != nil {
		return err
	}
	if err := set.Fill(libcap.Effective, libcap.Permitted); err != nil {
		return err
	}
	return set.SetProc()
}

// protect makes a program with capabilities not dumpable (PR_SET_DUMPABLE, prctl(2)), so
// that other processes of its user cannot trace it and use its capabilities, and it
// leaves no core. Without capabilities that gains nothing, and /proc/self would belong to
// root.
func protect() error {
	held, _, err := capabilities()
	if err != nil || held == 0 {
		return err
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// capabilities returns the permitted and the effective capabilities as bit sets.
func capabilities() (permitted, effective uint64, err error) {
	var halves [2]unix.CapUserData
	err = unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &halves[0])
	low, high := halves[0], halves[1]
	return uint64(low.Permitted) | uint64(high.Permitted)<<32, uint64(low.Effective) | uint64(high.Effective)<<32, err
}
