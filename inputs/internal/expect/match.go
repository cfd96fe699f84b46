package expect

import "slices"

// A truth says whether something is true of a listener that is only partly known.
type truth uint8

const (
	falsely truth = iota // false
	unknown              // unknown
	truly                // true
)

// match returns whether the rule matches a listener on one of its ports: all criteria must
// hold, those of the owner for one of the owners together.
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

// owners returns the holders to compare rules with. If not all are known, or if there
// are none, nil is one of them: the socket itself.
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

// A globCriterion is a criterion that is a list of globs over one value.
type globCriterion struct {
	option int // in globOptions
	globs  []glob
	any    bool // one of them is "*", which also matches unknown values
}

// match compares the criterion with a holder, or with the socket if h is nil.
func (c *globCriterion) match(l *Listener, h *Holder) truth {
	value, known := l.value(globOptions[c.option].name, h)
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

// value returns the value of an option for a holder, or for the socket if h is nil, and
// whether that is known.
func (l *Listener) value(option string, h *Holder) (value string, known bool) {
	switch option {
	case "netns":
		return l.Netns, true
	case "family":
		return l.Family, true
	case "exposure":
		return l.Exposure.String(), true
	case "user":
		if h != nil && h.User != "" {
			return h.User, true
		}
		return l.User, !l.UserPending
	}
	if option == "process" || option == "exe" {
		switch {
		case h == nil:
			return "", !l.OwnerUnknown
		case option == "process":
			return h.Process, h.Process != ""
		default:
			return h.Exe, h.Exe != ""
		}
	}
	unit, userUnit, container, pod := l.Unit, l.UserUnit, l.Container, l.Pod
	known = !l.OwnerUnknown
	if h != nil {
		known = !h.CgroupUnknown
	}
	if h != nil && known {
		unit, userUnit, container, pod = h.Unit, h.UserUnit, h.Container, h.Pod
	}
	// Of the four, one that is set proves that the socket's cgroup is known.
	known = known || unit+userUnit+container+pod != ""
	switch option {
	case "unit":
		return unit, known
	case "user_unit":
		return userUnit, known
	case "container":
		return container, known
	default:
		return pod, known
	}
}
