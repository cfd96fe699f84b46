//go:build !linux

package main

// protect does nothing: only Linux has capabilities.
func protect() error { return nil }

// raise does nothing, for the same reason.
func raise() error { return nil }
