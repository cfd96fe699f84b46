package main

import "syscall"

// dieWithParent makes a child end when the test ends for any reason.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
