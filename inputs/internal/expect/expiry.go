package expect

import "time"

// Expiring returns the rules whose approval has expired or expires within 14 days, in the
// order of the rules.
func (r *Rules) Expiring(now time.Time) []Expiry {
	var all []Expiry
	for _, n := range r.rules {
		if !n.expires.IsZero() && n.expires.Sub(now) <= expiryWarning {
			all = append(all, Expiry{Kind: n.kind, Rule: n.name, Expires: n.approval.Expires, Expired: n.expired(now)})
		}
	}
	return all
}

// firstExpiry returns when the first approval expires, or zero if none does.
func (r *Rules) firstExpiry() (first time.Time) {
	for _, n := range r.rules {
		if !n.expires.IsZero() && (first.IsZero() || n.expires.Before(first)) {
			first = n.expires
		}
	}
	return first
}

// expiryWarning is how long before an approval expires the warnings begin.
const expiryWarning = 14 * 24 * time.Hour

// An Expiry says when the approval of a rule expires.
type Expiry struct {
	Kind    string `json:"kind"` // "expect", "allow" or "forbid"
	Rule    string `json:"rule"`
	Expires string `json:"expires"` // the last day, "2027-03-31"
	Expired bool   `json:"expired"`
}

func (n *rule) expired(now time.Time) bool { return !n.expires.IsZero() && !now.Before(n.expires) }
