//go:build !linux

package main

import "syscall"

// dieWithParent asks for nothing where the system cannot do it.
func dieWithParent() *syscall.SysProcAttr { return nil }
