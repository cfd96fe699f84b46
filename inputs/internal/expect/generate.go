package expect

// A Suggestion is a rule made from listeners, and what it is.
type Suggestion struct {
	Comment string
	Rule    Expect
}

// Suggest returns rules that hold for these listeners, and go on to hold when their
// services are restarted. Listeners on ports of the ephemeral range
// (net.ipv4.ip_local_port_range) share a rule for each process. The order of the listeners
// does not matter.
func Suggest(listeners []*Listener, ephemeral PortRange) []Suggestion { panic("to come") }

// Print returns the rules as TOML: [[expect]] of a rule file, or with the table's
// prefix ("inputs.tcp_listen") [[inputs.tcp_listen.expect]].
func Print(rules []Suggestion, prefix string) string { panic("to come") }
