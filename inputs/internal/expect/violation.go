package expect

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"time"
	"unicode/utf8"

	"sockwatch/agent/metric"
)

// A violation is a listener that is forbidden or not expected, from the first look that
// shows it until it has settled that it is gone. Listeners that differ only in what its key
// leaves out share one.
type violation struct {
	violationRecord
	key   string
	last  *Listener // of the last look that showed it; nil if that was before a restart
	look  uint64    // the number of that look
	count int       // of an overflow violation: how many listeners it stands for
	point []metric.Tag
}

// A violationRecord is what the history holds of a violation.
type violationRecord struct {
	Verdict string        `json:"v"`           // Forbidden or No
	Rule    string        `json:"r,omitempty"` // "" of No
	Tags    tagSet        `json:"t"`           // of the last listener of it
	Unknown bool          `json:"n,omitempty"` // the owner of that is not known
	Hold    time.Duration `json:"h,omitempty"` // the option for of its rule
	// Overflow violations stand for those of a user beyond the number that have
	// violations of their own.
	Overflow bool   `json:"o,omitempty"`
	Since    start  `json:"s"`
	Told     bool   `json:"e,omitempty"` // it has had its event
	Gone     *start `json:"g,omitempty"` // the first look without it, if it is gone
	Why      string `json:"y,omitempty"` // the reason, if the event waits for the owner
}

// A tagSet is the tags of a point, an object in JSON.
type tagSet []metric.Tag

// MarshalJSON writes the tags as an object.
func (s tagSet) MarshalJSON() ([]byte, error) {
	object := make(map[string]string, len(s))
	for _, t := range s {
		object[t.Key] = t.Value
	}
	return json.Marshal(object)
}

// UnmarshalJSON reads an object whose keys and values a point may have as tags.
func (s *tagSet) UnmarshalJSON(text []byte) error {
	var object map[string]string
	if err := json.Unmarshal(text, &object); err != nil {
		return err
	}
	for key, value := range object {
		if key == "" || value == "" || !utf8.ValidString(key) || !utf8.ValidString(value) {
			return errors.New("not a tag")
		}
		*s = append(*s, metric.Tag{Key: key, Value: value})
	}
	metric.SortTags(*s)
	return nil
}

// The tags that distinguish violations of one verdict and rule: those of the endpoint and
// the user, and those of the owner. The exposure is not among them: a laptop that changes
// its network still violates the same rule.
var (
	endpointKeys = []string{"address", "port", "user"}
	ownerKeys    = []string{"process", "unit"}
)

// appendValues appends the values of some tags, so that no others give the same bytes.
func appendValues(dst []byte, tags []metric.Tag, keys []string) []byte {
	for _, key := range keys {
		dst = append(dst, 0xff) // no byte of UTF-8
		dst = append(dst, tagOf(tags, key)...)
	}
	return dst
}

// appendKey appends what distinguishes violations.
func appendKey(dst []byte, verdict, rule string, tags []metric.Tag) []byte {
	dst = append(dst, verdict...)
	dst = append(dst, 0xff)
	dst = append(dst, rule...)
	return appendValues(appendValues(dst, tags, endpointKeys), tags, ownerKeys)
}

// endpointKey is the part of the key that does not depend on the owner.
func endpointKey(verdict, rule string, tags []metric.Tag) string {
	return string(appendValues([]byte(verdict+"\xff"+rule), tags, endpointKeys))
}

// identity is the part of the key that does not depend on the rules.
func identity(tags []metric.Tag) string {
	return string(appendValues(appendValues(nil, tags, endpointKeys), tags, ownerKeys))
}

// overflowKey is the key of the violation that sums up those of a user.
func overflowKey(verdict, user string) string { return verdict + "\xff\xff\xff" + user }

func (v *violation) recordKey() string {
	sum := sha256.Sum256([]byte(v.key))
	return violationPrefix + hex.EncodeToString(sum[:9])
}

// restoreViolation returns the violation of a record, or nil if it is damaged.
func restoreViolation(record json.RawMessage) *violation {
	var v violation
	if json.Unmarshal(record, &v.violationRecord) != nil || v.Verdict != Forbidden && v.Verdict != No {
		return nil
	}
	if v.Overflow {
		v.key = overflowKey(v.Verdict, tagOf(v.Tags, "user"))
	} else {
		v.key = string(appendKey(nil, v.Verdict, v.Rule, v.Tags))
	}
	return &v
}

// maxViolations is how many violations are followed one by one. maxOverflow is how many
// users have one for the rest of theirs; the other users share one.
const (
	maxViolations = 10000
	maxOverflow   = 100
)

// violations are those that are followed, by key.
type violations struct {
	byKey map[string]*violation
	looks uint64 // how often they were followed
}

