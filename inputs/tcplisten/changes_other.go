//go:build !linux

package tcplisten

import "sockwatch/agent/metric"

// RecentChanges returns an error: there is no history.
func RecentChanges(string, string) ([]metric.Point, error) { return nil, errNoLinux }
