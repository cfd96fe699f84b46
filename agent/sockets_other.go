//go:build !linux

package agent

import (
	"context"
	"errors"
	"net"
)

// listenBeside is not known to be possible here: that the address is in use stands.
func listenBeside(context.Context, string, []net.Listener) (net.Listener, error) {
	return nil, errors.ErrUnsupported
}
