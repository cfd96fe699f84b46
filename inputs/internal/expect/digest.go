package expect

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"sockwatch/agent/plugin"
)

// digest returns 12 hexadecimal digits that depend only on the meaning of the rules.
func digest(o Options) string {
	lines := []string{"unlisted " + o.Unlisted}
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
		add(kindAllow, r)
	}
	for _, r := range o.Forbid {
		r.Criteria, r.Labels = r.canonical(), orNil(r.Labels)
		add(kindForbid, r)
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:6])
}

func orNil(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	return labels
}

// canonical returns the criteria with all lists sorted.
func (c Criteria) canonical() Criteria {
	c.Port = slices.SortedFunc(slices.Values(c.Port), comparePorts)
	c.Address = sortedStrings(c.Address)
	for _, option := range globOptions {
		list := option.patterns(&c)
		*list = sortedStrings(*list)
	}
	return c
}

func sortedStrings(list plugin.Strings) plugin.Strings {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}
