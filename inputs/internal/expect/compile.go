package expect

import (
	"fmt"
	"time"
)

// A rule is one compiled rule. An allow rule without a name is named for display.
type rule struct {
	declaration
	index   int // in Rules.rules
	ports   Ports
	address []addressPattern
	globs   []globCriterion
	expires time.Time // the end of its last day; zero: never
}

// Compile compiles options that have passed ValidateRules. Otherwise it returns the first
// error.
func Compile(o Options) (*Rules, error) {
	r := &Rules{byPort: make(map[uint16][]*rule), digest: digest(&o), unlisted: o.reportsUnlisted()}
	all := o.declarations()
	for _, kind := range [...]string{kindForbid, kindExpect, kindAllow} {
		number := 0
		for _, d := range all {
			if d.kind != kind {
				continue
			}
			number++
			if d.name == "" {
				d.name = fmt.Sprintf("%s %d", kind, number)
			}
			if err := r.add(&rule{declaration: d}); err != nil {
				return nil, err
			}
		}
	}
	r.active = len(r.rules) > 0 || len(o.ExpectFile) > 0 || o.Unlisted == UnlistedUnexpected
	return r, nil
}

// reportsUnlisted reports whether a listener that no rule matches is unexpected.
func (o *Options) reportsUnlisted() bool {
	return o.Unlisted == UnlistedUnexpected || o.Unlisted != UnlistedIgnore && len(o.Allow) > 0
}

// manyPorts is the largest number of ports for which a rule is indexed by port.
const manyPorts = 64

// add compiles and adds a rule.
func (r *Rules) add(n *rule) (err error) {
	n.index, n.ports = len(r.rules), n.criteria.Port
	if n.expires, err = parseDate(n.approval.Expires); err != nil {
		return err
	}
	for _, a := range n.criteria.Address {
		p, err := parseAddress(a)
		if err != nil {
			return err
		}
		n.address = append(n.address, p)
	}
	for i, option := range globOptions {
		c := globCriterion{option: i}
		for _, pattern := range *option.patterns(n.criteria) {
			g, err := compileGlob(pattern)
			if err != nil {
				return err
			}
			c.globs = append(c.globs, g)
			c.any = c.any || pattern == "*"
		}
		if c.globs != nil {
			n.globs = append(n.globs, c)
		}
	}
	r.rules = append(r.rules, n)
	if ports := n.ports.count(); ports == 0 || ports > manyPorts {
		r.others = append(r.others, n)
		return nil
	}
	for _, p := range n.ports {
		for port := int(p.First); port <= int(p.Last); port++ {
			if same := r.byPort[uint16(port)]; len(same) == 0 || same[len(same)-1] != n {
				r.byPort[uint16(port)] = append(same, n)
			}
		}
	}
	return nil
}
