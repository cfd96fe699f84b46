package livepage

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"sockwatch/agent/plugin"
)

// Limits of a search. What is beyond them is ignored, with a message.
const (
	maxSearch = 1024 // bytes
	maxTerms  = 32
	maxStars  = 32 // each may match at every character
)

// A query is what a reader asks for: which listeners and events, in which order, and from
// which one on.
type query struct {
	Text  string // of the search box
	Sort  string // name of a column, with "-" before it: descending; "": by port
	From  int    // index of the first row
	terms []keyTerms
	// problems are sentences that say which parts of Text are ignored, and why.
	problems []string
}

// keyTerms are the terms with one key, or one term without a key.
type keyTerms struct {
	key     string // "": the values of all keys
	include []term // one of these must match, if there are any
	exclude []term // none of these may match
}

// A term is one condition.
type term struct {
	word  word
	match func(value string) bool // without a key: of all values, in lower case, one per line
}

// parseQuery parses the parameters q, sort and from. It never fails: what it does not
// understand becomes a problem.
func parseQuery(values url.Values) query {
	q := query{Text: strings.TrimSpace(strings.ToValidUTF8(values.Get("q"), "\uFFFD"))}
	if len(q.Text) > maxSearch {
		q.Text = strings.ToValidUTF8(q.Text[:maxSearch], "")
		q.problem("The search is longer than %d bytes; the rest is ignored.", maxSearch)
	}
	if s := values.Get("sort"); isSort(s) {
		q.Sort = s
	}
	if n, err := strconv.Atoi(values.Get("from")); err == nil && n > 0 {
		q.From = n
	}
	words := splitWords(q.Text)
	if len(words) > maxTerms {
		q.problem("The search has more than %d terms; the rest is ignored.", maxTerms)
		words = words[:maxTerms]
	}
	stars := 0
	for _, w := range words {
		if stars += strings.Count(w.value, "*"); stars > maxStars {
			q.problem("The search has more than %d wildcards (*); the rest is ignored.", maxStars)
			break
		}
		if err := q.add(w); err != nil {
			q.problem("%v. This term is ignored.", err)
		}
	}
	return q
}

func (q *query) problem(format string, args ...any) {
	q.problems = append(q.problems, fmt.Sprintf(format, args...))
}

// add compiles a word. Words with the same key are alternatives, but each word without a
// key has to match.
func (q *query) add(w word) error {
	match, err := w.compile()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(q.terms, func(k keyTerms) bool { return k.key == w.key && w.key != "" })
	if i < 0 {
		q.terms, i = append(q.terms, keyTerms{key: w.key}), len(q.terms)
	}
	if k := &q.terms[i]; w.exclude {
		k.exclude = append(k.exclude, term{w, match})
	} else {
		k.include = append(k.include, term{w, match})
	}
	return nil
}

// A word is one term of a search as it was typed.
type word struct {
	exclude bool   // with a "-" before it
	key     string // before a colon; ""
	value   string // without quotes
}

