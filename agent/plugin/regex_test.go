package plugin

import (
	"fmt"
	"testing"
)

func TestPatternsThatLookLikeRegularExpressions(t *testing.T) {
	for _, tt := range []struct {
		pattern     string
		dotsAreRare bool
		want        string // "": it looks like a glob
	}{
		{pattern: "^nginx$", want: "nginx"},
		{pattern: "^nginx", want: "nginx"},
		{pattern: "nginx.*", dotsAreRare: true, want: "nginx*"},
		{pattern: ".*sql", dotsAreRare: true, want: "*sql"},
		{pattern: "nginx.*", want: ""},
		{pattern: "10.0.*", dotsAreRare: true, want: ""},
		{pattern: "python3.*", dotsAreRare: true, want: ""},
		{pattern: `^10\.0\..*$`, want: "10.0.*"},
		{pattern: "php.+", want: "php?*"},
		{pattern: "^(nginx|apache2)$", want: "{nginx,apache2}"},
		{pattern: "(?:a|b)-[0-9]+", want: "{a,b}-[0-9]*"},
		{pattern: "^a|b$", want: "{a,b}"},
		{pattern: `^worker-\d+$`, want: "worker-*"},
		{pattern: "nginx*"}, {pattern: "{a,b}"}, {pattern: "[!a]*"}, {pattern: "[a-z]*"}, {pattern: "a|b"}, {pattern: ""}, {pattern: "g++", dotsAreRare: true},
		{pattern: "^", want: ""},  // there is no glob for nothing
		{pattern: "^(", want: ""}, // neither
	} {
		if got := globOf(tt.pattern, tt.dotsAreRare); got != tt.want {
			t.Errorf("%q, dots are rare: %v: %q, want %q", tt.pattern, tt.dotsAreRare, got, tt.want)
		}
	}
	want := `process: pattern "^a$" looks like a regular expression, but is a glob, which matches whole values: write "a"`
	if got := fmt.Sprint(WarnOfRegexps("process", []string{"a", "^a$"}, false)); got != want {
		t.Errorf("warning %q, want %q", got, want)
	}
}

// FuzzGlobOf: a suggestion is a glob, and differs from the pattern.
func FuzzGlobOf(f *testing.F) {
	for _, pattern := range []string{"^nginx$", "(a|b)", ".*", "[0-9]+", `^\d$`, "(((", "|||", "^$"} {
		f.Add(pattern, true)
	}
	f.Fuzz(func(t *testing.T, pattern string, dotsAreRare bool) {
		glob := globOf(pattern, dotsAreRare)
		if glob == "" {
			return
		}
		if _, err := CompileGlobs([]string{glob}); err != nil || glob == pattern {
			t.Errorf("%q suggests %q: %v", pattern, glob, err)
		}
	})
}
