package plugin

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestListsOfGlobsAreSplitAtTheirOwnCommas(t *testing.T) {
	tests := []struct {
		list string
		want []string
	}{
		{"nginx", []string{"nginx"}},
		{"nginx, php-fpm*", []string{"nginx", "php-fpm*"}},
		{"{a,b{c,d}},e", []string{"{a,b{c,d}}", "e"}},
		{"[a,b],c", []string{"[a,b]", "c"}},
		{"[{],}", []string{"[{]", "}"}},
		{`a\,b,c`, []string{`a\,b`, "c"}},
		{`\{a,b`, []string{`\{a`, "b"}},
		{"a,", []string{"a", ""}},
		{"", []string{""}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, splitList(tt.list)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.list, diff)
		}
	}
}

func TestPatternsMatchAnyOfTheirGlobs(t *testing.T) {
	var p Patterns
	if !p.Empty() || p.Match("") {
		t.Error("the zero value is not empty, or matches something")
	}
	for _, list := range []string{"nginx,php*", "{a,b},x?"} { // as from a repeated flag
		if err := p.UnmarshalText([]byte(list)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"nginx", "php*", "{a,b}", "x?"}, p.Texts()); diff != "" {
		t.Errorf("texts (-want +got):\n%s", diff)
	}
	for s, want := range map[string]bool{"nginx": true, "nginx2": false, "php-fpm": true, "b": true, "xy": true, "": false} {
		if got := p.Match(s); got != want {
			t.Errorf("%q matches: %v", s, got)
		}
	}
}

func TestEveryBadGlobOfAListIsNamed(t *testing.T) {
	var p Patterns
	err := p.UnmarshalText([]byte("a,{,b"))
	want := `pattern "{,b": "{" without "}"`
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	err = p.UnmarshalText([]byte("a,,]}"))
	want = `pattern "": is empty and matches nothing
pattern "]}": "}" without "{"`
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if !p.Empty() {
		t.Errorf("a list with an error adds %q", p.Texts())
	}
}

func TestPorts(t *testing.T) {
	var p Ports
	if !p.Empty() || p.Match("0") {
		t.Error("the zero value is not empty, or contains a port")
	}
	for _, list := range []string{"22", " 80, 8000-8100", "1-1,65535"} {
		if err := p.UnmarshalText([]byte(list)); err != nil {
			t.Fatal(err)
		}
	}
	for s, want := range map[string]bool{
		"22": true, "23": false, "80": true, "7999": false, "8000": true, "8100": true, "8101": false,
		"0": false, "1": true, "65535": true, "65536": false, "": false, "x": false,
	} {
		if got := p.Match(s); got != want {
			t.Errorf("%q matches: %v", s, got)
		}
	}
}

func TestEveryWrongPortOfAListIsNamed(t *testing.T) {
	tests := []struct{ list, want string }{
		{"", `"" is not a port (1 to 65535) or a range such as 8000-8100`},
		{"ssh", `"ssh" is not a port (1 to 65535) or a range such as 8000-8100`},
		{"0", `"0" is not a port (1 to 65535) or a range such as 8000-8100`},
		{"0-80", `"0-80" is not a port (1 to 65535) or a range such as 8000-8100`},
		{"-1", `"-1" is not a port (1 to 65535) or a range such as 8000-8100`},
		{"1-", `"1-" is not a port (1 to 65535) or a range such as 8000-8100`},
		{"1-2-3", `"1-2-3" is not a port (1 to 65535) or a range such as 8000-8100`},
		{"+22", `"+22" is not a port (1 to 65535) or a range such as 8000-8100`},
		{"80,65536,90-80", `"65536" is not a port (1 to 65535) or a range such as 8000-8100
the range 90-80 is empty: write 80-90`},
	}
	for _, tt := range tests {
		var p Ports
		err := p.UnmarshalText([]byte(tt.list))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%q: error %v, want %s", tt.list, err, tt.want)
		}
		if !p.Empty() {
			t.Errorf("%q adds ports", tt.list)
		}
	}
}

// FuzzLists checks that every text gives either an error that adds nothing, or patterns
// and ports.
func FuzzLists(f *testing.F) {
	f.Add("nginx,{a,b},[x,y]")
	f.Add("80,443,8000-8100")
	f.Add(`\,{[}],`)
	f.Fuzz(func(t *testing.T, text string) {
		var p Patterns
		if err := p.UnmarshalText([]byte(text)); (err == nil) == p.Empty() {
			t.Errorf("%q: error %v, patterns %q", text, err, p.Texts())
		}
		var ports Ports
		if err := ports.UnmarshalText([]byte(text)); (err == nil) == ports.Empty() {
			t.Errorf("%q: error %v, ports %v", text, err, ports.ranges)
		}
	})
}
