package expect

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"sockwatch/agent/plugin"
)

// digest returns 12 hexadecimal digits that depend only on the meaning of the rules.
func digest(o Options) string {
	lines := []string{fmt.Sprintf("unlisted %v", o.reportsUnlisted())}
	add := func(kind string, rule any) {
		text, err := json.Marshal(rule)
		if err != nil {
			panic(err) // cannot happen: plain data
		}
		lines = append(lines, kind+" "+string(text))
	}
	for _, r := range o.Expect {
		r.Criteria, r.Labels = r.canonical(), orNil(r.Labels)
		add(kindExpect, r)
	}
	for _, r := range o.Allow {
		r.Criteria = r.canonical()
		r.Port = r.Port.merged()
		add(kindAllow, r)
	}
	for _, r := range o.Forbid {
		r.Criteria, r.Labels = r.canonical(), orNil(r.Labels)
		r.Port = r.Port.merged()
		add(kindForbid, r)
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(lines), "\n")))
	return hex.EncodeToString(sum[:6])
}

func orNil(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	return labels
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
