//go:build !linux

package main

func printDumpable() int { return 1 }
