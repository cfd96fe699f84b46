//go:build !unix

package main

import "os"

// notifyResize does nothing: there is no such signal here, and the next frame has the
// new size.
func notifyResize(chan<- os.Signal) func() { return func() {} }
