//go:build !(amd64 || arm64)

package bpf

import (
	"context"

	"sockwatch/inputs/internal/procfs"
)

// Holders finds all holders of listening sockets.
type Holders struct{}

// OpenHolders returns ErrUnsupported.
func OpenHolders(uint32) (*Holders, error) { return nil, ErrUnsupported }

// Close does nothing.
func (*Holders) Close() error { return nil }

// Sockets returns ErrUnsupported.
func (*Holders) Sockets(context.Context, func(procfs.File, procfs.State)) error {
	return ErrUnsupported
}

// Rings returns ErrUnsupported.
func (*Holders) Rings(context.Context, func(procfs.File, procfs.State)) error { return ErrUnsupported }

// Verify returns ErrUnsupported.
func (*Holders) Verify(context.Context, []procfs.File, func(int, procfs.State)) error {
	return ErrUnsupported
}

// Changes receives the changes of all network namespaces.
type Changes struct{}

// OpenChanges returns ErrUnsupported.
func OpenChanges(uint32) (*Changes, error) { return nil, ErrUnsupported }

// Close does nothing.
func (*Changes) Close() error { return nil }

// Next returns ErrUnsupported.
func (*Changes) Next() (Change, error) { return Change{}, ErrUnsupported }

// Sent returns 0.
func (*Changes) Sent() (uint64, error) { return 0, nil }

// Lost returns 0.
func (*Changes) Lost() (uint64, error) { return 0, nil }
