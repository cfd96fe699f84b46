//go:build !linux

package main

func printDumpable() int { return 1 }

func printRaised() int { return 1 }
