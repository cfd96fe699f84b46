package expect

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sockwatch/agent/metric"
)

// A violation is a listener that is forbidden or not expected, from the first look that
// shows it until it has settled that it is gone. Listeners that differ only in what its key
// leaves out share one. It is its record.
type violation struct {
	Verdict string            `json:"v"`           // Forbidden or No
	Rule    string            `json:"r,omitempty"` // "" of No
	Tags    map[string]string `json:"t"`           // of the last listener of it
	Unknown bool              `json:"n,omitempty"` // the owner of that is not known
	// Overflow violations stand for those of a user beyond the number that have
	// violations of their own.
	Overflow bool          `json:"o,omitempty"`
	Hold     time.Duration `json:"h,omitempty"` // the option for of its rule
	Since    start         `json:"s"`
	Told     bool          `json:"e,omitempty"` // it has had its event
	Gone     *start        `json:"g,omitempty"` // the first look without it, if it is gone

	count int       // of an overflow violation: how many it stands for
	last  *Listener // nil before the first look
}

// maxViolations is how many violations are followed one by one. maxOverflow is how many
// users have one for the rest of theirs; the other users share one.
const (
	maxViolations = 10000
	maxOverflow   = 100
)

// violationKeys are the tags that distinguish violations. The exposure is not among them:
// a laptop that changes its network still violates the same rule.
var violationKeys = []string{"address", "port", "process", "user", "unit"}

// key is what distinguishes violations.
func (v *violation) key() string {
	parts := []string{v.Verdict, v.Rule}
	for _, k := range violationKeys {
		parts = append(parts, v.Tags[k])
	}
	if v.Overflow {
		parts = append(parts, "overflow")
	}
	return strings.Join(parts, "\xff") // no byte of UTF-8
}

// endpointKey is the part of the key that does not depend on the owner.
func (v *violation) endpointKey() string {
	return strings.Join([]string{v.Verdict, v.Rule, v.Tags["address"], v.Tags["port"], v.Tags["user"]}, "\xff")
}

// identity is the part of the key that does not depend on the rules.
func identity(l *Listener) string {
	parts := make([]string, len(violationKeys))
	for i, k := range violationKeys {
		parts[i] = l.tag(k)
	}
	return strings.Join(parts, "\xff")
}

func (v *violation) recordKey() string {
	sum := sha256.Sum256([]byte(v.key()))
	return violationPrefix + hex.EncodeToString(sum[:9])
}

// restoreViolation returns the violation of a record, or nil if it is damaged.
func restoreViolation(record json.RawMessage) *violation {
	var v violation
	if json.Unmarshal(record, &v) != nil || v.Verdict != Forbidden && v.Verdict != No {
		return nil
	}
	for key, value := range v.Tags {
		if key == "" || value == "" || !utf8.ValidString(key) || !utf8.ValidString(value) {
			return nil
		}
	}
	return &v
}

// violations are those that are followed, by key.
type violations struct {
	byKey   map[string]*violation
	options *TrackerOptions
}

// add adds a violation; false if there are too many.
func (vs *violations) add(v *violation) bool {
	if len(vs.byKey) >= maxViolations+maxOverflow {
		return false
	}
	vs.byKey[v.key()] = v
	return true
}

