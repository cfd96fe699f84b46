package plugin

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestGlobs(t *testing.T) {
	tests := []struct {
		glob      string
		yes, no   []string
		wantError string
	}{
		{glob: "tcp_listen", yes: []string{"tcp_listen"}, no: []string{"tcp_listen_event", "x_tcp_listen", ""}},
		{glob: "tcp_listen*", yes: []string{"tcp_listen", "tcp_listen_event"}, no: []string{"x_tcp_listen", "tcp"}},
		{glob: "*_listen", yes: []string{"_listen", "tcp_listen"}, no: []string{"tcp_listen_event", "listen"}},
		{glob: "*listen*", yes: []string{"listen", "tcp_listen_event"}, no: []string{"lister", ""}},
		{glob: "*", yes: []string{"", "x", "x\ny"}},
		{glob: "**", yes: []string{"", "x"}},
		{glob: "a*b", yes: []string{"ab", "a*b", "axb"}, no: []string{"a", "abc"}},
		{glob: "*a*b", yes: []string{"ab", "xaxb"}, no: []string{"abc"}},
		{glob: "a?c", yes: []string{"abc", "aéc"}, no: []string{"ac", "abbc"}},
		{glob: "[a-c]x", yes: []string{"ax", "cx"}, no: []string{"dx", "x"}},
		{glob: "[a-z0-9]", yes: []string{"a", "z", "0", "9"}, no: []string{"A", "-"}},
		{glob: "[!a]x", yes: []string{"bx", "\nx"}, no: []string{"ax"}},
		{glob: `[a\-c]`, yes: []string{"a", "-", "c"}, no: []string{"b", `\`}},
		{glob: `[\]]x`, yes: []string{"]x"}, no: []string{`\x`}},
		{glob: `[\!a]`, yes: []string{"!", "a"}, no: []string{"b", `\`}},
		{glob: `[\a-\c]`, yes: []string{"a", "b", "c"}, no: []string{"-", `\`}},
		{glob: `[\\]`, yes: []string{`\`}, no: []string{"x"}},
		{glob: "[a-]", yes: []string{"a", "-"}, no: []string{"b"}},
		{glob: "[-a]", yes: []string{"a", "-"}, no: []string{"b"}},
		{glob: "[^a]", yes: []string{"^", "a"}, no: []string{"b"}},
		{glob: "[[:alpha:]]", yes: []string{"[]", ":]", "a]"}, no: []string{"b", "b]"}},
		{glob: "[é-ü]", yes: []string{"ö"}, no: []string{"e"}},
		{glob: "{a,b{1,2}}.*", yes: []string{"a.", "b1.x", "b2.y"}, no: []string{"b.", "b3.x"}},
		{glob: `\*`, yes: []string{"*"}, no: []string{"x"}},
		{glob: `\**`, yes: []string{"*", "*x"}, no: []string{"x"}},
		{glob: `a\é*`, yes: []string{"aé", "aéx"}, no: []string{"a", `a\é`}},
		{glob: "a,b", yes: []string{"a,b"}, no: []string{"a", "b"}},
		{glob: "a]", yes: []string{"a]"}, no: []string{"a"}},
		{glob: "a.b", yes: []string{"a.b"}, no: []string{"axb"}},
		{glob: "/usr/*", yes: []string{"/usr/bin/x"}, no: []string{"/opt"}},
		{glob: "x?*", yes: []string{"x\ny"}, no: []string{"x"}},
		{glob: "[]]x", wantError: `pattern "[]]x": empty set`},
		{glob: "[!]x", wantError: `pattern "[!]x": empty set`},
		{glob: "{a", wantError: `pattern "{a": "{" without "}"`},
		{glob: "a}", wantError: `pattern "a}": "}" without "{"`},
		{glob: "[a", wantError: `pattern "[a": "[" without "]"`},
		{glob: "[", wantError: `pattern "[": "[" without "]"`},
		{glob: `[\]`, wantError: `pattern "[\\]": "[" without "]"`},
		{glob: `a\`, wantError: `pattern "a\\": ends in "\"`},
		{glob: "[b-a]", wantError: `pattern "[b-a]": the range b-a is empty`},
		{glob: "", wantError: `pattern "": is empty and matches nothing`},
	}
	for _, tt := range tests {
		t.Run(tt.glob, func(t *testing.T) {
			g, err := CompileGlobs([]string{tt.glob})
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.wantError {
				t.Fatalf("error %q, want %q", got, tt.wantError)
			}
			for _, s := range tt.yes {
				if !g.Match(s) {
					t.Errorf("does not match %q", s)
				}
			}
			for _, s := range tt.no {
				if g.Match(s) {
					t.Errorf("matches %q", s)
				}
			}
		})
	}
}

// FuzzGlobs compares the fast forms with the regular expression of each glob.
// A pattern without special characters matches only itself.
func FuzzGlobs(f *testing.F) {
	for _, glob := range []string{"a*", "*a", "*a*", "a", "[!a-z]", "{a,b}", `\{`, "[[:alpha:]]", "[^a]", "é?", "{{a},b}", "[a-]", `[\]`, `a\-c*`, "a,]"} {
		f.Add(glob, "abc")
	}
	f.Fuzz(func(t *testing.T, glob, s string) {
		if s != "" {
			if g, err := CompileGlobs([]string{EscapeGlob(s)}); err != nil || utf8.ValidString(s) && (!g.Match(s) || glob != s && g.Match(glob)) {
				t.Errorf("%q, escaped as %q, does not match itself alone: %v", s, EscapeGlob(s), err)
			}
		}
		matches, err := compileGlob(glob)
		if err != nil {
			return
		}
		expr, err := translate(glob)
		if err != nil {
			t.Fatalf("%q is compiled and not translated: %v", glob, err)
		}
		re, err := regexp.Compile(expr)
		if err != nil {
			t.Fatalf("%q becomes %q: %v", glob, expr, err)
		}
		for _, s := range []string{s, glob, strings.Trim(glob, "*"), glob + s, s + glob} {
			if utf8.ValidString(glob) && utf8.ValidString(s) && matches(s) != re.MatchString(s) {
				t.Errorf("%q matches %q: %v, but %q: %v", glob, s, matches(s), expr, re.MatchString(s))
			}
		}
		if regexp.MustCompile(`^[\pL\pN_./ -]+$`).MatchString(glob) && (!matches(glob) || matches(glob+"x")) {
			t.Errorf("%q does not match itself alone", glob)
		}
	})
}

func TestEscapedGlobMatchesItsTextAlone(t *testing.T) {
	for _, s := range []string{"sshd", `a\x5cb`, "[kworker]", "{a,b}", "*", "?", "é*", "a,b]"} {
		g, err := CompileGlobs([]string{EscapeGlob(s)})
		if err != nil {
			t.Errorf("%q is escaped as %q: %v", s, EscapeGlob(s), err)
			continue
		}
		if !g.Match(s) || g.Match(s+"x") || g.Match("x"+s) || g.Match("") {
			t.Errorf("%q, escaped as %q, does not match itself alone", s, EscapeGlob(s))
		}
	}
}

func BenchmarkGlobs(b *testing.B) {
	const value = "tcp_listen_event_of_a_service"
	for _, glob := range []string{"custom_port_exporter", "tcp_listen*", "*service", "*event*", "tcp_*_service", "tcp_listen[_]*"} {
		matches, err := compileGlob(glob)
		if err != nil {
			b.Fatal(err)
		}
		expr, err := translate(glob)
		if err != nil {
			b.Fatal(err)
		}
		re := regexp.MustCompile(expr)
		b.Run("compiled/"+glob, func(b *testing.B) {
			for b.Loop() {
				matches(value)
			}
		})
		b.Run("regexp/"+glob, func(b *testing.B) {
			for b.Loop() {
				re.MatchString(value)
			}
		})
	}
}
