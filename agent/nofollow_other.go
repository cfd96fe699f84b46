//go:build !unix

package agent

// noFollow is nothing where the system has no such flag.
const noFollow = 0