// find returns the violations of a look, by key: those that are followed already, and of
// the others as many as may be followed. What is left is summed up by user.
func (vs *violations) find(rules *Rules, listeners []Judged) map[string]*violation {
	all := make(map[string]*violation)
	var order []*violation
	for _, j := range listeners {
		if j.Expected != Forbidden && j.Expected != No {
			continue
		}
		v := newViolation(j)
		same := all[v.key()]
		switch {
		case same == nil:
			all[v.key()] = v
			order = append(order, v)
		case compareListeners(v.last, same.last) < 0:
			*same = *v
		}
	}
	perUser := make(map[string]int)
	followed := 0
	for _, v := range vs.byKey {
		if !v.Overflow {
			perUser[v.Tags["user"]]++
			followed++
		}
	}
	slices.SortFunc(order, compareViolations)
	overflow := make(map[string]*violation)
	for _, v := range order {
		key, user := v.key(), v.Tags["user"]
		if vs.byKey[key] != nil {
			continue
		}
		if perUser[user] < vs.options.MaxPerUser && followed < maxViolations {
			perUser[user]++
			followed++
			continue
		}
		delete(all, key)
		rest := overflowOf(v, user)
		if len(overflow) >= maxOverflow && overflow[rest.key()] == nil {
			rest = overflowOf(v, "")
		}
		if known := overflow[rest.key()]; known != nil {
			rest = known
		} else {
			overflow[rest.key()] = rest
			all[rest.key()] = rest
		}
		rest.count++
	}
	return all
}

func newViolation(j Judged) *violation {
	v := &violation{Verdict: j.Expected, Tags: make(map[string]string, len(j.Tags)), Unknown: j.OwnerUnknown, last: j.Listener}
	for _, t := range j.Tags {
		v.Tags[t.Key] = t.Value
	}
	if j.Expected == Forbidden {
		v.Rule, v.Hold = j.by.name, j.by.hold
	}
	return v
}

// overflowOf returns the violation that sums up those of a user; "" are all others.
func overflowOf(v *violation, user string) *violation {
	rest := &violation{Verdict: v.Verdict, Tags: make(map[string]string), Overflow: true, last: v.last}
	if user != "" {
		rest.Tags["user"] = user
	}
	return rest
}

// compareViolations orders violations: of the host's namespace first, by port and
// address.
func compareViolations(a, b *violation) int {
	return cmp.Or(compareListeners(a.last, b.last), cmp.Compare(a.key(), b.key()))
}

// followViolations brings the violations up to date.
func (e *evaluation) followViolations() {
	vs := &e.tracker.violations
	present := vs.find(e.tracker.rules, e.look.Listeners)
	e.takeOver(present)
	for _, v := range sortedViolations(present) {
		key := v.key()
		known := vs.byKey[key]
		if known == nil {
			v.Since = e.begin()
			vs.byKey[key], known = v, v
			e.save(v)
		} else {
			e.renew(known, v)
		}
		if !known.Told {
			e.violated(known, e.ownerWait(known))
		}
	}
	var verdicts map[string]string // of what listens, by identity
	for _, v := range sortedViolations(vs.byKey) {
		if present[v.key()] != nil {
			continue
		}
		if verdicts == nil {
			verdicts = verdictsOf(e.look.Listeners)
		}
		e.missing(v, verdicts)
	}
}

func sortedViolations(byKey map[string]*violation) []*violation {
	all := make([]*violation, 0, len(byKey))
	for _, v := range byKey {
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b *violation) int {
		if a.last != nil && b.last != nil {
			return compareViolations(a, b)
		}
		return cmp.Compare(a.key(), b.key())
	})
	return all
}

// takeOver finds violations that are missing and have come back with an owner that is
// known now, or no longer is: what is not known equals anything, so they are the same.
func (e *evaluation) takeOver(present map[string]*violation) {
	byKey := e.tracker.violations.byKey
	missing := make(map[string]*violation) // by endpointKey
	for _, v := range sortedViolations(byKey) {
		if !v.Overflow && present[v.key()] == nil {
			missing[v.endpointKey()] = v
		}
	}
	if len(missing) == 0 {
		return
	}
	for _, v := range sortedViolations(present) {
		old := missing[v.endpointKey()]
		if byKey[v.key()] != nil || old == nil || v.Overflow || !old.Unknown && !v.Unknown {
			continue
		}
		delete(missing, v.endpointKey())
		delete(byKey, old.key())
		e.set[old.recordKey()] = nil
		v.Since, v.Told = old.Since, old.Told
		byKey[v.key()] = v
		e.save(v)
	}
}

