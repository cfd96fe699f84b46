package promname

import (
	"maps"
	"strings"
	"sync"

	"sockwatch/agent/metric"
)

// Docs are the documentation of all fields seen since the start. The zero value is empty.
// Its methods may be called concurrently.
type Docs struct {
	mu     sync.Mutex
	byName map[string]Doc // replaced, never changed
	seen   map[*metric.Desc]bool
}

// A Doc is the documentation of a metric, or of a string, which is untyped. Its texts are
// UTF-8.
type Doc struct {
	Type metric.Type
	Help string
	// Unit is empty unless the name of the metric has it as a suffix, as OpenMetrics requires:
	// other words, such as "connections", are not units there.
	Unit string
}

// maxSeen bounds the memory for what was learned.
const maxSeen = 100

// Learn adds the documentation of fields, unless it has. descs must not change.
func (d *Docs) Learn(descs []metric.Desc) {
	if len(descs) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen[&descs[0]] {
		return
	}
	if d.seen == nil || len(d.seen) >= maxSeen {
		d.seen = map[*metric.Desc]bool{}
	}
	d.seen[&descs[0]] = true
	byName := make(map[string]Doc, len(d.byName)+len(descs))
	if len(d.byName) < maxNames {
		maps.Copy(byName, d.byName)
	}
	for _, desc := range descs {
		name := Metric(desc.Name, desc.Field)
		byName[name] = Doc{Type: desc.Type, Help: strings.ToValidUTF8(desc.Help, "?"), Unit: suffixUnit(name, desc.Unit)}
	}
	d.byName = byName
}

// suffixUnit returns the unit of a metric if it is a suffix of its name.
func suffixUnit(name, unit string) string {
	if strings.HasSuffix(strings.TrimSuffix(name, "_total"), "_"+unit) {
		return unit
	}
	return ""
}

// All returns the documentation by the name of the metric. It must not be changed.
func (d *Docs) All() map[string]Doc {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.byName
}
