package expect

import (
	"cmp"
	"slices"
	"time"

	"sockwatch/agent/metric"
)

// followViolations updates the violations.
func (e *evaluation) followViolations() {
	vs := &e.tracker.violations
	vs.scans++
	fresh := e.findViolations()
	missing := vs.present(false)
	if len(missing) > 0 && len(fresh) > 0 {
		fresh, missing = e.takeOver(fresh, missing)
	}
	e.followNew(fresh)
	for _, v := range vs.present(true) {
		if !v.Reported {
			e.violated(v, e.ownerWait(v))
		}
	}
	missing = slices.DeleteFunc(missing, func(v *violation) bool { return v.scan == vs.scans }) // ongoing overflows
	if len(missing) > 0 {
		p := presenceOf(e.scan.Listeners)
		for _, v := range missing {
			e.missing(v, p)
		}
	}
}

// A candidate is a violation in the current scan that is not tracked yet.
type candidate struct {
	Judged
	key  violationKey
	hold time.Duration // the option "for" of the rule
}

// newCandidate returns a listener as a candidate. Its verdict is Forbidden or No.
func newCandidate(j Judged) candidate {
	c := candidate{Judged: j, key: violationKey{verdict: j.Expected, identity: identityOf(j.Tags)}}
	if j.Expected == Forbidden {
		c.key.rule, c.hold = j.by.name, j.by.hold
	}
	return c
}

// findViolations renews the tracked violations that are still present. It returns the new
// ones, in order.
func (e *evaluation) findViolations() []*candidate {
	vs := &e.tracker.violations
	byKey := make(map[violationKey]*candidate)
	var fresh []*candidate
	for _, j := range e.scan.Listeners {
		if j.Expected != Forbidden && j.Expected != No {
			continue
		}
		c := newCandidate(j)
		if v := vs.byKey[c.key]; v != nil {
			if v.scan != vs.scans || compareListeners(j.Listener, v.last) < 0 {
				e.renew(v, &c)
			}
			continue
		}
		switch known := byKey[c.key]; {
		case known == nil:
			byKey[c.key] = &c
			fresh = append(fresh, &c)
		case compareListeners(j.Listener, known.Listener) < 0:
			known.Judged = j
		}
	}
	slices.SortFunc(fresh, func(a, b *candidate) int {
		return cmp.Or(compareListeners(a.Listener, b.Listener), a.key.compare(b.key))
	})
	return fresh
}

// renew records that a violation is present, and its current details.
func (e *evaluation) renew(v *violation, c *candidate) {
	changed := v.Gone != nil || v.Unknown != c.OwnerUnknown || v.Hold != c.hold || !slices.Equal(v.Tags, c.Tags)
	v.Tags, v.Unknown, v.Hold, v.Gone = c.Tags, c.OwnerUnknown, c.hold, nil
	if !v.Unknown {
		v.Owner = ownerTags(c.Listener)
	}
	v.last, v.scan = c.Listener, e.tracker.violations.scans
	if changed {
		v.point = nil
		e.save(v)
	}
}

// ownerTags returns the tags that name the owner of a listener.
func ownerTags(l *Listener) tagSet {
	return metric.NewTags("process", l.tag("process"), "unit", l.tag("unit"))
}

// takeOver finds missing violations that are present again with an owner that has become
// known or unknown. They are the same violations, because an unknown owner equals any owner.
// An owner that becomes known is compared with the last known one.
func (e *evaluation) takeOver(fresh []*candidate, missing []*violation) ([]*candidate, []*violation) {
	vs := &e.tracker.violations
	byEndpoint := make(map[violationKey]*violation)
	for _, v := range missing {
		byEndpoint[v.key.withoutOwner()] = v
	}
	fresh = slices.DeleteFunc(fresh, func(c *candidate) bool {
		endpoint := c.key.withoutOwner()
		v := byEndpoint[endpoint]
		switch {
		case v == nil:
			return false
		case c.OwnerUnknown:
		case !v.Unknown, len(v.Owner) > 0 && !slices.Equal(v.Owner, ownerTags(c.Listener)):
			return false
		}
		delete(byEndpoint, endpoint)
		delete(vs.byKey, v.key)
		e.set[v.key.recordKey()] = nil
		v.key = c.key
		vs.byKey[v.key] = v
		e.renew(v, c)
		e.save(v)
		return true
	})
	return fresh, vs.present(false)
}

// followNew starts to track new violations up to the limits, and aggregates the rest in
// overflow violations.
func (e *evaluation) followNew(fresh []*candidate) {
	if len(fresh) == 0 && !e.tracker.violations.overflowing() {
		return
	}
	vs := &e.tracker.violations
	followed, perUser, overflow := 0, make(map[string]int), 0
	for _, v := range vs.byKey {
		if v.count = 0; v.Overflow {
			overflow++
			continue
		}
		followed++
		perUser[tagOf(v.Tags, "user")]++
	}
	for _, c := range fresh {
		user := c.tag("user")
		if perUser[user] < e.tracker.options.MaxPerUser && followed < e.tracker.options.Max {
			perUser[user]++
			followed++
			e.begins(c)
			continue
		}
		key := overflowKey(c.Expected, user)
		if vs.byKey[key] == nil && overflow >= maxOverflow {
			user, key = "", overflowKey(c.Expected, "")
		}
		v := vs.byKey[key]
		if v == nil {
			overflow++
			v = &violation{key: key, violationRecord: violationRecord{
				Verdict: c.Expected, Tags: metric.NewTags("user", user), Overflow: true, Since: e.begin(),
			}}
			vs.byKey[key] = v
			e.save(v)
		}
		if v.Gone != nil {
			v.Gone = nil
			e.save(v)
		}
		v.scan = vs.scans
		v.count++
	}
}

