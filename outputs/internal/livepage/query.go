package livepage

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"sockwatch/agent/plugin"
)

// Limits of a search. What is beyond them is ignored, with a message.
const (
	maxSearch = 1024 // bytes
	maxTerms  = 32
	maxStars  = 32 // each may match at every character
)

// A query is what a reader asks for: which listeners and events, in which order, and starting
// at which one.
type query struct {
	Text     string // of the search box
	Sort     string // name of a column, with "-" before it: descending; "": by port
	From     int    // index of the first row
	terms    []keyTerms
	problems []problem
}

// A problem is a part of Text that is ignored.
type problem struct{ reason, ignored string } // sentences

func (p problem) String() string { return p.reason + " " + p.ignored }

const (
	ignoresTerm = "This term is ignored."
	ignoresRest = "The rest is ignored."
)

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
		q.problem(ignoresRest, "The search is longer than %d bytes.", maxSearch)
	}
	if s := values.Get("sort"); isSort(s) {
		q.Sort = s
	}
	if n, err := strconv.Atoi(values.Get("from")); err == nil && n > 0 {
		q.From = n
	}
	words := splitWords(q.Text)
	if len(words) > maxTerms {
		q.problem(ignoresRest, "The search has more than %d terms.", maxTerms)
		words = words[:maxTerms]
	}
	stars := 0
	for _, w := range words {
		if stars += strings.Count(w.value, "*"); stars > maxStars {
			q.problem(ignoresRest, "The search has more than %d wildcards (*).", maxStars)
			break
		}
		if err := q.add(w); err != nil {
			q.problem(ignoresTerm, "%v.", err)
		}
	}
	return q
}

func (q *query) problem(ignored, format string, args ...any) {
	q.problems = append(q.problems, problem{fmt.Sprintf(format, args...), ignored})
}

// messages returns the problems for people.
func (q *query) messages() (messages []string) {
	for _, p := range q.problems {
		messages = append(messages, p.String())
	}
	return messages
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

// restrict returns the query without the terms whose key no listener or event has, or whose
// values the reader may not see. known are the keys of all listeners and events.
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
			q.problem(ignoresTerm, "%q is shown only to readers on this host or with authentication.", k.key)
			continue
		case ok:
			q.problem(ignoresTerm, "%q is never shown here.", k.key)
			continue
		}
		w := slices.Concat(k.include, k.exclude)[0].word
		hint := ""
		if near := nearestKey(k.key, known); near != "" {
			hint = fmt.Sprintf(" Did you mean %q?", near)
		}
		q.problem(ignoresTerm, "No listener or event has %q.%s To search for the text, write %v.", k.key, hint, word{value: k.key + ":" + w.value})
	}
	return q
}

// Results of evaluate that are not the index of the only terms that do not match.
const (
	allMatch     = -1
	severalDoNot = -2
)

// nearestKey returns the key that was probably meant, or "". What is still being typed is the
// beginning of a key.
func nearestKey(typed string, known map[string]audience) string {
	keys := slices.Sorted(maps.Keys(known))
	if i := slices.IndexFunc(keys, func(k string) bool { return strings.HasPrefix(k, strings.ToLower(typed)) }); i >= 0 {
		return keys[i]
	}
	return plugin.Nearest(typed, keys)
}

// matches reports whether the query selects a listener or an event.
func (q *query) matches(s *searchable, trusted bool) bool { return q.evaluate(s, trusted) == allMatch }

// evaluate returns allMatch, severalDoNot, or the index of the only terms that do not
// match.
func (q *query) evaluate(s *searchable, trusted bool) int {
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

func (k *keyTerms) matches(s *searchable, trusted bool) bool {
	one := func(t term) bool { return t.match(s.lower) || trusted && t.match(s.inner) }
	if k.key != "" {
		value, ok := s.value(k.key, trusted)
		one = func(t term) bool { return ok && t.match(value) }
	}
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
