package main

import "golang.org/x/sys/unix"

// protect keeps other processes of the user out of a program that holds
// capabilities, by which they could read what is not theirs: it cannot be traced
// any more and leaves no core (PR_SET_DUMPABLE, prctl(2)). Without capabilities
// there is nothing to gain, and /proc/self would belong to root.
func protect() error {
	var data [2]unix.CapUserData // of capability version 3: two halves
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return err
	}
	if data[0].Permitted|data[1].Permitted == 0 {
		return nil
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
