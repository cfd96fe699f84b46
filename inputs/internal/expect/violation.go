package expect

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sockwatch/agent/metric"
)

// A violation is a forbidden or unexpected listener, from the first scan that finds it until
// it has been gone long enough. Listeners with the same key share a violation.
type violation struct {
	violationRecord
	key   violationKey
	last  *Listener // from the last scan that found it; nil if that was before a restart
	scan  uint64    // the number of that scan
	count int       // for an overflow violation: the number of listeners that it covers
	point []metric.Tag
}

// A violationRecord is the record of a violation in the history.
type violationRecord struct {
	Verdict string        `json:"v"`           // Forbidden or No
	Rule    string        `json:"r,omitempty"` // "" for No
	Tags    tagSet        `json:"t"`           // of its last listener
	Unknown bool          `json:"n,omitempty"` // the owner of that listener is not known
	Owner   tagSet        `json:"l,omitempty"` // tags of the last known owner
	Hold    time.Duration `json:"h,omitempty"` // the option "for" of its rule
	// Overflow violations cover a user's listeners beyond the limit on individual
	// violations.
	Overflow bool   `json:"o,omitempty"`
	Since    start  `json:"s"`
	Reported bool   `json:"e,omitempty"` // its event has been sent
	Gone     *start `json:"g,omitempty"` // when it was first missing, if it is gone
	Why      string `json:"y,omitempty"` // the reason, if the event waits for the owner
}

// A tagSet is the tags of a point. In JSON it is an object.
type tagSet []metric.Tag

// MarshalJSON writes the tags as an object.
func (s tagSet) MarshalJSON() ([]byte, error) {
	object := make(map[string]string, len(s))
	for _, t := range s {
		object[t.Key] = t.Value
	}
	return json.Marshal(object)
}

// UnmarshalJSON reads an object whose keys and values are valid tags of a point.
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

// A violationKey identifies a violation.
type violationKey struct {
	verdict, rule string // the rule is "" for No
	overflow      bool   // only the verdict and the user are set
	identity
}

// An identity distinguishes the listeners of violations with the same verdict and rule. The
// exposure is not part of it, because a laptop that changes its network still violates the
// same rule.
type identity struct{ address, port, user, process, unit string }

func identityOf(tags []metric.Tag) (i identity) {
	for _, t := range tags {
		switch t.Key {
		case "address":
			i.address = t.Value
		case "port":
			i.port = t.Value
		case "user":
			i.user = t.Value
		case "process":
			i.process = t.Value
		case "unit":
			i.unit = t.Value
		}
	}
	return i
}

// withoutOwner returns the part of the identity that does not depend on the owner.
func (i identity) withoutOwner() identity {
	i.process, i.unit = "", ""
	return i
}

// withoutOwner returns the part of the key that does not depend on the owner.
func (k violationKey) withoutOwner() violationKey {
	k.identity = k.identity.withoutOwner()
	return k
}

func overflowKey(verdict, user string) violationKey {
	return violationKey{verdict: verdict, overflow: true, identity: identity{user: user}}
}

func (k violationKey) compare(other violationKey) int {
	return cmp.Or(
		cmp.Compare(k.verdict, other.verdict), cmp.Compare(k.rule, other.rule), cmp.Compare(k.user, other.user),
		cmp.Compare(k.process, other.process), cmp.Compare(k.unit, other.unit),
	)
}

// recordKey is the key of the violation's record in the history.
func (k violationKey) recordKey() string {
	parts := []string{k.verdict, k.rule, k.address, k.port, k.user, k.process, k.unit}
	if k.overflow {
		parts = []string{k.verdict, "", "", k.user}
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\xff"))) // 0xff never occurs in UTF-8
	return violationPrefix + hex.EncodeToString(sum[:9])
}

func (r *violationRecord) key() violationKey {
	if r.Overflow {
		return overflowKey(r.Verdict, tagOf(r.Tags, "user"))
	}
	return violationKey{verdict: r.Verdict, rule: r.Rule, identity: identityOf(r.Tags)}
}

// restoreViolation returns the violation of a record, or nil if it is damaged.
func restoreViolation(record json.RawMessage) *violation {
	var v violation
	if json.Unmarshal(record, &v.violationRecord) != nil || v.Verdict != Forbidden && v.Verdict != No {
		return nil
	}
	v.key = v.violationRecord.key()
	return &v
}

// maxViolations is the maximum number of violations that are tracked individually. maxOverflow
// is the maximum number of overflow violations of single users. The other users share one.
const (
	maxViolations = 10000
	maxOverflow   = 100
)

// violations are the tracked violations.
type violations struct {
	byKey map[violationKey]*violation
	scans uint64 // the number of scans so far
}

// add adds a violation. It returns false if there are too many.
func (vs *violations) add(v *violation) bool {
	if len(vs.byKey) > maxViolations+maxOverflow {
		return false
	}
	vs.byKey[v.key] = v
	return true
}

// present returns, in order, the violations that are in the current scan, or, if shown is
// false, those that are not.
func (vs *violations) present(shown bool) []*violation {
	var all []*violation
	for _, v := range vs.byKey {
		if (v.scan == vs.scans) == shown {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, compareViolations)
	return all
}

// compareViolations orders violations by namespace, port and address. Overflow violations come
// last.
func compareViolations(a, b *violation) int {
	portA, portB := tagOf(a.Tags, "port"), tagOf(b.Tags, "port")
	return cmp.Or(
		cmp.Compare(btoi(a.Overflow), btoi(b.Overflow)),
		cmp.Compare(tagOf(a.Tags, "netns"), tagOf(b.Tags, "netns")),
		cmp.Compare(len(portA), len(portB)), cmp.Compare(portA, portB),
		cmp.Compare(tagOf(a.Tags, "address"), tagOf(b.Tags, "address")),
		a.key.compare(b.key),
	)
}

// eventTags returns the tags of the listener with its last known owner, and those of the rule
// if there is one.
func (v *violation) eventTags() []metric.Tag {
	tags := slices.Clone([]metric.Tag(v.Tags))
	for _, t := range v.Owner {
		if tagOf(tags, t.Key) == "" {
			tags = append(tags, t)
		}
	}
	if v.Rule != "" {
		tags = append(tags, metric.Tag{Key: "name", Value: v.Rule}, metric.Tag{Key: "rule", Value: kindForbid})
	}
	return tags
}

// pointTags returns the tags of the violation's point.
func (v *violation) pointTags() []metric.Tag {
	if v.point == nil {
		v.point = metric.NewTags("verdict", v.Verdict, "rule", v.Rule,
			"address", tagOf(v.Tags, "address"), "port", tagOf(v.Tags, "port"), "process", tagOf(v.Tags, "process"),
			"user", tagOf(v.Tags, "user"), "unit", tagOf(v.Tags, "unit"), "exposure", tagOf(v.Tags, "exposure"))
	}
	return v.point
}
