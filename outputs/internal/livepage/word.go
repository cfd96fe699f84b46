package livepage

import (
	"net/netip"
	"strings"
	"unicode"

	"sockwatch/agent/plugin"
)

// A word is one term of a search as it was typed.
type word struct {
	exclude bool   // with a "-" before it
	key     string // before a colon; ""
	value   string // without quotes
}

// String returns the word as splitWords reads it.
func (w word) String() string {
	s := w.value
	if strings.ContainsFunc(s, unicode.IsSpace) || strings.Contains(s, `"`) || w.key == "" && (s == "" || isMoreThanText(s)) {
		s = `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	if w.key != "" {
		s = w.key + ":" + s
	}
	if w.exclude {
		s = "-" + s
	}
	return s
}

// exactly returns the word that matches one value of a key and nothing else. Spaces at its
// ends are sets of one character, because a list of globs may have spaces around each.
func exactly(key, value string) word {
	rest := strings.TrimLeftFunc(value, unicode.IsSpace)
	text := strings.TrimRightFunc(rest, unicode.IsSpace)
	before, after := value[:len(value)-len(rest)], rest[len(text):]
	return word{key: key, value: sets(before) + plugin.EscapeGlob(text) + sets(after)}
}

// sets returns a glob of one set for each character.
func sets(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteString("[" + string(r) + "]")
	}
	return b.String()
}

// isMoreThanText reports whether a text without quotes means something else.
func isMoreThanText(text string) bool {
	key, _ := cutKey(text)
	return key != "" || strings.HasPrefix(text, "-")
}

// splitWords splits a search at the spaces that are not in quotes.
func splitWords(s string) (words []word) {
	for {
		s = strings.TrimLeftFunc(s, unicode.IsSpace)
		if s == "" {
			return words
		}
		var w word
		w, s = cutWord(s)
		words = append(words, w)
	}
}

// cutWord returns the first word of s, which does not begin with a space, and the rest.
// Quotes may be around any part of a value; a quote in quotes is written twice.
func cutWord(s string) (w word, rest string) {
	s, w.exclude = strings.CutPrefix(s, "-")
	w.key, s = cutKey(s)
	var value strings.Builder
	quoted := false
	for i, r := range s {
		switch {
		case r == '"':
			if !quoted && i > 0 && s[i-1] == '"' { // the second of two
				value.WriteByte('"')
			}
			quoted = !quoted
		case !quoted && unicode.IsSpace(r):
			w.value = value.String()
			return w, s[i:]
		default:
			value.WriteRune(r)
		}
	}
	w.value = value.String()
	return w, ""
}

// cutKey returns the key at the beginning of a word and the rest, or "" and all of it. An
// IP address such as "fe80::1" has no key.
func cutKey(s string) (key, rest string) {
	n := strings.IndexFunc(s, func(r rune) bool { return !isKeyRune(r) })
	if n <= 0 || s[n] != ':' {
		return "", s
	}
	first := s
	if i := strings.IndexFunc(s, unicode.IsSpace); i >= 0 {
		first = s[:i]
	}
	if _, err := netip.ParseAddr(first); err == nil {
		return "", s
	}
	return s[:n], s[n+1:]
}

func isKeyRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-'
}
