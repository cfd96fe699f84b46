package tcplisten

import (
	"slices"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/history"
)

// RecentChanges returns the changes in the history of an input, oldest first: the last 2,000
// events, except those of rules. name is the name of the input in the configuration. Reading
// does not disturb the agent that writes the history.
func RecentChanges(stateDir, name string) ([]metric.Point, error) {
	events, err := history.Read(historyPath(stateDir, name))
	return slices.DeleteFunc(events, func(p metric.Point) bool { return p.Name != PointEvent }), err
}