// renew notes that a violation is still there, as it is now.
func (e *evaluation) renew(known, now *violation) {
	changed := known.Gone != nil || known.Unknown != now.Unknown || known.Hold != now.Hold || !maps.Equal(known.Tags, now.Tags)
	known.Tags, known.Unknown, known.Hold, known.Gone = now.Tags, now.Unknown, now.Hold, nil
	known.last, known.count = now.last, now.count
	if changed {
		e.save(known)
	}
}

// save notes the record of a violation for the history.
func (e *evaluation) save(v *violation) { e.set[v.recordKey()] = encode(v) }

// ownerWait returns how long the event of a violation waits for the search of the owner.
func (e *evaluation) ownerWait(v *violation) time.Duration {
	if v.last.OwnerPending && !v.Overflow {
		return e.tracker.options.OwnerWait
	}
	return 0
}

// violated tells of a violation, if it has lasted as long as its rule and the search of
// the owner ask for.
func (e *evaluation) violated(v *violation, wait time.Duration) {
	if !e.lasted(&v.Since, max(v.Hold, wait), 0) {
		return
	}
	v.Told = true
	var fields []metric.Field
	switch {
	case v.Overflow:
		fields = append(fields, metric.Field{Key: "count", Value: metric.Int(int64(v.count))})
	case v.last != nil: // else it was seen before a restart only
		if v.last.Facts != nil {
			fields = slices.Clone(v.last.Facts())
		}
		fields = append(fields, text("why", e.tracker.rules.Why(v.last, e.look.Time).Why))
	}
	fields = append(fields, text("verdict", v.Verdict))
	e.event("violated", &v.Since, v.eventTags(), fields...)
	e.save(v)
}

// missing handles a violation that this look does not show.
func (e *evaluation) missing(v *violation, verdicts map[string]string) {
	verdict, listens := verdicts[v.identity()]
	if listens && verdict == Undecided && !v.Overflow {
		return // it stays what it was
	}
	if v.Gone == nil {
		gone := e.begin()
		v.Gone = &gone
		e.save(v)
	}
	if !v.Told {
		e.violated(v, 0) // it was there, if only for a moment
	}
	options := &e.tracker.options
	settled := listens && !v.Overflow // it is there, and does not violate anything now
	if v.Told && !settled && !e.lasted(v.Gone, options.Settle, options.SettleBoot) {
		return
	}
	if v.Told {
		why := "the listener is gone"
		switch {
		case settled && (verdict == Forbidden || verdict == No):
			why = "the listener violates another rule"
		case settled:
			why = "the rules allow the listener"
		}
		e.event("cleared", v.Gone, v.eventTags(),
			text("why", why), text("verdict", v.Verdict), seconds("lasted_seconds", v.Since.until(v.Gone)))
	}
	delete(e.tracker.violations.byKey, v.key())
	e.set[v.recordKey()] = nil
}

// identity is identity of its listener.
func (v *violation) identity() string {
	parts := make([]string, len(violationKeys))
	for i, k := range violationKeys {
		parts[i] = v.Tags[k]
	}
	return strings.Join(parts, "\xff")
}

// eventTags are those of the listener, and of the rule if there is one.
func (v *violation) eventTags() []metric.Tag {
	tags := make([]metric.Tag, 0, len(v.Tags)+3)
	for key, value := range v.Tags {
		tags = append(tags, metric.Tag{Key: key, Value: value})
	}
	if v.Rule != "" {
		tags = append(tags, metric.Tag{Key: "name", Value: v.Rule}, metric.Tag{Key: "rule", Value: kindForbid})
	}
	metric.SortTags(tags)
	return tags
}

// verdictsOf returns the worst verdict of what listens, by identity.
func verdictsOf(listeners []Judged) map[string]string {
	verdicts := make(map[string]string)
	for _, j := range listeners {
		key := identity(j.Listener)
		verdicts[key] = Worst(Verdict{Expected: verdicts[key]}, j.Verdict).Expected
	}
	return verdicts
}
