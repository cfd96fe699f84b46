package plugin_test

import (
	"testing"

	"sockwatch/agent/plugin"
)

func TestShortWordsAreNearToFew(t *testing.T) {
	for _, test := range []struct {
		word  string
		known []string
		want  string
	}{
		{word: "prot", known: []string{"sort", "port"}, want: "port"},
		{word: "prt", known: []string{"sort", "port"}, want: "port"},
		{word: "x", known: []string{"h", "json"}},
		{word: "go", known: []string{"io", "to"}},
		{word: "frm", known: []string{"for", "min"}},
		{word: "uri", known: []string{"url", "min"}, want: "url"},
		{word: "intervall", known: []string{"interval", "precision"}, want: "interval"},
		{word: "Interval", known: []string{"interval"}, want: "interval"},
		{word: "colection_jiter", known: []string{"collection_jitter"}, want: "collection_jitter"},
		{word: "json", known: []string{"jo"}},
	} {
		if got := plugin.Nearest(test.word, test.known); got != test.want {
			t.Errorf("%q is near to %q, want %q", test.word, got, test.want)
		}
	}
}
