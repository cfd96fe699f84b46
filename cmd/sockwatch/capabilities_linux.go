package main

import "golang.org/x/sys/unix"

// protect makes a program with capabilities not dumpable (PR_SET_DUMPABLE, prctl(2)), so
// that other processes of its user cannot trace it and use its capabilities, and it
// leaves no core. Without capabilities that gains nothing, and /proc/self would belong to
// root.
func protect() error {
	held, err := capabilities()
	if err != nil || held == 0 {
		return err
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// capabilities returns the permitted capabilities as a bit set. A Go program does not
// drop effective capabilities by itself, so they are the same.
func capabilities() (uint64, error) {
	var halves [2]unix.CapUserData
	err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &halves[0])
	return uint64(halves[0].Permitted) | uint64(halves[1].Permitted)<<32, err
}
