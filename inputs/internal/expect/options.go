package expect

import (
	"errors"
	"fmt"
	"time"

	"sockwatch/agent/plugin"
)

// Options are the options of an input that has rules. The input embeds them.
type Options struct {
	// Whether listeners that no rule names are reported as not expected: "auto" (if there
	// is an allow rule), "unexpected" (always) or "ignore" (never).
	Unlisted string `toml:"unlisted"`
	// Files with further rules, as absolute paths or globs. They hold [[expect]], [[allow]]
	// and [[forbid]] at the top level. A glob may match nothing.
	ExpectFile plugin.Strings `toml:"expect_file"`
	// What must listen. It is also allowed, as by an allow rule.
	Expect []Expect `toml:"expect"`
	// What may listen.
	Allow []Allow `toml:"allow"`
	// What must not listen, whatever the other rules say.
	Forbid []Forbid `toml:"forbid"`
}

// An Expect rule says what must listen.
type Expect struct {
	// Name of the rule: required, and unique among expect and forbid rules.
	Name string `toml:"name"`
	Criteria
	// How many endpoints must match for each element of port.
	Min int `toml:"min"`
	// How long the rule must fail before it is reported as an event. Default: "1m".
	For plugin.Duration `toml:"for"`
	Approval
	// Tags of the rule's points, for the routing of alerts: at most 8.
	Labels map[string]string `toml:"labels"`
}

// An Allow rule says what may listen.
type Allow struct {
	// Name of the rule, shown with the listeners that it allows.
	Name string `toml:"name"`
	Criteria
	Approval
}

// A Forbid rule says what must not listen.
type Forbid struct {
	// Name of the rule: required, and unique among expect and forbid rules.
	Name string `toml:"name"`
	Criteria
	// How long a listener must match before it is reported as an event. Default: "0s".
	For plugin.Duration `toml:"for"`
	Approval
	// Tags of the rule's points, for the routing of alerts: at most 8.
	Labels map[string]string `toml:"labels"`
}

// Criteria select listeners. All criteria that are set must hold, and a single holder must
// satisfy all criteria about the owner. A rule needs at least one criterion.
type Criteria struct {
	// A port, a range such as "8000-8100", or a list of these.
	Port Ports `toml:"port"`
	// Globs for the address as bound ("127.0.0.1", "0.0.0.0%eth0"), or CIDRs. The wildcards
	// 0.0.0.0 and :: match by themselves or by a CIDR of length 0.
	Address plugin.Strings `toml:"address"`
	// Globs, one or a list, for the name of a process that holds the socket.
	Process plugin.Strings `toml:"process"`
	// Globs for the path of that process's program.
	Exe plugin.Strings `toml:"exe"`
	// Globs for the user.
	User plugin.Strings `toml:"user"`
	// Globs for the systemd unit.
	Unit plugin.Strings `toml:"unit"`
	// Globs for the unit of a user's service manager.
	UserUnit plugin.Strings `toml:"user_unit"`
	// Globs for the container; "" is the host.
	Container plugin.Strings `toml:"container"`
	// Globs for the uid of the Kubernetes pod.
	Pod plugin.Strings `toml:"pod"`
	// Globs for the network namespace; "" is the host's.
	Netns plugin.Strings `toml:"netns"`
	// "ipv4", "ipv6", "dual", or a list of these.
	Family plugin.Strings `toml:"family"`
	// "loopback", "link_local", "private", "public", or a list of these.
	Exposure plugin.Strings `toml:"exposure"`
}

// An Approval is what an auditor wants to know about a rule. It is never exported as labels.
type Approval struct {
	// Why the rule exists.
	Why string `toml:"why"`
	// Where it was requested.
	Ticket string `toml:"ticket"`
	// Who approved it.
	ApprovedBy string `toml:"approved_by"`
	// Last day of the approval, in UTC, such as "2027-03-31". After it the rule allows
	// nothing; 14 days before, a warning is logged.
	Expires string `toml:"expires"`
}

// defaultFor is the default of the option "for" of expect rules. A restart takes less time.
const defaultFor = plugin.Duration(time.Minute)

