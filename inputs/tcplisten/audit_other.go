//go:build !linux

package tcplisten

import (
	"context"

	"sockwatch/agent/plugin"
)

// Audit returns an error: listeners cannot be read on this system.
func Audit(context.Context, plugin.Input) (*Report, error) { return nil, errNoLinux }

// Suggest returns an error: listeners cannot be read on this system.
func Suggest(context.Context, plugin.Input, bool) (*Draft, error) { return nil, errNoLinux }
