//go:build !linux

package listen

import (
	"context"
	"errors"
	"net"
)

// listenBeside is not known to be possible here: the address is in use.
func listenBeside(context.Context, string, []net.Listener) (net.Listener, error) {
	return nil, errors.ErrUnsupported
}