// add adds a violation; false if there are too many.
func (vs *violations) add(v *violation) bool {
	if len(vs.byKey) > maxViolations+maxOverflow {
		return false
	}
	vs.byKey[v.key] = v
	return true
}

// present returns the violations that the current look shows, or those that it does not,
// in order.
func (vs *violations) present(shown bool) []*violation {
	var all []*violation
	for _, v := range vs.byKey {
		if (v.look == vs.looks) == shown {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, compareViolations)
	return all
}

// compareViolations orders violations by namespace, port and address, those that sum up
// others last.
func compareViolations(a, b *violation) int {
	portA, portB := tagOf(a.Tags, "port"), tagOf(b.Tags, "port")
	return cmp.Or(
		cmp.Compare(btoi(a.Overflow), btoi(b.Overflow)),
		cmp.Compare(tagOf(a.Tags, "netns"), tagOf(b.Tags, "netns")),
		cmp.Compare(len(portA), len(portB)), cmp.Compare(portA, portB),
		cmp.Compare(tagOf(a.Tags, "address"), tagOf(b.Tags, "address")),
		cmp.Compare(a.key, b.key),
	)
}

// followViolations brings the violations up to date.
func (e *evaluation) followViolations() {
	vs := &e.tracker.violations
	vs.looks++
	fresh := e.findViolations()
	missing := vs.present(false)
	if len(missing) > 0 && len(fresh) > 0 {
		fresh, missing = e.takeOver(fresh, missing)
	}
	e.followNew(fresh)
	for _, v := range vs.present(true) {
		if !v.Told {
			e.violated(v, e.ownerWait(v))
		}
	}
	missing = slices.DeleteFunc(missing, func(v *violation) bool { return v.look == vs.looks }) // an overflow that goes on
	if len(missing) > 0 {
		verdicts := verdictsOf(e.look.Listeners)
		for _, v := range missing {
			e.missing(v, verdicts)
		}
	}
}

// A candidate is a violation of the current look that is not followed.
type candidate struct {
	Judged
	key string
}

func (c *candidate) rule() (name string, hold time.Duration) {
	if c.Expected == Forbidden {
		return c.by.name, c.by.hold
	}
	return "", 0
}

// findViolations renews the violations that are followed and still there. It returns the
// others, in order.
func (e *evaluation) findViolations() []*candidate {
	vs := &e.tracker.violations
	byKey := make(map[string]*candidate)
	var fresh []*candidate
	var key []byte
	for _, j := range e.look.Listeners {
		if j.Expected != Forbidden && j.Expected != No {
			continue
		}
		c := candidate{Judged: j}
		rule, hold := c.rule()
		key = appendKey(key[:0], j.Expected, rule, j.Tags)
		if v := vs.byKey[string(key)]; v != nil {
			if v.look != vs.looks || compareListeners(j.Listener, v.last) < 0 {
				e.renew(v, j.Listener, hold)
			}
			continue
		}
		switch known := byKey[string(key)]; {
		case known == nil:
			c.key = string(key)
			byKey[c.key] = &c
			fresh = append(fresh, &c)
		case compareListeners(j.Listener, known.Listener) < 0:
			known.Judged = j
		}
	}
	slices.SortFunc(fresh, func(a, b *candidate) int {
		return cmp.Or(compareListeners(a.Listener, b.Listener), cmp.Compare(a.key, b.key))
	})
	return fresh
}

// renew notes that a violation is there, as it is now.
func (e *evaluation) renew(v *violation, l *Listener, hold time.Duration) {
	changed := v.Gone != nil || v.Unknown != l.OwnerUnknown || v.Hold != hold || !slices.Equal(v.Tags, l.Tags)
	v.Tags, v.Unknown, v.Hold, v.Gone = l.Tags, l.OwnerUnknown, hold, nil
	v.last, v.look = l, e.tracker.violations.looks
	if changed {
		v.point = nil
		e.save(v)
	}
}

// takeOver finds violations that are missing and have come back with an owner that is
// known now, or no longer is: what is not known equals anything, so they are the same.
func (e *evaluation) takeOver(fresh []*candidate, missing []*violation) ([]*candidate, []*violation) {
	vs := &e.tracker.violations
	byEndpoint := make(map[string]*violation)
	for _, v := range missing {
		if !v.Overflow {
			byEndpoint[endpointKey(v.Verdict, v.Rule, v.Tags)] = v
		}
	}
	fresh = slices.DeleteFunc(fresh, func(c *candidate) bool {
		rule, hold := c.rule()
		endpoint := endpointKey(c.Expected, rule, c.Tags)
		v := byEndpoint[endpoint]
		if v == nil || !v.Unknown && !c.OwnerUnknown {
			return false
		}
		delete(byEndpoint, endpoint)
		delete(vs.byKey, v.key)
		e.set[v.recordKey()] = nil
		v.key = c.key
		vs.byKey[v.key] = v
		e.renew(v, c.Listener, hold)
		e.save(v)
		return true
	})
	return fresh, vs.present(false)
}

// followNew follows violations that are new, as many as there may be, and sums up the
// others.
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
		if perUser[user] < e.tracker.options.MaxPerUser && followed < maxViolations {
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
		v.look = vs.looks
		v.count++
	}
}

