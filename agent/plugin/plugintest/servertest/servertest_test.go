//go:build unix

package servertest

import "testing"

// A port stays reserved until its test ends, though nothing listens on it. (Of 1,000 random
// ports, about 20 would be the same.)
func TestFreePortsAreReserved(t *testing.T) {
	seen := map[int]bool{}
	for range 1000 {
		port := FreePort(t)
		if seen[port] {
			t.Errorf("port %d was returned twice", port)
		}
		seen[port] = true
	}
}
