package expect

import "time"

// A Report is the outcome of one evaluation, for `sockwatch check --live`.
type Report struct {
	Host      string            `json:"host"`
	MachineID string            `json:"machine_id"`
	BootID    string            `json:"boot_id"`
	Time      time.Time         `json:"time"`
	Digest    string            `json:"digest"`
	OK        bool              `json:"ok"` // nothing is missing, unexpected, forbidden or undecided
	Rules     []RuleOutcome     `json:"rules"`
	Listeners []ListenerOutcome `json:"listeners"`
}

// A RuleOutcome says whether an expect or forbid rule holds.
type RuleOutcome struct{}

// A ListenerOutcome is the verdict of one listener.
type ListenerOutcome struct{}

// NewReport evaluates rules once: what must listen must do so now, without `for`. The
// caller fills in Host, MachineID and BootID.
func NewReport(r *Rules, listeners []*Listener, now time.Time) *Report { panic("to come") }

// Text returns the report for people: what is missing, unexpected, forbidden and
// undecided, with the nearest rule and what of it does not match.
func (r *Report) Text() string { panic("to come") }

// JSON returns the report as one JSON object.
func (r *Report) JSON() ([]byte, error) { panic("to come") }
