//go:build !unix

package main

import "os"

// notifyResize does nothing: this system has no such signal. The next frame has the new
// size.
func notifyResize(chan<- os.Signal) func() { return func() {} }
