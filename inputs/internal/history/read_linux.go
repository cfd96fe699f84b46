package history

import (
	"fmt"
	"slices"

	"sockwatch/agent/metric"
)

// Read returns the events of the history in a file, oldest first: the last 2,000 that were
// handed out, and those that are waiting. It neither locks nor changes the file, and a
// running agent may write to it at the same time. The error wraps fs.ErrNotExist or
// fs.ErrPermission if that is the cause.
func Read(path string) ([]metric.Point, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	c, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	events := slices.Concat(c.recent, c.waiting)
	slices.SortFunc(events, func(a, b *event) int { return int(a.sequence - b.sequence) })
	points := make([]metric.Point, len(events))
	for i, e := range events {
		points[i] = e.point
	}
	return points, nil
}
