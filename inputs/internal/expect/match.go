package expect

import "slices"

// A truth is a three-valued boolean, since a listener may be only partly known.
type truth uint8

const (
	falsely truth = iota // false
	unknown              // unknown
	truly                // true
)

// match returns whether the rule matches a listener on one of its ports. All criteria must
// hold, and a single owner must satisfy all criteria about owners.
func (n *rule) match(l *Listener, owners []*Holder) truth {
	if !n.matchAddress(l) {
		return falsely
	}
	best := falsely
	for _, h := range owners {
		holds := truly
		for i := range n.globs {
			if holds = min(holds, n.globs[i].match(l, h)); holds == falsely {
				break
			}
		}
		if best = max(best, holds); best == truly {
			break
		}
	}
	return best
}

func (n *rule) matchAddress(l *Listener) bool {
	return n.address == nil || slices.ContainsFunc(n.address, func(p addressPattern) bool { return p.match(l) })
}

// owners returns the holders to compare rules with. If some are unknown or there are none,
// the result includes nil, which stands for the socket itself.
func (l *Listener) owners() []*Holder {
	owners := make([]*Holder, 0, 4)
	for i := range l.Holders {
		owners = append(owners, &l.Holders[i])
	}
	if l.OwnerUnknown || len(owners) == 0 {
		owners = append(owners, nil)
	}
	return owners
}

// A globCriterion is a criterion that compares one value with a list of globs.
type globCriterion struct {
	option int // index in globOptions
	globs  []glob
	any    bool // a glob is "*", which also matches unknown values
}

// match compares the criterion with a holder, or with the socket if h is nil.
func (c *globCriterion) match(l *Listener, h *Holder) truth {
	value, known := globOptions[c.option].value(l, h)
	switch {
	case c.any:
		return truly
	case !known:
		return unknown
	case slices.ContainsFunc(c.globs, func(g glob) bool { return g.match(value) }):
		return truly
	default:
		return falsely
	}
}
