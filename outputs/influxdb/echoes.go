package influxdb

import (
	"cmp"
	"slices"
	"strings"
)

// echoes are the credentials that a server may quote in what it says, longest first.
// They are hidden in what is shown, and only there: what an answer means is decided
// by the words of the server.
type echoes []echo

// An echo is a form in which a server may quote a secret, and what is shown of it.
type echo struct{ text, shown string }

const hidden = "[secret]"

// minBareSecret is the length from which on a secret is hidden wherever it stands by
// itself. A shorter one may be a word of the server's own, which hiding would give
// away: it is hidden only behind the name that it was sent with.
const minBareSecret = 8

// add adds a secret that is sent behind a name, such as "Bearer ".
func (e *echoes) add(name, secret string) {
	if secret == "" {
		return
	}
	*e = append(*e, echo{name + secret, name + hidden})
	if len(secret) >= minBareSecret {
		*e = append(*e, echo{secret, hidden})
	}
}

// addAuthorization adds a value of the header Authorization, a scheme and a secret.
func (e *echoes) addAuthorization(value string) {
	if scheme, secret, ok := strings.Cut(value, " "); ok {
		e.add(scheme+" ", secret)
	}
}

// sort brings the longest to the front: a secret may be a part of another.
func (e echoes) sort() {
	slices.SortFunc(e, func(a, b echo) int {
		return cmp.Or(cmp.Compare(len(b.text), len(a.text)), strings.Compare(a.text, b.text))
	})
}

// hide replaces the secrets in a text that is to be shown.
func (e echoes) hide(text string) string {
	for _, echo := range e {
		text = replaceWhole(text, echo.text, echo.shown)
	}
	return text
}

// replaceWhole replaces old in s, but not as a part of a longer word.
func replaceWhole(s, old, with string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, old)
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		end := i + len(old)
		if isWordByte(old[0]) && i > 0 && isWordByte(s[i-1]) ||
			isWordByte(old[len(old)-1]) && end < len(s) && isWordByte(s[end]) {
			b.WriteString(s[:i+1])
			s = s[i+1:]
			continue
		}
		b.WriteString(s[:i])
		b.WriteString(with)
		s = s[end:]
	}
}

func isWordByte(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || b == '_' || b >= 0x80
}
