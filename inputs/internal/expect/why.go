package expect

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/plugin"
)

// A Reason is a sentence and the rule that it refers to.
type Reason struct {
	Rule string // "" if no rule comes close
	Why  string // "port 8443 is not in 80,443 of rule web"
}

// Why explains the verdict on a listener: it names the rule that decided, or the nearest rule
// and the criteria that do not match. It compares the listener with every rule.
func (r *Rules) Why(l *Listener, now time.Time) Reason {
	switch v := r.Verdict(l, now); v.Expected {
	case Forbidden, Yes:
		return Reason{v.Rule, v.by.because("matches " + v.by.title())}
	}
	n, h := r.nearest(l, now)
	switch {
	case len(r.rules) == 0:
		return Reason{Why: "there are no rules"}
	case n == nil:
		return Reason{Why: "no rule comes close: none names this port, process, program, unit or container"}
	}
	return Reason{n.name, strings.Join(n.explain(l, h, now), " and ") + " of " + n.title()}
}

// Matching returns the rules that match a listener or may match it, in the order of the rules:
// "expect web", "allow ssh: the bastion", "forbid nc, perhaps: process is not known to be nc".
func (r *Rules) Matching(l *Listener, now time.Time) (matching []string) {
	owners := l.owners()
	for _, n := range r.rules {
		if n.ports != nil && !n.ports.contain(l.Port) {
			continue
		}
		sentence := n.kind + " " + n.name
		switch n.match(l, owners) {
		case falsely:
			continue
		case unknown:
			h, _ := n.nearestOwner(l, owners, now)
			sentence += ", perhaps: " + strings.Join(n.explain(l, h, time.Time{}), " and ")
		}
		if n.kind != kindForbid && n.expired(now) {
			sentence += ", which no longer allows anything: " + n.approval.Expires + " was the last day"
		}
		matching = append(matching, n.because(sentence))
	}
	return matching
}

// title returns how a sentence refers to the rule.
func (n *rule) title() string {
	if n.kind == kindForbid {
		return "forbid rule " + n.name
	}
	return "rule " + n.name
}

// because appends the justification of the rule to a sentence.
func (n *rule) because(sentence string) string {
	if n.approval.Why == "" {
		return sentence
	}
	return sentence + ": " + n.approval.Why
}

// nearest returns the rule that is closest to matching, and the owner that comes closest to
// it, or nil if no rule comes close. A rule that may match once the owner is known takes
// precedence.
func (r *Rules) nearest(l *Listener, now time.Time) (nearest *rule, of *Holder) {
	var least distance
	owners := l.owners()
	for _, n := range r.rules {
		h, d := n.nearestOwner(l, owners, now)
		switch {
		case !d.near(), n.kind == kindForbid && d.missed > 0: // a forbid rule that does not match is no fault
		case nearest == nil || d.less(least):
			nearest, of, least = n, h, d
		}
	}
	return nearest, of
}

// nearestOwner returns the owner for which the listener comes closest to matching the rule.
func (n *rule) nearestOwner(l *Listener, owners []*Holder, now time.Time) (nearest *Holder, least distance) {
	for i, h := range owners {
		d := n.distance(l, h)
		if i == 0 || d.less(least) {
			nearest, least = h, d
		}
	}
	if n.kind != kindForbid && n.expired(now) {
		least.missed++
	}
	return nearest, least
}

// A distance is how far a listener is from matching a rule.
type distance struct {
	missed, unknown, held int  // numbers of criteria
	port                  bool // the rule has few ports, and this is one of them
	owner, address        bool // a criterion about the owner, other than the user, holds; that about the address holds
}

// near reports whether a rule is close enough to be worth mentioning. The user root, the
// address 0.0.0.0 or a wide range of ports is not enough: many rules have these in common
// with the listener.
func (d distance) near() bool {
	return d.missed == 0 || d.port || d.owner || d.address && d.missed == 1
}

// less reports whether d is nearer than e. Rules that may still match come first, then rules
// for this very port, then those with the fewest mismatches. So if a program has taken
// another's port, it is compared with the rule for the program that should listen there.
func (d distance) less(e distance) bool {
	switch {
	case (d.missed == 0) != (e.missed == 0):
		return d.missed == 0
	case d.port != e.port:
		return d.port
	case d.missed != e.missed:
		return d.missed < e.missed
	case d.unknown != e.unknown:
		return d.unknown < e.unknown
	default:
		return d.held > e.held
	}
}

// distance compares all criteria of the rule with a listener and one of its owners.
func (n *rule) distance(l *Listener, h *Holder) (d distance) {
	n.eachCriterion(l, h, func(option int, t truth) {
		switch t {
		case truly:
			d.held++
			switch option {
			case optionPort:
				d.port = n.ports.count() <= manyPorts
			case optionAddress:
				d.address = true
			default:
				value, _ := globOptions[option].value(l, h)
				d.owner = d.owner || globOptions[option].telling && value != ""
			}
		case unknown:
			d.unknown++
		default:
			d.missed++
		}
	})
	return d
}

// The criteria that are not globs. Their values are not valid indexes of globOptions.
const (
	optionPort    = -1
	optionAddress = -2
)

// eachCriterion calls visit with each criterion of the rule, and whether it holds.
func (n *rule) eachCriterion(l *Listener, h *Holder, visit func(option int, t truth)) {
	if n.ports != nil {
		visit(optionPort, truthOf(n.ports.contain(l.Port)))
	}
	if n.address != nil {
		visit(optionAddress, truthOf(n.matchAddress(l)))
	}
	for i := range n.globs {
		visit(n.globs[i].option, n.globs[i].match(l, h))
	}
}

// explain returns a sentence for each criterion that does not hold or may not hold.
func (n *rule) explain(l *Listener, h *Holder, now time.Time) (mismatches []string) {
	n.eachCriterion(l, h, func(option int, t truth) {
		what, value, wanted := "port", fmt.Sprint(l.Port), strings.Split(n.ports.String(), ",")
		switch option {
		case optionPort:
		case optionAddress:
			what, value, wanted = "address", l.address(), n.criteria.Address
		default:
			o := &globOptions[option]
			what, wanted = o.name, *o.patterns(n.criteria)
			value, _ = o.value(l, h)
		}
		switch {
		case t == truly:
		case t == unknown:
			mismatches = append(mismatches, what+" is not known to be "+oneOf(wanted))
		case value == "":
			mismatches = append(mismatches, what+" is absent, not "+oneOf(wanted))
		default:
			mismatches = append(mismatches, what+" "+value+" is not "+oneOf(wanted))
		}
	})
	if n.kind != kindForbid && n.expired(now) {
		mismatches = append(mismatches, n.approval.Expires+" was the last day")
	}
	return mismatches
}

func truthOf(b bool) truth {
	if b {
		return truly
	}
	return falsely
}

// oneOf formats the values of an option: "80", or "in 80,443".
func oneOf(wanted plugin.Strings) string {
	shown := slices.Clone(wanted)
	for i, w := range shown {
		if w == "" {
			shown[i] = `""`
		}
	}
	if len(shown) == 1 {
		return shown[0]
	}
	return "in " + strings.Join(shown, ",")
}