// String returns the word as splitWords reads it.
func (w word) String() string {
	s := w.value
	if strings.ContainsFunc(s, unicode.IsSpace) || strings.Contains(s, `"`) || w.key == "" && isMoreThanText(s) {
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

// compile returns a function that reports whether a value matches.
func (w word) compile() (func(string) bool, error) {
	if w.value == "" {
		return nil, fmt.Errorf("%v has no value", w)
	}
	if w.key == "" {
		return compileText(w.value)
	}
	if match, ok := compileComparison(w.value); ok {
		return match, nil
	}
	if w.key == "port" && !strings.ContainsAny(w.value, globSpecial) {
		var ports plugin.Ports
		if err := ports.UnmarshalText([]byte(w.value)); err != nil {
			return nil, oneLine(err)
		}
		return ports.Match, nil
	}
	var patterns plugin.Patterns
	if err := patterns.UnmarshalText([]byte(w.value)); err != nil {
		return nil, oneLine(err)
	}
	if w.key == "address" {
		return matchAddress(patterns), nil
	}
	return patterns.Match, nil
}

// globSpecial are the characters that make a value of port a list of globs.
const globSpecial = `*?[{\`

// oneLine returns the first of joined errors.
func oneLine(err error) error {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(first)
}

// compileText returns a function that reports whether a text, or with "*" a glob, is in a
// line of the values.
func compileText(text string) (func(string) bool, error) {
	text = strings.ToLower(text)
	if !strings.Contains(text, "*") {
		return func(values string) bool { return strings.Contains(values, text) }, nil
	}
	parts := strings.Split(text, "*")
	for i := range parts {
		parts[i] = plugin.EscapeGlob(parts[i])
	}
	globs, err := plugin.CompileGlobs([]string{"*" + strings.Join(parts, "*") + "*"})
	if err != nil {
		return nil, oneLine(err)
	}
	return func(values string) bool {
		for line := range strings.SplitSeq(values, "\n") {
			if globs.Match(line) {
				return true
			}
		}
		return false
	}, nil
}

// compileComparison compiles ">10", ">=10", "<10" and "<=10".
func compileComparison(s string) (func(string) bool, bool) {
	number := strings.TrimLeft(s, "<>=")
	limit, err := strconv.ParseFloat(number, 64)
	var holds func(order int) bool
	switch s[:len(s)-len(number)] {
	case ">":
		holds = func(order int) bool { return order > 0 }
	case ">=":
		holds = func(order int) bool { return order >= 0 }
	case "<":
		holds = func(order int) bool { return order < 0 }
	case "<=":
		holds = func(order int) bool { return order <= 0 }
	}
	if err != nil || math.IsNaN(limit) || holds == nil {
		return nil, false
	}
	return func(value string) bool {
		v, err := strconv.ParseFloat(value, 64)
		return err == nil && !math.IsNaN(v) && holds(cmp.Compare(v, limit))
	}, true
}

// matchAddress returns a function that reports whether an address matches one of the
// patterns, or is in one of those that are prefixes, such as "10.0.0.0/8".
func matchAddress(patterns plugin.Patterns) func(string) bool {
	var prefixes []netip.Prefix
	for _, text := range patterns.Texts() {
		if p, err := netip.ParsePrefix(text); err == nil {
			prefixes = append(prefixes, p)
		}
	}
	return func(value string) bool {
		if patterns.Match(value) {
			return true
		}
		plain, _, _ := strings.Cut(value, "%")
		ip, err := netip.ParseAddr(plain)
		return err == nil && slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(ip) || p.Contains(ip.Unmap()) })
	}
}

// restrict returns the query without the terms whose key nothing has, or whose values the
// reader may not see. known are the keys of all listeners and events.
func (q query) restrict(known map[string]audience, trusted bool) query {
	terms := q.terms
	q.terms, q.problems = nil, slices.Clone(q.problems)
	for _, k := range terms {
		a, ok := known[k.key]
		switch {
		case k.key == "" || a.includes(trusted):
			q.terms = append(q.terms, k)
			continue
		case ok && a == trustedOnly:
			q.problem("%q is shown only to readers on this host or with authentication. This term is ignored.", k.key)
			continue
		case ok:
			q.problem("%q is never shown here. This term is ignored.", k.key)
			continue
		}
		w := slices.Concat(k.include, k.exclude)[0].word
		hint := ""
		if near := nearest(k.key, known); near != "" {
			hint = fmt.Sprintf(" Did you mean %q?", near)
		}
		q.problem("No listener or event has %q.%s To search for the text, write %v. This term is ignored.", k.key, hint, word{value: k.key + ":" + w.value})
	}
	return q
}

// nearest returns the known word that is most like a mistyped one, or "".
func nearest(typed string, known map[string]audience) string {
	typed = strings.ToLower(typed)
	best, least := "", len(typed)/3+2
	for k := range known {
		d := distance(typed, k)
		if strings.HasPrefix(k, typed) {
			d = 1
		}
		if d < least || d == least && best != "" && k < best {
			best, least = k, d
		}
	}
	return best
}

// distance returns how many characters have to be inserted, deleted or replaced to turn a
// into b. Words of very different lengths are far apart.
func distance(a, b string) int {
	if d := len(a) - len(b); d > 3 || d < -3 {
		return len(a) + len(b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// A subject is what a query selects: a listener or an event.
type subject interface {
	// value returns the value of a key, and false if the reader may not see it or it is
	// absent.
	value(key string, trusted bool) (string, bool)
	// text returns all values that the reader may see, in lower case, one per line.
	text(trusted bool) string
}

// Results of evaluate that are not the index of the only terms that do not match.
const (
	allMatch     = -1
	severalDoNot = -2
)

// matches reports whether the query selects a subject.
func (q *query) matches(s subject, trusted bool) bool { return q.evaluate(s, trusted) == allMatch }

// evaluate returns allMatch, severalDoNot, or the index of the only terms that do not
// match.
func (q *query) evaluate(s subject, trusted bool) int {
	failed := allMatch
	for i := range q.terms {
		if q.terms[i].matches(s, trusted) {
			continue
		}
		if failed != allMatch {
			return severalDoNot
		}
		failed = i
	}
	return failed
}

func (k *keyTerms) matches(s subject, trusted bool) bool {
	value, ok := "", true
	if k.key == "" {
		value = s.text(trusted)
	} else {
		value, ok = s.value(k.key, trusted)
	}
	one := func(t term) bool { return ok && t.match(value) }
	return (len(k.include) == 0 || slices.ContainsFunc(k.include, one)) && !slices.ContainsFunc(k.exclude, one)
}

// has reports whether one of the words of the query is w.
func (q *query) has(w word) bool {
	return slices.ContainsFunc(q.terms, func(k keyTerms) bool {
		return k.key == w.key && slices.ContainsFunc(k.include, func(t term) bool { return t.word == w })
	})
}

// toggled returns the text of the search with a word added, or removed if it is there.
func (q *query) toggled(w word) string {
	var words []string
	found := false
	for _, other := range splitWords(q.Text) {
		if other == w {
			found = true
			continue
		}
		words = append(words, other.String())
	}
	if !found {
		words = append(words, w.String())
	}
	return strings.Join(words, " ")
}
