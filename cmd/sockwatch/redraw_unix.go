//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// notifyResize relays the signal of a resized terminal to c, until the returned function
// is called.
func notifyResize(c chan<- os.Signal) func() {
	signal.Notify(c, syscall.SIGWINCH)
	return func() { signal.Stop(c) }
}