// overflowing reports whether there are violations that are only summed up.
func (vs *violations) overflowing() bool {
	for _, v := range vs.byKey {
		if v.Overflow {
			return true
		}
	}
	return false
}

// begins follows a violation from now on.
func (e *evaluation) begins(c *candidate) {
	vs := &e.tracker.violations
	rule, hold := c.rule()
	v := &violation{key: c.key, last: c.Listener, look: vs.looks, violationRecord: violationRecord{
		Verdict: c.Expected, Rule: rule, Tags: c.Tags, Unknown: c.OwnerUnknown, Hold: hold, Since: e.begin(),
	}}
	if e.ownerWait(v) > 0 {
		v.Why = e.tracker.rules.Why(v.last, e.look.Time).Why
	}
	vs.byKey[v.key] = v
	e.save(v)
}

// save notes the record of a violation for the history.
func (e *evaluation) save(v *violation) { e.set[v.recordKey()] = encode(&v.violationRecord) }

// ownerWait returns how long the event of a violation waits for the search of the owner.
func (e *evaluation) ownerWait(v *violation) time.Duration {
	if v.last != nil && v.last.OwnerPending {
		return e.tracker.options.OwnerWait
	}
	return 0
}

// violated reports a violation, if it has lasted as long as its rule and the search of
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
	case v.last != nil:
		if v.last.Facts != nil {
			fields = slices.Clone(v.last.Facts())
		}
		fields = append(fields, text("why", e.tracker.rules.Why(v.last, e.look.Time).Why))
	case v.Why != "":
		fields = append(fields, text("why", v.Why))
	}
	fields = append(fields, text("verdict", v.Verdict))
	e.event("violated", &v.Since, v.eventTags(), fields...)
	e.save(v)
}

// missing handles a violation that this look does not show. verdicts are those of what
// listens, by identity.
func (e *evaluation) missing(v *violation, verdicts map[string]string) {
	verdict, listens := verdicts[identity(v.Tags)]
	listens = listens && !v.Overflow
	if listens && verdict == Undecided {
		return // it stays what it was
	}
	if v.Gone == nil {
		gone := e.begin()
		v.Gone = &gone
		e.save(v)
	}
	if !v.Told && v.Hold == 0 {
		e.violated(v, 0) // it was there, if only for a moment
	}
	options := &e.tracker.options
	if v.Told && !listens && !e.lasted(v.Gone, options.Settle, options.SettleBoot) {
		return
	}
	if v.Told {
		why := "the listener is gone"
		switch {
		case listens && (verdict == Forbidden || verdict == No):
			why = "the listener violates another rule"
		case listens:
			why = "the rules allow the listener"
		}
		e.event("cleared", v.Gone, v.eventTags(),
			text("why", why), text("verdict", v.Verdict), seconds("lasted_seconds", v.Since.until(v.Gone)))
	}
	delete(e.tracker.violations.byKey, v.key)
	e.set[v.recordKey()] = nil
}

// eventTags are those of the listener, and of the rule if there is one.
func (v *violation) eventTags() []metric.Tag {
	tags := slices.Clone([]metric.Tag(v.Tags))
	if v.Rule != "" {
		tags = append(tags, metric.Tag{Key: "name", Value: v.Rule}, metric.Tag{Key: "rule", Value: kindForbid})
	}
	return tags
}

// pointTags are those of its point.
func (v *violation) pointTags() []metric.Tag {
	if v.point == nil {
		v.point = metric.NewTags("verdict", v.Verdict, "rule", v.Rule,
			"address", tagOf(v.Tags, "address"), "port", tagOf(v.Tags, "port"), "process", tagOf(v.Tags, "process"),
			"user", tagOf(v.Tags, "user"), "unit", tagOf(v.Tags, "unit"), "exposure", tagOf(v.Tags, "exposure"))
	}
	return v.point
}

// verdictsOf returns the worst verdict of what listens, by identity.
func verdictsOf(listeners []Judged) map[string]string {
	verdicts := make(map[string]string, len(listeners))
	for _, j := range listeners {
		key := identity(j.Tags)
		verdicts[key] = Worst(Verdict{Expected: verdicts[key]}, j.Verdict).Expected
	}
	return verdicts
}
