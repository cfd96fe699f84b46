package livepage

// An alert is a rule that does not hold, or a listener that breaks one.
type alert struct {
	Kind string // "missing", "forbidden" or "unexpected"
	Text string
	Link string // to the listeners that it is about
}
