package main

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestIncludedPipeIsRefusedAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := readRegular(path)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || err.Error() != "is not a regular file" {
			t.Errorf("error %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("still waits for a writer")
	}
}
