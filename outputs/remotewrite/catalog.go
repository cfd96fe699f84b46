package remotewrite

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/outputs/internal/promname"
)

// A catalog is the documentation of all metrics seen since the start. It is written by
// UseDescs and read by Push.
type catalog struct {
	mu     sync.Mutex
	byName map[string]metadata // replaced, never changed
	seen   map[*metric.Desc]bool

	sent time.Time // when the last request of version 1.0 had it; only Push uses it
}

// learn adds descs, unless it has.
func (c *catalog) learn(descs []metric.Desc) {
	if len(descs) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[&descs[0]] {
		return
	}
	if c.seen == nil || len(c.seen) >= maxTables {
		c.seen = map[*metric.Desc]bool{}
	}
	c.seen[&descs[0]] = true
	byName := make(map[string]metadata, len(c.byName)+len(descs))
	if len(c.byName) < maxFields {
		maps.Copy(byName, c.byName)
	}
	for _, d := range descs {
		if d.Type == metric.Untyped {
			continue // a string
		}
		name := promname.Metric(d.Name, d.Field)
		byName[name] = metadata{kind: d.Type, help: d.Help, unit: unit(name, d.Unit)}
	}
	c.byName = byName
}

// unit returns the unit of a metric. OpenMetrics requires that its name has the unit as a
// suffix, and other words ("connections") are not units there.
func unit(name, unit string) string {
	if strings.HasSuffix(strings.TrimSuffix(name, "_total"), "_"+unit) {
		return unit
	}
	return ""
}

// all returns the documentation by the name of the metric. It must not be changed.
func (c *catalog) all() map[string]metadata {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byName
}

// resendDocs is how often requests of version 1.0 contain the documentation of all metrics.
// Grafana Mimir forgets it after ten minutes.
const resendDocs = 5 * time.Minute

// due returns all of the documentation if it has to be sent again.
func (c *catalog) due() map[string]metadata {
	if time.Since(c.sent) < resendDocs {
		return nil
	}
	return c.all()
}

func sortedNames(docs map[string]metadata) []string { return slices.Sorted(maps.Keys(docs)) }
