package push

import (
	"cmp"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
)

// echoes are the credentials that a server may quote in its answer, longest first. They
// are hidden only in texts that are shown; answers are classified before that.
type echoes []echo

// An echo is a form in which a server may quote a secret, and what is shown instead.
type echo struct{ text, shown string }

const hidden = "[secret]"

// minBareSecret is the minimum length of a secret that is hidden wherever it is a whole
// word. A shorter one may be one of the server's own words, and hiding that word would
// reveal the secret. So it is hidden only after the name that it was sent with.
const minBareSecret = 8

// add adds a secret that is sent after a name, such as "Bearer ".
func (e *echoes) add(name, secret string) {
	if secret == "" {
		return
	}
	if name != "" {
		*e = append(*e, echo{name + secret, name + hidden})
	}
	if len(secret) >= minBareSecret {
		*e = append(*e, echo{secret, hidden})
	}
}

// addAuthorization adds the secret in a value of the header Authorization, if the value
// has a scheme.
func (e *echoes) addAuthorization(value string) {
	if scheme, secret, ok := strings.Cut(value, " "); ok {
		e.add(scheme+" ", secret)
	}
}

// minPart is the minimum length of a part of a URL that is hidden. A shorter one is hardly a
// secret, but may well be a word that explains an error.
const minPart = 16

// addURL adds the long segments of a URL's path and the long values in its query: a
// webhook's URL is often its only secret.
func (e *echoes) addURL(u *url.URL) {
	parts := strings.Split(u.EscapedPath(), "/")
	for _, pair := range strings.Split(u.RawQuery, "&") {
		_, value, hasName := strings.Cut(pair, "=")
		if !hasName {
			value = pair
		}
		parts = append(parts, value)
	}
	for _, part := range parts {
		if len(part) < minPart {
			continue
		}
		e.add("", part)
		if plain, err := url.QueryUnescape(part); err == nil && plain != part && len(plain) >= minPart {
			e.add("", plain)
		}
	}
}

// addProxy adds the password in the URL of a proxy.
func (e *echoes) addProxy(address string) {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return
	}
	password, _ := u.User.Password()
	e.add(u.User.Username()+":", password)
	e.add("Basic ", base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password)))
}

// sort puts the longest first, since a secret may be part of another.
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

// replaceWhole replaces old in s, except where it is part of a longer word.
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
