package expect

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
)

func TestExampleIsValid(t *testing.T) {
	if err := errorsOf(Example()); err != "" {
		t.Error(err)
	}
	if err := errorsOf(Defaults()); err != "" {
		t.Error(err)
	}
}

func TestEveryErrorOfRulesNamesItsOption(t *testing.T) {
	port := Criteria{Port: Ports{{80, 80}}}
	for _, test := range []struct {
		name    string
		options Options
		want    string
	}{
		{name: "unlisted", options: Options{Unlisted: "never"}, want: `unlisted: unknown value "never" (known: auto, ignore, unexpected)`},
		{name: "no name", options: Options{Expect: []Expect{{Criteria: port, Min: 1}}, Forbid: []Forbid{{Criteria: port}}, Allow: []Allow{{Criteria: port}}},
			want: `expect[0].name: is missing: expect and forbid rules need one, such as name = "web"
forbid[0].name: is missing: expect and forbid rules need one, such as name = "web"`},
		{name: "one name twice", options: Options{
			Expect: []Expect{{Name: "a", Criteria: port, Min: 1}, {Name: "b", Criteria: port, Min: 1}},
			Allow:  []Allow{{Name: "b", Criteria: port}, {Name: "b", Criteria: port}},
			Forbid: []Forbid{{Name: "a", Criteria: port}},
		}, want: `expect[0].name: 2 rules are called "a": the names of expect and forbid rules must be unique
forbid[0].name: 2 rules are called "a": the names of expect and forbid rules must be unique`},
		{name: "names", options: Options{Allow: []Allow{{Name: "a\nb", Criteria: port}, {Name: " a", Criteria: port}}},
			want: `allow[0].name: "a\nb" holds a control character
allow[1].name: " a" begins or ends with a blank`},
		{name: "no criterion", options: Options{Allow: []Allow{{Name: "a"}}}, want: `allow[0]: has no criterion: set port, process, user, unit or another one`},
		{name: "min", options: Options{Expect: []Expect{{Name: "a", Criteria: port, Min: -1}}}, want: `expect[0].min: must be at least 1`},
		{name: "globs", options: Options{Allow: []Allow{{Criteria: Criteria{Process: plugin.Strings{"[", "ok", "{"}, Unit: plugin.Strings{}}}}},
			want: `allow[0].process: pattern "[": "[" without "]"
allow[0].process: pattern "{": "{" without "}"
allow[0].unit: the list is empty, and nothing would match: leave the option out for any`},
		{name: "classes", options: Options{Allow: []Allow{{Criteria: Criteria{Exposure: plugin.Strings{"pubic", "p*", ""}, Family: plugin.Strings{"tcp6"}}}}},
			want: `allow[0].family: unknown value "tcp6" (known: ipv4, ipv6, dual)
allow[0].exposure: unknown value "pubic" (known: loopback, link_local, private, public, or "" for none)`},
		{name: "addresses", options: Options{Allow: []Allow{{Criteria: Criteria{Address: plugin.Strings{
			"localhost", "10.0.0.0/33", "10.0.0.1/8", "::0", "[::]", "[::1]:80", "127.0.0.1%", "fe80:0::1%eth0", "127.[", "",
		}}}}},
			want: `allow[0].address: "localhost" is neither an address, nor a CIDR, nor a glob
allow[0].address: "10.0.0.0/33" is not a CIDR such as "10.0.0.0/8"
allow[0].address: "10.0.0.1/8" has bits beyond its length: write "10.0.0.0/8"
allow[0].address: "::0" is never shown like that: write "::"
allow[0].address: "[::]" is a glob for one character: write "::"
allow[0].address: "[::1]:80" is a glob for one character: write "::1"
allow[0].address: "127.0.0.1%" names no device after the %
allow[0].address: "fe80:0::1%eth0" is never shown like that: write "fe80::1%eth0"
allow[0].address: pattern "127.[": "[" without "]"
allow[0].address: "" is neither an address, nor a CIDR, nor a glob`},
		{name: "approval", options: Options{Allow: []Allow{{Criteria: port, Approval: Approval{Why: "a\tb", Expires: "31.3.2027"}}}},
			want: `allow[0].why: "a\tb" holds a control character
allow[0].expires: "31.3.2027" is not a date such as "2027-03-31"`},
		{name: "labels", options: Options{Expect: []Expect{{Name: "a", Criteria: port, Min: 1, Labels: map[string]string{
			"a": "1", "b": "", "c-d": "1", "__e": "1", "owner": "1", "rule": "1", "host": "1", "i": "1\n", "team": "edge",
		}}}}, want: `expect[0].labels: 9 labels: a rule has at most 8
expect[0].labels: "__e" cannot be the name of a label: write letters, digits and _, and begin with a letter
expect[0].labels.b: is empty
expect[0].labels: "c-d" cannot be the name of a label: write letters, digits and _, and begin with a letter
expect[0].labels: "host" is the name of a tag already: choose another one, such as "rule_host"
expect[0].labels.i: "1\n" holds a control character
expect[0].labels: "owner" is the name of a tag already: choose another one, such as "rule_owner"
expect[0].labels: "rule" is the name of a tag already: choose another one, such as "rule_rule"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, errorsOf(test.options)); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPorts(t *testing.T) {
	for _, test := range []struct {
		value any
		want  string // TOML, or the error
	}{
		{value: int64(443), want: `443`},
		{value: "443", want: `443`},
		{value: "8000-8100", want: `"8000-8100"`},
		{value: "8000 - 8100", want: `"8000-8100"`},
		{value: []any{int64(80), int64(443), "1-65535"}, want: `[80, 443, "1-65535"]`},
		{value: int64(0), want: `0 is not a port: ports are 1 to 65535`},
		{value: int64(65536), want: `65536 is not a port: ports are 1 to 65535`},
		{value: int64(-1), want: `-1 is not a port: ports are 1 to 65535`},
		{value: "0-10", want: `0 is not a port: ports are 1 to 65535`},
		{value: "10-99999", want: `99999 is not a port: ports are 1 to 65535`},
		{value: "8100-8000", want: `the range "8100-8000" is empty: write "8000-8100"`},
		{value: "http", want: `"http" is neither a port nor a range such as "8000-8100"`},
		{value: "80-", want: `"" is neither a port nor a range such as "8000-8100"`},
		{value: "99999999999999999999", want: `"99999999999999999999" is neither a port nor a range such as "8000-8100"`},
		{value: 1.5, want: `1.5 is neither a port nor a range such as "8000-8100"`},
		{value: true, want: `true is neither a port nor a range such as "8000-8100"`},
		{value: []any{}, want: `the list is empty: leave the option out for any port`},
		{value: []any{int64(80), "80"}, want: `80 is listed twice`},
		{value: []any{[]any{int64(80)}}, want: `[80] is neither a port nor a range such as "8000-8100"`},
	} {
		var p Ports
		got := ""
		if err := p.UnmarshalTOML(test.value); err != nil {
			got = err.Error()
		} else {
			text, _ := p.MarshalTOML()
			got = string(text)
		}
		if got != test.want {
			t.Errorf("%v: %s, want %s", test.value, got, test.want)
		}
	}
}

func TestEveryGlobOptionOfTheCriteriaIsCompiled(t *testing.T) {
	for _, option := range globOptions {
		var c Criteria
		*option.patterns(&c) = plugin.Strings{"x"}
		if option.all != nil {
			*option.patterns(&c) = plugin.Strings{option.all[0]}
		}
		o := Options{Allow: []Allow{{Criteria: c}}}
		if err := errorsOf(o); err != "" {
			t.Errorf("%s: %s", option.name, err)
		}
		r, err := Compile(o)
		if err != nil {
			t.Fatal(err)
		}
		if v := r.Verdict(nginx(80, at("::")), now); v.Expected != No {
			t.Errorf("%s: verdict %q, want %q", option.name, v.Expected, No)
		}
	}
}
