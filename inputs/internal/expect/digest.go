package expect

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/plugin"
)

// digest returns 12 hexadecimal digits that depend only on the meaning of the rules.
func digest(o *Options) string {
	lines := []string{fmt.Sprintf("unlisted %v", o.reportsUnlisted())}
	for _, d := range o.declarations() {
		c := d.criteria.canonical()
		if d.kind != kindExpect {
			c.Port = c.Port.merged()
		}
		text, err := json.Marshal(struct {
			Kind, Name string
			Criteria   Criteria
			Min        int
			For        time.Duration
			Approval   *Approval
			Labels     map[string]string `json:",omitempty"`
		}{d.kind, d.name, c, d.min, d.hold, d.approval, d.labels})
		if err != nil {
			panic(err) // cannot happen: plain data
		}
		lines = append(lines, string(text))
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(lines), "\n")))
	return hex.EncodeToString(sum[:6])
}

// canonical returns the criteria with all lists sorted, and CIDRs in one form.
func (c Criteria) canonical() Criteria {
	c.Port = slices.SortedFunc(slices.Values(c.Port), comparePorts)
	c.Address = slices.Clone(c.Address)
	for i, a := range c.Address {
		if p, err := parseAddress(a); err == nil && p.prefix.IsValid() {
			c.Address[i] = p.prefix.String()
		}
	}
	c.Address = sortedStrings(c.Address)
	for _, option := range globOptions {
		list := option.patterns(&c)
		*list = sortedStrings(*list)
	}
	return c
}

// merged returns sorted ports with adjacent and overlapping ranges as one. To an expect rule
// each range means something of its own; to other rules only the ports matter.
func (p Ports) merged() (all Ports) {
	for _, r := range p {
		if last := len(all) - 1; last >= 0 && int(r.First) <= int(all[last].Last)+1 {
			all[last].Last = max(all[last].Last, r.Last)
		} else {
			all = append(all, r)
		}
	}
	return all
}

func sortedStrings(list plugin.Strings) plugin.Strings {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}
