package expect

import (
	"maps"
	"slices"
)

// Labels returns the sorted keys of the labels of all rules.
func (r *Rules) Labels() []string {
	keys := make(map[string]bool)
	for _, n := range r.rules {
		for key := range n.labels {
			keys[key] = true
		}
	}
	return slices.Sorted(maps.Keys(keys))
}
