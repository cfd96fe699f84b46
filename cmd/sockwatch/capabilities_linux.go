package main

import "golang.org/x/sys/unix"

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

// capabilities returns the permitted capabilities, a bit for each. Go programs do
// not lower the effective ones below them.
func capabilities() (uint64, error) {
	var halves [2]unix.CapUserData
	err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &halves[0])
	return uint64(halves[0].Permitted) | uint64(halves[1].Permitted)<<32, err
}
