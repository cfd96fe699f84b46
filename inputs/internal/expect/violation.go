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
	Owner   tagSet        `json:"l,omitempty"` // tags of the last owner that was known
	Hold    time.Duration `json:"h,omitempty"` // the option for of its rule
	// Overflow violations stand for those of a user beyond the number that have
	// violations of their own.
	Overflow bool   `json:"o,omitempty"`
	Since    start  `json:"s"`
	Reported bool   `json:"e,omitempty"` // it has had its event
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

// endpointIdentity is the part of identity that does not depend on the owner.
func endpointIdentity(tags []metric.Tag) string { return string(appendValues(nil, tags, endpointKeys)) }

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

// maxViolations is how many violations are followed one by one at most. maxOverflow is how many
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

// eventTags are those of the listener, with the last owner that was known, and of the
// rule if there is one.
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

// pointTags are those of its point.
func (v *violation) pointTags() []metric.Tag {
	if v.point == nil {
		v.point = metric.NewTags("verdict", v.Verdict, "rule", v.Rule,
			"address", tagOf(v.Tags, "address"), "port", tagOf(v.Tags, "port"), "process", tagOf(v.Tags, "process"),
			"user", tagOf(v.Tags, "user"), "unit", tagOf(v.Tags, "unit"), "exposure", tagOf(v.Tags, "exposure"))
	}
	return v.point
}
