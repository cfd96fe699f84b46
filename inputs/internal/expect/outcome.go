package expect

import "sockwatch/agent/metric"

// An outcome is the state of an expect or forbid rule. It is stored as the rule's record.
type outcome struct {
	Decided  bool  `json:"k,omitempty"` // Up is known
	Up       bool  `json:"u,omitempty"`
	Since    start `json:"s,omitzero"`  // when the failure began, if the rule is not up
	Reported bool  `json:"e,omitempty"` // the event of the failure has been sent
}

// follow updates the state of a rule. Only expect rules have events here. A forbid rule's
// events are those of its violations.
func (e *evaluation) follow(n *rule, o *outcome, c count) {
	before := *o
	up, decided := n.up(c)
	switch {
	case !decided: // it stays unchanged
	case up:
		if o.Reported {
			end := e.begin()
			e.event("restored", &end, n.tags(), seconds("lasted_seconds", o.Since.until(&end)))
		}
		*o = outcome{Decided: true, Up: true}
	default:
		if o.Up || !o.Decided {
			*o = outcome{Decided: true, Since: e.begin()}
		}
		if n.kind == kindExpect && !o.Reported && e.lasted(&o.Since, n.hold, e.tracker.options.SettleBoot) {
			o.Reported = true
			e.event("failed", &o.Since, n.tags(),
				text("why", e.tracker.rules.missing(n, c, e.scan.Listeners)),
				metric.Field{Key: "matches", Value: metric.Int(int64(c.matches))},
				metric.Field{Key: "undecided", Value: metric.Int(int64(c.undecided))})
		}
	}
	if *o != before {
		e.set[n.recordKey()] = encode(o)
	}
}

// tags returns the tags that identify a rule.
func (n *rule) tags() []metric.Tag { return metric.NewTags("name", n.name, "rule", n.kind) }

// recordKey is the key of the rule's outcome in the history.
func (n *rule) recordKey() string { return recordPrefix + n.kind + ":" + n.name }
