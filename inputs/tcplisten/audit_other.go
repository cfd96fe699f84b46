//go:build !linux

package tcplisten

import (
	"context"

	"sockwatch/agent/plugin"
)

// Audit returns an error: this system has no listeners to compare with the rules.
func Audit(context.Context, plugin.Input) (*Report, error) { return nil, errNoLinux }

// Suggest returns an error: there is nothing to make rules of.
func Suggest(context.Context, plugin.Input, bool) (*Draft, error) { return nil, errNoLinux }
