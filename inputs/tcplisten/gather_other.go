//go:build !linux

package tcplisten

import (
	"context"
	"errors"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

type input struct{}

func newInput(Options, plugin.Env) (plugin.Input, error) { return input{}, nil }

func (input) Gather(context.Context) (metric.Batch, error) {
	return metric.Batch{}, errNoLinux
}

var errNoLinux = errors.New("tcp_listen needs Linux: it reads the kernel's list of sockets")
