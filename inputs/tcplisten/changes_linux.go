package tcplisten

import (
	"slices"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/history"
)

// RecentChanges returns the changes that the history of an input holds, oldest first: the
// last 2,000 events, those of rules excluded. name is that of the input in the
// configuration. Reading does not disturb the agent that keeps the history.
func RecentChanges(stateDir, name string) ([]metric.Point, error) {
	events, err := history.Read(historyPath(stateDir, name))
	return slices.DeleteFunc(events, func(p metric.Point) bool { return p.Name != PointEvent }), err
}
