//go:build !linux

package listen

import (
	"context"
	"errors"
	"net"
)

// listenBeside is only implemented on Linux. Elsewhere the address is in use.
func listenBeside(context.Context, string, []net.Listener) (net.Listener, error) {
	return nil, errors.ErrUnsupported
}