// overflowing reports whether there are overflow violations.
func (vs *violations) overflowing() bool {
	for _, v := range vs.byKey {
		if v.Overflow {
			return true
		}
	}
	return false
}

// begins starts to track a violation.
func (e *evaluation) begins(c *candidate) {
	vs := &e.tracker.violations
	v := &violation{key: c.key, last: c.Listener, scan: vs.scans, violationRecord: violationRecord{
		Verdict: c.Expected, Rule: c.key.rule, Tags: c.Tags, Unknown: c.OwnerUnknown, Hold: c.hold, Since: e.begin(),
	}}
	if !v.Unknown {
		v.Owner = ownerTags(c.Listener)
	}
	if e.ownerWait(v) > 0 {
		v.Why = e.tracker.rules.Why(v.last, e.scan.Time).Why
	}
	vs.byKey[v.key] = v
	e.save(v)
}

// save adds the record of a violation to the changes for the history.
func (e *evaluation) save(v *violation) { e.set[v.key.recordKey()] = encode(&v.violationRecord) }

// ownerWait returns how long the event of a violation waits for the search for the owner.
func (e *evaluation) ownerWait(v *violation) time.Duration {
	if v.last != nil && v.last.OwnerPending {
		return e.tracker.options.OwnerWait
	}
	return 0
}

// violated reports a violation if it has lasted as long as its rule and the search for the
// owner require.
func (e *evaluation) violated(v *violation, wait time.Duration) {
	if !e.lasted(&v.Since, max(v.Hold, wait), 0) {
		return
	}
	v.Reported = true
	var fields []metric.Field
	switch {
	case v.Overflow:
		fields = append(fields, metric.Field{Key: "count", Value: metric.Int(int64(v.count))})
	case v.last != nil:
		if v.last.Facts != nil {
			fields = slices.Clone(v.last.Facts())
		}
		fields = append(fields, text("why", e.tracker.rules.Why(v.last, e.scan.Time).Why))
	case v.Why != "":
		fields = append(fields, text("why", v.Why))
	}
	fields = append(fields, text("verdict", v.Verdict))
	e.event("violated", &v.Since, v.eventTags(), fields...)
	e.save(v)
}

// missing handles a violation that is not in this scan. While that is undecided, the
// violation and its point stay unchanged.
func (e *evaluation) missing(v *violation, p presence) {
	verdict, listens := p.verdicts[identityOf(v.Tags)]
	listens = listens && !v.Overflow
	if listens && verdict == Undecided || !listens && p.mayBe(v) {
		if e.tracker.rules.mayDecide(v) {
			if v.scan = e.tracker.violations.scans; v.Gone != nil {
				v.Gone = nil
				e.save(v)
			}
			return
		}
		listens, verdict = true, ""
	}
	if v.Gone == nil {
		gone := e.begin()
		v.Gone = &gone
		e.save(v)
	}
	if !v.Reported && v.Hold == 0 {
		e.violated(v, 0) // it was present, if only briefly
	}
	options := &e.tracker.options
	if v.Reported && !listens && !e.lasted(v.Gone, options.Settle, options.SettleBoot) {
		return
	}
	if v.Reported {
		why := "the listener is gone"
		switch {
		case listens && (verdict == Forbidden || verdict == No):
			why = "the listener violates another rule"
		case listens && verdict == Yes:
			why = "the rules allow the listener"
		case listens:
			why = "the listener no longer violates any rule"
		}
		e.event("cleared", v.Gone, v.eventTags(),
			text("why", why), text("verdict", v.Verdict), seconds("lasted_seconds", v.Since.until(v.Gone)))
	}
	delete(e.tracker.violations.byKey, v.key)
	e.set[v.key.recordKey()] = nil
}

// mayDecide reports whether the rules can still result in the verdict of a violation. After
// a reload its rule may be gone.
func (r *Rules) mayDecide(v *violation) bool {
	if v.Verdict == No {
		return r.unlisted
	}
	return slices.ContainsFunc(r.rules, func(n *rule) bool { return n.kind == kindForbid && n.name == v.Rule })
}

// A presence summarizes the listeners of a scan.
type presence struct {
	verdicts map[identity]string // the worst verdict
	unknown  map[identity]bool   // by identity.withoutOwner: whether an undecided listener has an unknown owner
}

func presenceOf(listeners []Judged) presence {
	p := presence{verdicts: make(map[identity]string, len(listeners)), unknown: make(map[identity]bool)}
	for _, j := range listeners {
		key := identityOf(j.Tags)
		p.verdicts[key] = Worst(Verdict{Expected: p.verdicts[key]}, j.Verdict).Expected
		if j.OwnerUnknown && j.Expected == Undecided {
			p.unknown[key.withoutOwner()] = true
		}
	}
	return p
}

// mayBe reports whether one of the listeners may be the violation's, with an owner that is
// currently unknown.
func (p presence) mayBe(v *violation) bool {
	return !v.Overflow && p.unknown[identityOf(v.Tags).withoutOwner()]
}
