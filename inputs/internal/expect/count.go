package expect

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sockwatch/agent/metric"
)

// A count is the number of endpoints that match a rule. Sockets that share an endpoint are
// counted once.
type count struct {
	matches, undecided int
	elements           []elementCount // one for each element of the rule's ports, at least one
}

type elementCount struct{ matches, undecided int }

// An endpoint is the address and port that a socket listens on.
type endpoint struct {
	netns, device string
	address       netip.Addr
	port          uint16
}

func (l *Listener) endpoint() endpoint { return endpoint{l.Netns, l.Device, l.Address, l.Port} }

// count counts the endpoints that match each expect and forbid rule, by rule.index.
func (r *Rules) count(listeners []Judged) []count {
	type pair struct {
		rule     int
		endpoint endpoint
	}
	certain := make(map[pair]bool) // true: it matches; false: it may match
	var order []pair
	for _, j := range listeners {
		for _, m := range j.matches {
			p := pair{m.rule.index, j.endpoint()}
			was, known := certain[p]
			if !known {
				order = append(order, p)
			}
			certain[p] = was || !m.undecided
		}
	}
	counts := make([]count, len(r.rules))
	for i, n := range r.rules {
		counts[i].elements = make([]elementCount, max(1, len(n.ports)))
	}
	for _, p := range order {
		c := &counts[p.rule]
		add := func(matches, undecided *int) {
			if certain[p] {
				*matches++
			} else {
				*undecided++
			}
		}
		add(&c.matches, &c.undecided)
		ports := r.rules[p.rule].ports
		for i := range c.elements {
			if ports == nil || ports[i].contains(p.endpoint.port) {
				add(&c.elements[i].matches, &c.elements[i].undecided)
			}
		}
	}
	return counts
}

// up reports whether a rule holds, and whether that is known.
func (n *rule) up(c count) (up, decided bool) {
	if n.kind == kindForbid {
		return c.matches == 0, c.matches > 0 || c.undecided == 0
	}
	up, decided = true, true
	for _, e := range c.elements {
		switch {
		case e.matches >= n.min:
		case e.matches+e.undecided >= n.min:
			up, decided = false, false
		default:
			return false, true
		}
	}
	return up, decided
}

// missing explains why an expect rule does not hold. For each element of its ports with too
// few matching endpoints, it gives their number and the nearest listener.
func (r *Rules) missing(n *rule, c count, listeners []Judged) string {
	var all []string
	for i, e := range c.elements {
		if e.matches >= n.min {
			continue
		}
		part := *n // the rule with only this element
		sentence := ""
		if n.ports != nil {
			part.ports = n.ports[i : i+1]
			sentence = "port " + n.ports[i].String() + ": "
		}
		sentence += fmt.Sprintf("%d of %d endpoints", e.matches, n.min)
		if e.undecided > 0 {
			sentence += fmt.Sprintf(", %d undecided", e.undecided)
		}
		if l, h := part.nearestListener(listeners); l != nil {
			sentence += fmt.Sprintf("; nearest %s: %s", l.title(), strings.Join(part.explain(l, h, time.Time{}), " and "))
		}
		all = append(all, sentence)
	}
	return strings.Join(all, "; ")
}

// nearestListener returns the listener that is closest to matching the rule without matching
// it, or nil if none is close.
func (n *rule) nearestListener(listeners []Judged) (nearest *Listener, of *Holder) {
	var least distance
	for _, j := range listeners {
		h, d := n.nearestOwner(j.Listener, j.owners(), time.Time{})
		if !d.near() || d.missed+d.unknown == 0 {
			continue
		}
		c := 0
		if nearest != nil {
			c = compareListeners(j.Listener, nearest)
		}
		if nearest == nil || d.less(least) || !least.less(d) && c < 0 {
			nearest, of, least = j.Listener, h, d
		}
	}
	return nearest, of
}

// title returns how a sentence refers to a listener: by its address, port and process.
func (l *Listener) title() string {
	title := netip.AddrPortFrom(l.Address, l.Port).String()
	if l.Device != "" {
		title = fmt.Sprintf("%s:%d", l.address(), l.Port)
	}
	if process := l.tag("process"); process != "" {
		title += " of " + process
	}
	return title
}

// tag returns the value of a tag of the listener's point, or "".
func (l *Listener) tag(key string) string { return tagOf(l.Tags, key) }

func tagOf(tags []metric.Tag, key string) string {
	for _, t := range tags {
		if t.Key == key {
			return t.Value
		}
	}
	return ""
}

// compareListeners orders listeners by namespace, port and address.
func compareListeners(a, b *Listener) int {
	return cmp.Or(
		cmp.Compare(a.Netns, b.Netns),
		cmp.Compare(a.Port, b.Port),
		a.Address.Compare(b.Address),
		cmp.Compare(a.Device, b.Device),
	)
}
