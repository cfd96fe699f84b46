package expect

import (
	"net/netip"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/inet"
)

// now is the current time in the tests.
var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// readRules parses the text of a rule file.
func readRules(t testing.TB, text string) Options {
	t.Helper()
	o := Defaults()
	if _, err := toml.Decode(text, &o); err != nil {
		t.Fatal(err)
	}
	for i := range o.Expect {
		e := &o.Expect[i]
		if e.Min == 0 {
			e.Min = 1
		}
		if e.For == 0 {
			e.For = defaultFor
		}
	}
	return o
}

// compile compiles the text of a rule file.
func compile(t testing.TB, text string) *Rules {
	t.Helper()
	o := readRules(t, text)
	if err := o.ValidateRules(nil); err != nil {
		t.Fatal(err)
	}
	r, err := Compile(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// nginx returns a listener of nginx on all IPv4 addresses, modified by change.
func nginx(port uint16, change ...func(*Listener)) *Listener {
	l := &Listener{
		Address: netip.MustParseAddr("0.0.0.0"), Port: port, Family: "ipv4", Exposure: inet.Public, User: "root", Unit: "nginx.service",
		Holders: []Holder{{Process: "nginx", Exe: "/usr/sbin/nginx", Unit: "nginx.service"}},
	}
	for _, f := range change {
		f(l)
	}
	l.Tags = tags(l)
	return l
}

// tags returns the tags that tcp_listen gives to a listener.
func tags(l *Listener) []metric.Tag {
	process, owner := "", "none"
	unit, userUnit, container, pod := l.Unit, l.UserUnit, l.Container, l.Pod
	switch {
	case len(l.Holders) > 0:
		h := l.Holders[0]
		process, owner = h.Process, "resolved"
		if !h.CgroupUnknown {
			unit, userUnit, container, pod = h.Unit, h.UserUnit, h.Container, h.Pod
		}
	case l.OwnerPending:
		owner = "pending"
	case l.OwnerUnknown:
		owner = "unreadable"
	}
	return metric.NewTags("address", l.address(), "port", PortRange{l.Port, l.Port}.String(), "family", l.Family,
		"exposure", l.Exposure.String(), "user", l.User, "unit", unit, "user_unit", userUnit, "container", container, "pod", pod,
		"netns", l.Netns, "process", process, "owner", owner)
}

func at(address string) func(*Listener) {
	return func(l *Listener) {
		l.Address = netip.MustParseAddr(address)
		switch a := l.Address.Unmap(); {
		case a.Is4():
			l.Family = "ipv4"
		case a.IsUnspecified():
			l.Family = "dual"
		default:
			l.Family = "ipv6"
		}
		if !l.Address.IsUnspecified() {
			l.Exposure = inet.Classify(l.Address)
		}
	}
}

func held(holders ...Holder) func(*Listener) { return func(l *Listener) { l.Holders = holders } }

func by(process string) func(*Listener) {
	return held(Holder{Process: process, Exe: "/usr/bin/" + process, Unit: process + ".service"})
}

func pending(l *Listener) { l.Holders, l.OwnerUnknown, l.OwnerPending = nil, true, true }

func unreadable(l *Listener) { l.Holders, l.OwnerUnknown = nil, true }

func none(l *Listener) { l.Holders, l.Unit = nil, "" }

func TestVerdicts(t *testing.T) {
	for _, test := range []struct {
		name     string
		rules    string
		listener *Listener
		want     string // verdict and rule
	}{
		{name: "no rules", listener: nginx(80)},
		{name: "an expect rule allows", rules: "[[expect]]\nname = 'web'\nport = 80", listener: nginx(80), want: "yes web"},
		{name: "without an allow rule others are not unexpected", rules: "[[expect]]\nname = 'web'\nport = 80", listener: nginx(81)},
		{name: "with one they are", rules: "[[allow]]\nport = 80", listener: nginx(81), want: "no"},
		{name: "an allow rule without a name", rules: "[[allow]]\nport = 81\n[[allow]]\nport = 80", listener: nginx(80), want: "yes allow 2"},
		{name: "always unexpected", rules: "unlisted = 'unexpected'", listener: nginx(81), want: "no"},
		{name: "never unexpected", rules: "unlisted = 'ignore'\n[[allow]]\nport = 80", listener: nginx(81)},
		{name: "forbid wins", rules: "[[allow]]\nport = 80\n[[forbid]]\nname = 'x'\nport = 80", listener: nginx(80), want: "forbidden x"},
		{name: "the first rule is named", rules: "[[allow]]\nname = 'a'\nport = '1-1000'\n[[allow]]\nname = 'b'\nport = 80", listener: nginx(80), want: "yes a"},
		{name: "all criteria must hold", rules: "[[allow]]\nport = 80\nuser = 'www'", listener: nginx(80), want: "no"},
		{name: "one value of a list", rules: "[[allow]]\nport = [443, '8000-8100', 80]\nprocess = ['httpd', 'ngin?']", listener: nginx(8050), want: "yes allow 1"},
		{name: "those of the owner must hold for one holder", rules: "[[allow]]\nprocess = 'sshd'\nexe = '/usr/sbin/nginx'",
			listener: nginx(80, held(Holder{Process: "sshd", Exe: "/tmp/sshd"}, Holder{Process: "nginx", Exe: "/usr/sbin/nginx"})), want: "no"},
		{name: "any holder, managers included", rules: "[[allow]]\nprocess = 'systemd'",
			listener: nginx(22, held(Holder{Process: "sshd", Exe: "/usr/sbin/sshd"}, Holder{Process: "systemd", Manager: true})), want: "yes allow 1"},
		{name: "a copy in /tmp", rules: "[[allow]]\nprocess = 'sshd'\nexe = '/usr/sbin/sshd'", listener: nginx(22, held(Holder{Process: "sshd", Exe: "/tmp/sshd"})), want: "no"},
		{name: "any is a glob", rules: "[[allow]]\nuser_unit = '*'", listener: nginx(80), want: "yes allow 1"},
		{name: "empty is what is absent", rules: "[[allow]]\ncontainer = ''", listener: nginx(80), want: "yes allow 1"},
		{name: "empty is not what is there", rules: "[[allow]]\nunit = ''", listener: nginx(80), want: "no"},
		{name: "exposure", rules: "[[allow]]\nexposure = ['loopback', 'private']", listener: nginx(80, at("10.1.2.3")), want: "yes allow 1"},
		{name: "family", rules: "[[allow]]\nfamily = 'ipv?'", listener: nginx(80, at("::")), want: "no"},
		{name: "network namespace", rules: "[[allow]]\nnetns = ''", listener: nginx(80, func(l *Listener) { l.Netns = "blue" }), want: "no"},

		{name: "pending, and a rule may match", rules: "[[allow]]\nport = 80\nprocess = 'nginx'", listener: nginx(80, pending), want: "undecided allow 1"},
		{name: "unreadable, and a rule may match", rules: "[[allow]]\nport = 80\nprocess = 'nginx'", listener: nginx(80, unreadable), want: "undecided allow 1"},
		{name: "unreadable, and a forbid rule may match", rules: "[[forbid]]\nname = 'x'\nprocess = 'nc'", listener: nginx(80, unreadable), want: "undecided x"},
		{name: "unreadable, and no rule may match", rules: "[[allow]]\nport = 81\nprocess = 'nginx'", listener: nginx(80, unreadable), want: "no"},
		{name: "unreadable, and what is known suffices", rules: "[[allow]]\nport = 80\nuser = 'root'\nunit = 'nginx.service'", listener: nginx(80, unreadable), want: "yes allow 1"},
		{name: "unreadable, and what is known differs", rules: "[[allow]]\nprocess = 'nginx'\nunit = 'apache.service'", listener: nginx(80, unreadable), want: "no"},
		{name: "allowed for certain comes before what may be forbidden", rules: "[[allow]]\nport = 80\n[[forbid]]\nname = 'x'\nprocess = 'nc'", listener: nginx(80, unreadable), want: "yes allow 1"},
		{name: "an exe that cannot be read", rules: "[[allow]]\nexe = '/usr/sbin/nginx'", listener: nginx(80, held(Holder{Process: "nginx"})), want: "undecided allow 1"},
		{name: "an exposure that is not known", rules: "[[forbid]]\nname = 'p'\nexposure = 'public'\n[[allow]]\nuser = 'x'", listener: nginx(80, func(l *Listener) { l.Exposure, l.ExposureUnknown = 0, true }), want: "undecided p"},
		{name: "an unknown exposure and a rule for unreachable listeners", rules: "[[allow]]\nexposure = ''", listener: nginx(80, func(l *Listener) { l.Exposure, l.ExposureUnknown = 0, true }), want: "undecided allow 1"},
		{name: "a user whose name is not known yet", rules: "[[allow]]\nuser = 'www'", listener: nginx(80, func(l *Listener) { l.User, l.UserPending = "33", true }), want: "undecided allow 1"},
		{name: "proven to have no owner", rules: "[[allow]]\nprocess = 'nginx'", listener: nginx(2049, none), want: "no"},
		{name: "proven to have no owner, and that is allowed", rules: "[[allow]]\nprocess = ''", listener: nginx(2049, none), want: "yes allow 1"},
		{name: "a cgroup that cannot be read is that of the socket", rules: "[[allow]]\nunit = 'nginx.service'",
			listener: nginx(80, held(Holder{Process: "nginx", CgroupUnknown: true})), want: "yes allow 1"},

		{name: "the last day of an approval", rules: "[[allow]]\nport = 80\nexpires = '2026-11-26'", listener: nginx(80), want: "yes allow 1"},
		{name: "an expired rule allows nothing", rules: "[[allow]]\nport = 80\nexpires = '2026-11-25'", listener: nginx(80), want: "no"},
		{name: "an expired expect rule neither", rules: "unlisted = 'unexpected'\n[[expect]]\nname = 'web'\nport = 80\nexpires = '2026-11-25'", listener: nginx(80), want: "no"},
		{name: "an expired forbid rule still forbids", rules: "[[forbid]]\nname = 'x'\nport = 80\nexpires = '2026-11-25'", listener: nginx(80), want: "forbidden x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := compile(t, test.rules).Verdict(test.listener, now)
			got := v.Expected
			if v.Rule != "" {
				got += " " + v.Rule
			}
			if got != test.want {
				t.Errorf("verdict %q, want %q", got, test.want)
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	for _, test := range []struct {
		pattern string
		yes, no []string
	}{
		{pattern: "0.0.0.0", yes: []string{"0.0.0.0"}, no: []string{"::", "127.0.0.1"}},
		{pattern: "0.0.0.0/0", yes: []string{"0.0.0.0", "127.0.0.1", "::", "::ffff:10.0.0.1"}, no: []string{"::1"}},
		{pattern: "::/0", yes: []string{"::", "::1", "fe80::1"}, no: []string{"0.0.0.0", "127.0.0.1", "::ffff:10.0.0.1"}},
		{pattern: "0.0.0.0/8", yes: []string{"0.1.2.3"}, no: []string{"0.0.0.0"}},
		{pattern: "::/96", no: []string{"::"}, yes: []string{"::1"}},
		{pattern: "127.0.0.0/8", yes: []string{"127.0.0.1", "::ffff:127.0.0.1"}, no: []string{"::1", "0.0.0.0", "128.0.0.1"}},
		{pattern: "::ffff:127.0.0.0/104", yes: []string{"127.0.0.1", "::ffff:127.0.0.1"}, no: []string{"0.0.0.0"}},
		{pattern: "127.*", yes: []string{"127.0.0.1"}, no: []string{"::ffff:127.0.0.1"}},
		{pattern: "*", yes: []string{"0.0.0.0", "::", "::1"}},
		{pattern: "{::1,127.0.0.1}", yes: []string{"::1", "127.0.0.1"}, no: []string{"::"}},
	} {
		o := Options{Allow: []Allow{{Criteria: Criteria{Address: []string{test.pattern}}}}}
		if err := errorsOf(o); err != "" {
			t.Errorf("%s: %s", test.pattern, err)
			continue
		}
		r, err := Compile(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range test.yes {
			if v := r.Verdict(nginx(80, at(a)), now); v.Expected != Yes {
				t.Errorf("%s does not match %s", test.pattern, a)
			}
		}
		for _, a := range test.no {
			if v := r.Verdict(nginx(80, at(a)), now); v.Expected != No {
				t.Errorf("%s matches %s", test.pattern, a)
			}
		}
	}
}

func TestWildcardOfIPv6AloneIsNotOneOfIPv4(t *testing.T) {
	r := compile(t, "[[allow]]\naddress = '0.0.0.0/0'")
	l := nginx(80, at("::"), func(l *Listener) { l.Family = "ipv6" })
	if v := r.Verdict(l, now); v.Expected != No {
		t.Errorf("verdict %q, want %q", v.Expected, No)
	}
}

func TestAddressWithItsDevice(t *testing.T) {
	l := nginx(80, func(l *Listener) { l.Device = "eth0" })
	for pattern, want := range map[string]string{"0.0.0.0": No, "0.0.0.0%eth0": Yes, "*%eth0": Yes, "0.0.0.0/0": Yes} {
		if v := compile(t, "[[allow]]\naddress = '"+pattern+"'").Verdict(l, now); v.Expected != want {
			t.Errorf("%s: verdict %q, want %q", pattern, v.Expected, want)
		}
	}
}

func TestRulesWithManyPortsKeepTheirOrder(t *testing.T) {
	r := compile(t, `
[[allow]]
name = "any port"
process = "httpd"
[[allow]]
name = "few"
port = 80
[[allow]]
name = "many"
port = "1-65535"
`)
	for process, want := range map[string]string{"httpd": "any port", "nginx": "few"} {
		if v := r.Verdict(nginx(80, by(process)), now); v.Rule != want {
			t.Errorf("%s: rule %q, want %q", process, v.Rule, want)
		}
	}
	if v := r.Verdict(nginx(81), now); v.Rule != "many" {
		t.Errorf("rule %q, want many", v.Rule)
	}
}

func TestWorstVerdictOfAPoint(t *testing.T) {
	order := []string{"", Yes, Undecided, No, Forbidden}
	for i, a := range order {
		for j, b := range order {
			if got := Worst(Verdict{Expected: a}, Verdict{Expected: b}).Expected; got != order[max(i, j)] {
				t.Errorf("of %q and %q the worst is %q", a, b, got)
			}
		}
	}
}

func TestVersionChangesWhenARuleExpires(t *testing.T) {
	r := compile(t, "[[allow]]\nport = 80\nexpires = '2026-11-26'\n[[allow]]\nport = 81")
	midnight := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	if r.Version(now) != r.Version(midnight.Add(-1)) {
		t.Error("the version has changed before the end of the day")
	}
	if r.Version(now) == r.Version(midnight) {
		t.Error("the version has not changed")
	}
}

func TestExpiringRulesAreNamed(t *testing.T) {
	r := compile(t, `
[[expect]]
name = "past"
port = 1
expires = "2026-11-25"
[[allow]]
port = 2
expires = "2026-12-09"
[[allow]]
port = 3
expires = "2026-12-10"
[[forbid]]
name = "never"
port = 4
`)
	want := []Expiry{
		{Kind: "expect", Rule: "past", Expires: "2026-11-25", Expired: true},
		{Kind: "allow", Rule: "allow 1", Expires: "2026-12-09"},
	}
	if diff := cmp.Diff(want, r.Expiring(now)); diff != "" {
		t.Errorf("expiring (-want +got):\n%s", diff)
	}
}

func TestDigestIsThatOfTheMeaning(t *testing.T) {
	one := compile(t, `
[[allow]]
port = [443, 80]
process = ["nginx", "httpd"]
[[allow]]
name = "ssh"
port = 22
why = "remote access"
[[forbid]]
name = "x"
port = 23
`)
	same := compile(t, `
[[allow]]
why = "remote access"
port = 22
name = "ssh"
[[allow]]
process = ["httpd", "nginx"]
port = [80, 443]
[[forbid]]
name = "x"
port = 23
labels = {}
`)
	if one.Digest() != same.Digest() || len(one.Digest()) != 12 {
		t.Errorf("digests %s and %s, want one of 12 digits", one.Digest(), same.Digest())
	}
	for _, text := range []string{
		"[[allow]]\nport = [80, 443]\nprocess = ['nginx', 'httpd']\n[[allow]]\nname = 'ssh'\nport = 22\nwhy = 'x'\n[[forbid]]\nname = 'x'\nport = 23",
		"unlisted = 'ignore'\n[[allow]]\nport = [80, 443]\nprocess = ['nginx', 'httpd']\n[[allow]]\nname = 'ssh'\nport = 22\nwhy = 'remote access'\n[[forbid]]\nname = 'x'\nport = 23",
	} {
		if compile(t, text).Digest() == one.Digest() {
			t.Errorf("the digest does not depend on all of\n%s", text)
		}
	}
}

func TestDigestDoesNotDependOnTheSpelling(t *testing.T) {
	tests := []struct{ name, one, same string }{
		{"ports of an allow rule", "[[allow]]\nport = [82, 80, 81, 443]", "[[allow]]\nport = ['80-82', 443]"},
		{"overlapping ports of a forbid rule", "[[forbid]]\nname = 'x'\nport = ['1-20', '10-30']", "[[forbid]]\nname = 'x'\nport = '1-30'"},
		{"an IPv4 network as IPv6", "[[allow]]\naddress = '::ffff:10.0.0.0/104'", "[[allow]]\naddress = '10.0.0.0/8'"},
		{"auto with an allow rule", "unlisted = 'auto'\n[[allow]]\nport = 80", "unlisted = 'unexpected'\n[[allow]]\nport = 80"},
		{"auto without one", "unlisted = 'auto'\n[[forbid]]\nname = 'x'\nport = 80", "unlisted = 'ignore'\n[[forbid]]\nname = 'x'\nport = 80"},
		{"a rule twice", "[[allow]]\nport = 80\n[[allow]]\nport = 80", "[[allow]]\nport = 80"},
		{"defaults", "[[expect]]\nname = 'x'\nport = 80\nmin = 1\nfor = '60s'", "[[expect]]\nname = 'x'\nport = 80"},
	}
	for _, tt := range tests {
		if one, same := compile(t, tt.one).Digest(), compile(t, tt.same).Digest(); one != same {
			t.Errorf("%s: digests %s and %s, want the same", tt.name, one, same)
		}
	}
	range80, list80 := compile(t, "[[expect]]\nname = 'x'\nport = '80-81'"), compile(t, "[[expect]]\nname = 'x'\nport = [80, 81]")
	if range80.Digest() == list80.Digest() {
		t.Error("an expect rule demands each element of a list, but one port of a range: the digests are the same")
	}
}

func TestReasons(t *testing.T) {
	const rules = `
[[expect]]
name = "web"
port = [80, 443]
process = "nginx"
user = "www-data"
why = "public site"
[[allow]]
name = "ssh"
port = 22
process = ["sshd", "systemd"]
expires = "2026-11-01"
[[forbid]]
name = "telnet"
port = 23
why = "clear text"
[[forbid]]
name = "nc"
process = "nc"
`
	www := func(l *Listener) { l.User = "www-data" }
	for _, test := range []struct {
		name     string
		listener *Listener
		want     Reason
	}{
		{name: "yes", listener: nginx(80, www), want: Reason{"web", "matches rule web: public site"}},
		{name: "forbidden", listener: nginx(23), want: Reason{"telnet", "matches forbid rule telnet: clear text"}},
		{name: "another port", listener: nginx(8443, www), want: Reason{"web", "port 8443 is not in 80,443 of rule web"}},
		{name: "another user", listener: nginx(80), want: Reason{"web", "user root is not www-data of rule web"}},
		{name: "two mismatches", listener: nginx(8443), want: Reason{"web", "port 8443 is not in 80,443 and user root is not www-data of rule web"}},
		{name: "unknown owner", listener: nginx(80, www, unreadable), want: Reason{"web", "process is not known to be nginx of rule web"}},
		{name: "unknown owner that may be forbidden", listener: nginx(99, by("x"), unreadable), want: Reason{"nc", "process is not known to be nc of forbid rule nc"}},
		{name: "no owner", listener: nginx(80, www, none), want: Reason{"web", "process is absent, not nginx of rule web"}},
		{name: "expired", listener: nginx(22, by("sshd")), want: Reason{"ssh", "2026-11-01 was the last day of rule ssh"}},
		{name: "nothing in common", listener: nginx(99, by("x")), want: Reason{"", "no rule comes close: none names this port, process, program, unit or container"}},
		{name: "the nearest holder counts", listener: nginx(80, held(Holder{Process: "a"}, Holder{Process: "nginx"})), want: Reason{"web", "user root is not www-data of rule web"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, compile(t, rules).Why(test.listener, now)); diff != "" {
				t.Errorf("reason (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMatchingRulesSayWhatLimitsThem(t *testing.T) {
	r := compile(t, `
[[forbid]]
name = "nc"
process = "nc"
[[expect]]
name = "web"
port = 80
why = "public site"
[[allow]]
name = "old"
port = 80
expires = "2026-11-01"
[[allow]]
name = "other"
port = 81
[[allow]]
process = "nginx"
`)
	for _, test := range []struct {
		name     string
		listener *Listener
		want     []string
	}{
		{name: "several", listener: nginx(80), want: []string{"expect web: public site", "allow old, which no longer allows anything: 2026-11-01 was the last day", "allow allow 3"}},
		{name: "unknown owner", listener: nginx(443, unreadable), want: []string{"forbid nc, perhaps: process is not known to be nc", "allow allow 3, perhaps: process is not known to be nginx"}},
		{name: "none", listener: nginx(443, by("x"))},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, r.Matching(test.listener, now)); diff != "" {
				t.Errorf("matching rules (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReasonWithoutRules(t *testing.T) {
	if diff := cmp.Diff(Reason{Why: "there are no rules"}, compile(t, "unlisted = 'unexpected'").Why(nginx(80), now)); diff != "" {
		t.Errorf("reason (-want +got):\n%s", diff)
	}
}

// errorsOf returns the errors in options.
func errorsOf(o Options) string {
	if o.Unlisted == "" {
		o.Unlisted = UnlistedAuto
	}
	if err := o.ValidateRules([]string{"owner"}); err != nil {
		return err.Error()
	}
	return ""
}
