//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// notifyResize passes the signal of a resized terminal on to c, until the function
// that it returns is called.
func notifyResize(c chan<- os.Signal) func() {
	signal.Notify(c, syscall.SIGWINCH)
	return func() { signal.Stop(c) }
}
