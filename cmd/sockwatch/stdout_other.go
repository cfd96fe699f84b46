//go:build !linux

package main

// closedAtStart is only implemented on Linux. Go's runtime opens /dev/null in place of a
// closed standard descriptor.
func closedAtStart(int) bool { return false }