// SetDefaults sets the defaults of a rule before the configuration is read.
func (r *Expect) SetDefaults() { r.Min, r.For = 1, defaultFor }

// Defaults returns the options of a table without rules.
func Defaults() Options { return Options{Unlisted: UnlistedAuto} }

// Example returns options with example values for the documentation.
func Example() Options {
	return Options{
		Unlisted:   UnlistedUnexpected,
		ExpectFile: plugin.Strings{"/etc/sockwatch/expect.d/*.toml"},
		Expect: []Expect{{
			Name: "web",
			Criteria: Criteria{
				Port:      Ports{{80, 80}, {443, 443}},
				Address:   plugin.Strings{"0.0.0.0", "::"},
				Process:   plugin.Strings{"nginx"},
				Exe:       plugin.Strings{"/usr/sbin/nginx"},
				User:      plugin.Strings{"root"},
				Unit:      plugin.Strings{"nginx.service"},
				UserUnit:  plugin.Strings{""},
				Container: plugin.Strings{""},
				Pod:       plugin.Strings{""},
				Netns:     plugin.Strings{""},
				Family:    plugin.Strings{"ipv4", "dual"},
				Exposure:  plugin.Strings{"private", "public"},
			},
			Min:      1,
			For:      defaultFor,
			Approval: Approval{Why: "public site", Ticket: "OPS-1234", ApprovedBy: "jane", Expires: "2027-03-31"},
			Labels:   map[string]string{"team": "edge"},
		}},
		Allow: []Allow{{
			Name: "loopback",
			Criteria: Criteria{
				Address: plugin.Strings{"127.0.0.0/8", "::1"},
			},
			Approval: Approval{Why: "reachable on this host only"},
		}},
		Forbid: []Forbid{{
			Name:     "telnet",
			Criteria: Criteria{Port: Ports{{23, 23}}},
			Approval: Approval{Why: "sends passwords in clear text"},
		}},
	}
}

// Includes returns the name of the option that lists rule files, and the tables that they
// may contain. It implements plugin.Includer.
func (o *Options) Includes() plugin.Include {
	return plugin.Include{Option: "expect_file", Tables: []string{"expect", "allow", "forbid"}}
}

// Warn returns a warning for each glob that looks like a regular expression. It implements
// plugin.Warner.
func (o *Options) Warn() error {
	var errs []error
	for _, d := range o.declarations() {
		for _, g := range globOptions {
			rare := g.name == "process" || g.name == "user" || g.name == "container"
			errs = append(errs, plugin.WarnOfRegexps(d.option+"."+g.name, *g.patterns(d.criteria), rare))
		}
		errs = append(errs, plugin.WarnOfRegexps(d.option+".address", d.criteria.Address, false))
	}
	return errors.Join(errs...)
}

// A declaration is a rule of any kind, as it is configured.
type declaration struct {
	kind     string
	option   string // its path in the options, such as "expect[2]"
	name     string
	criteria *Criteria
	min      int           // of an expect rule
	hold     time.Duration // the option "for"; 0 for allow rules
	approval *Approval
	labels   map[string]string
}

// declarations returns all rules: expect, allow, then forbid rules.
func (o *Options) declarations() []declaration {
	var all []declaration
	add := func(d declaration, index int) {
		d.option = fmt.Sprintf("%s[%d]", d.kind, index)
		all = append(all, d)
	}
	for i := range o.Expect {
		r := &o.Expect[i]
		add(declaration{kind: kindExpect, name: r.Name, criteria: &r.Criteria, min: r.Min, hold: time.Duration(r.For), approval: &r.Approval, labels: r.Labels}, i)
	}
	for i := range o.Allow {
		r := &o.Allow[i]
		add(declaration{kind: kindAllow, name: r.Name, criteria: &r.Criteria, approval: &r.Approval}, i)
	}
	for i := range o.Forbid {
		r := &o.Forbid[i]
		add(declaration{kind: kindForbid, name: r.Name, criteria: &r.Criteria, hold: time.Duration(r.For), approval: &r.Approval, labels: r.Labels}, i)
	}
	return all
}
