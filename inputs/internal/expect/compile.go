package expect

import (
	"fmt"
	"time"
)

// A rule is one compiled rule.
type rule struct {
	index    int // in Rules.rules
	kind     string
	name     string // for display; generated for an allow rule without a name
	ports    Ports
	address  []addressPattern
	globs    []globCriterion
	criteria *Criteria // as written, to explain mismatches
	min      int
	hold     time.Duration // the option "for"
	approval Approval
	expires  time.Time // the end of its last day; zero: never
	labels   map[string]string
}

// Compile compiles options that have passed ValidateRules. Otherwise it returns the first
// error.
func Compile(o Options) (*Rules, error) {
	r := &Rules{byPort: make(map[uint16][]*rule), digest: digest(o)}
	for i := range o.Forbid {
		f := &o.Forbid[i]
		err := r.add(&rule{
			kind: kindForbid, name: f.Name, criteria: &f.Criteria, hold: time.Duration(f.For), approval: f.Approval, labels: f.Labels,
		})
		if err != nil {
			return nil, err
		}
	}
	for i := range o.Expect {
		e := &o.Expect[i]
		err := r.add(&rule{
			kind: kindExpect, name: e.Name, criteria: &e.Criteria, min: max(e.Min, 1), hold: time.Duration(e.For),
			approval: e.Approval, labels: e.Labels,
		})
		if err != nil {
			return nil, err
		}
	}
	for i := range o.Allow {
		a := &o.Allow[i]
		name := a.Name
		if name == "" {
			name = fmt.Sprintf("allow %d", i+1)
		}
		if err := r.add(&rule{kind: kindAllow, name: name, criteria: &a.Criteria, approval: a.Approval}); err != nil {
			return nil, err
		}
	}
	r.unlisted = o.reportsUnlisted()
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
