//go:build !linux

package main

func holdNetns() int     { return 1 }
func enterNetns() int    { return 1 }
func serveUntilEOF() int { return 1 }
func dropPrivileges()    {}
